//! `pilotlight rm`.

use serde::Serialize;

use super::{key, namespace};
use crate::access;
use crate::cli::Rm;
use crate::failure::Failure;
use crate::output::{self, Answer};

#[derive(Serialize)]
struct Report {
    deleted: u64,
    absent: u64,
}

/// Deletes what it was told to. That some keys were absent is a negative answer, and no error.
pub(super) fn run(arguments: &Rm) -> Result<Answer, Failure> {
    let keys = arguments.keys.iter().map(|typed| key(typed, &arguments.namespace, &arguments.target));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let access = access::open(&arguments.target)?;
    let mut report = Report { deleted: 0, absent: 0 };
    if arguments.all {
        report.deleted = access.clear(&namespace(&arguments.namespace, &arguments.target)?)?;
    }
    for key in &keys {
        if access.delete(key)? {
            report.deleted += 1;
        } else {
            report.absent += 1;
        }
    }
    if arguments.target.json {
        output::json(&report)?;
    } else {
        let absent = if report.absent > 0 { format!(", {} absent", report.absent) } else { String::new() };
        output::note(format_args!("deleted {}{absent}", output::count(report.deleted, "entry")));
    }
    Ok(if report.absent > 0 { Answer::No } else { Answer::Yes })
}
