//! `pilotlight verify`.

use pilotlight_server::report::CheckedReport;

use crate::access;
use crate::cli::Verify;
use crate::failure::Failure;
use crate::output::{self, Answer};
use crate::progress::Progress;

pub(super) fn run(arguments: &Verify) -> Result<Answer, Failure> {
    let access = access::open(&arguments.target)?;
    let mut progress = Progress::of("entries checked");
    let report = access.verify(&mut |report| progress.at(report.entries_checked, report.entries_total));
    drop(progress);
    let report = report?;
    if arguments.target.json {
        output::json(&report)?;
    } else {
        output::data(page(&report).as_bytes())?;
    }
    Ok(if report.damaged_count > 0 { Answer::No } else { Answer::Yes })
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
