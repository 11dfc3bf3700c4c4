//! `pilotlight pin` and `pilotlight unpin`.

use serde::Serialize;

use super::key;
use crate::access;
use crate::cli::Pin;
use crate::failure::Failure;
use crate::output::{self, Answer};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Pin,
    Unpin,
}

#[derive(Serialize)]
struct Report {
    changed: u64,
    absent: u64,
}

/// That some keys were absent is a negative answer, and no error.
pub(super) fn run(arguments: &Pin, change: Change) -> Result<Answer, Failure> {
    let keys = arguments.keys.iter().map(|typed| key(typed, &arguments.namespace, &arguments.target));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let access = access::open(&arguments.target)?;
    let mut report = Report { changed: 0, absent: 0 };
    for key in &keys {
        let is_there = match change {
            Change::Pin => access.pin(key)?,
            Change::Unpin => access.unpin(key)?,
        };
        if is_there {
            report.changed += 1;
        } else {
            report.absent += 1;
        }
    }
    if arguments.target.json {
        output::json(&report)?;
    } else {
        let absent = if report.absent > 0 { format!(", {} absent", report.absent) } else { String::new() };
        let done = match change {
            Change::Pin => "pinned",
            Change::Unpin => "unpinned",
        };
        output::note(format_args!("{done} {}{absent}", output::count(report.changed, "entry")));
    }
    Ok(if report.absent > 0 { Answer::No } else { Answer::Yes })
}
