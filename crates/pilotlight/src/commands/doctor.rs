//! `pilotlight doctor`.

use pilotlight_server::report::{FindingReport, MendedReport};
use serde::Serialize;

use super::signatures;
use crate::access;
use crate::cli::Doctor;
use crate::failure::Failure;
use crate::output::{self, Answer};
use crate::progress::Progress;
use crate::serve;

#[derive(Serialize)]
struct Report {
    is_healthy: bool,
    /// After the repair, if there was one.
    findings: Vec<FindingReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mended: Option<MendedReport>,
}

pub(super) fn run(arguments: &Doctor) -> Result<Answer, Failure> {
    let mended = if arguments.repair {
        let mut progress = Progress::of("entries checked");
        let mended = access::mend(&arguments.target, &mut |report| {
            progress.at(report.entries_checked, report.entries_total);
        });
        drop(progress);
        Some(mended?)
    } else {
        None
    };
    let mut findings = of_configuration();
    findings.extend(access::examine(&arguments.target)?);
    findings.extend(signatures::examine(&arguments.target));
    let is_healthy = findings.iter().all(|finding| !finding.is_problem);
    let report = Report { is_healthy, findings, mended };
    if arguments.target.json {
        output::json(&report)?;
    } else {
        output::data(page(&report).as_bytes())?;
    }
    Ok(if is_healthy { Answer::Yes } else { Answer::No })
}

/// What `serve` would say to the configuration that it would find here.
fn of_configuration() -> Vec<FindingReport> {
    let Err(failure) = serve::check_configuration() else { return Vec::new() };
    let text = failure.to_string();
    let mut lines = text.lines().filter(|line| !line.is_empty());
    let finding = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let hint =
        lines.find_map(|line| line.strip_prefix("hint: ")).unwrap_or("see `pilotlight config --reference`");
    vec![FindingReport::problem("configuration", finding, hint)]
}

fn page(report: &Report) -> String {
    let mut text = String::new();
    if let Some(mended) = &report.mended {
        text += &mended_lines(mended);
    }
    for finding in &report.findings {
        let lead = if finding.is_problem { "problem" } else { "note" };
        text += &format!("{lead}: {}: {}\n", finding.subject, finding.finding);
        if let Some(hint) = &finding.hint {
            text += &format!("  hint: {hint}\n");
        }
    }
    let problems = report.findings.iter().filter(|finding| finding.is_problem);
    text += &match (problems.clone().count(), problems.filter(|finding| finding.is_mendable).count()) {
        (0, _) => "nothing is wrong; `pilotlight verify` checks every entry as well\n".to_owned(),
        (count, 0) => format!("{}\n", output::count(count as u64, "problem")),
        (count, mendable) => {
            format!("{}; `--repair` mends {mendable}\n", output::count(count as u64, "problem"))
        }
    };
    text
}

fn mended_lines(mended: &MendedReport) -> String {
    let MendedReport { rebuilt, set_aside, orphans, segments, are_permissions_mended } = mended;
    let mut text = String::new();
    for (count, what) in [(*rebuilt, "rebuilt from payload files"), (*set_aside, "damaged, and set aside")] {
        if count > 0 {
            text += &format!("mended: {} {what}\n", output::count(count, "entry"));
        }
    }
    if *orphans > 0 {
        text += &format!("mended: {} removed that no entry held\n", output::count(*orphans, "file"));
    }
    if *segments > 0 {
        text += &format!("mended: {} of the log written anew\n", output::count(*segments, "segment"));
    }
    if *are_permissions_mended {
        text += "mended: only its owner may write the directory now\n";
    }
    text
}
