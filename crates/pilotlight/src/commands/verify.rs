//! `pilotlight verify`.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use pilotlight_server::report::CheckedReport;

use crate::access;
use crate::cli::Verify;
use crate::failure::Failure;
use crate::output::{self, Answer};

/// How often a log is told how far it is.
const LINE_EVERY: Duration = Duration::from_secs(10);

pub(super) fn run(arguments: &Verify) -> Result<Answer, Failure> {
    let access = access::open(&arguments.target)?;
    let report = if std::io::stderr().is_terminal() {
        let bar = bar();
        let report = access.verify(&mut |report| {
            bar.set_length(report.entries_total);
            bar.set_position(report.entries_checked);
        });
        bar.finish_and_clear();
        report?
    } else {
        let mut told = Instant::now();
        access.verify(&mut |report| {
            if told.elapsed() >= LINE_EVERY {
                told = Instant::now();
                output::note(format_args!("checked {} of {}", report.entries_checked, report.entries_total));
            }
        })?
    };
    if arguments.target.json {
        output::json(&report)?;
    } else {
        output::data(page(&report).as_bytes())?;
    }
    Ok(if report.damaged_count > 0 { Answer::No } else { Answer::Yes })
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    // The template is a constant; without it the bar's own style does.
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos} of {len} entries, {eta} to go") {
        bar.set_style(style);
    }
    bar
}

fn page(report: &CheckedReport) -> String {
    let mut text = format!(
        "checked {}, {}: {}\n",
        output::count(report.entries_checked, "entry"),
        output::bytes(report.bytes_checked),
        if report.damaged_count == 0 {
            "all whole".to_owned()
        } else {
            format!("{} damaged", report.damaged_count)
        },
    );
    for damage in &report.damaged {
        text += &format!("  {}: {}\n", damage.key.escape_debug(), damage.reason);
    }
    if report.damaged_count > 0 {
        text += "Damaged entries were set aside: they will be compiled again\n";
    }
    text
}
