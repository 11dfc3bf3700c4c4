//! `pilotlight gc`.

use pilotlight_cache::Collect;
use pilotlight_server::report::CollectedReport;

use crate::access;
use crate::cli::Gc;
use crate::failure::Failure;
use crate::output::{self, Answer};
use crate::progress::Progress;

pub(super) fn run(arguments: &Gc) -> Result<Answer, Failure> {
    let what = if arguments.dry_run { Collect::Plan } else { Collect::Run };
    let mut progress = Progress::of("segments cleaned");
    let report = access::collect(&arguments.target, what, &mut |report| {
        progress.at(report.segments, report.segments_total);
    });
    drop(progress);
    let report = report?;
    if arguments.target.json {
        output::json(&report)?;
    } else {
        output::data(page(&report, what).as_bytes())?;
    }
    Ok(Answer::Yes)
}

fn page(report: &CollectedReport, what: Collect) -> String {
    let after = if what == Collect::Plan { "after, about" } else { "after" };
    let bytes = output::bytes;
    let rows = [
        ("before", bytes(report.before_bytes)),
        (after, bytes(report.after_bytes)),
        ("expired entries", report.expired.to_string()),
        ("orphaned files", format!("{}, {}", report.orphans, bytes(report.orphan_bytes))),
        ("dead in the log", bytes(report.dead_bytes)),
        ("segments cleaned", format!("{} of {}", report.segments, report.segments_total)),
    ];
    let rows: Vec<Vec<String>> = rows.map(|(name, value)| vec![name.to_owned(), value]).into();
    let mut text = output::table(&rows, output::Last::Text);
    if what == Collect::Plan {
        text += "Nothing was changed; without `--dry-run` it is\n";
    }
    text
}
