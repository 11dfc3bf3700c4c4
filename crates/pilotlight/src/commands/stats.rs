//! `pilotlight stats`.

use std::collections::BTreeMap;

use pilotlight_server::report::{
    KindReport, LeasesReport, OriginReport, StatsReport, SweepReport, UsageReport,
};

use crate::access;
use crate::cli::Stats;
use crate::failure::Failure;
use crate::output::{self, Answer, Last};

pub(super) fn run(arguments: &Stats) -> Result<Answer, Failure> {
    let report = access::open(&arguments.target)?.stats()?;
    if arguments.target.json {
        output::json(&report)?;
    } else {
        let is_running = arguments.target.data_dir.is_none();
        output::data(page(&report, is_running).as_bytes())?;
    }
    Ok(Answer::Yes)
}

fn page(report: &StatsReport, is_running: bool) -> String {
    let mut text = format!("pilotlight {}, {}\n", report.version, report.stack);
    text += &if is_running {
        format!("counted since the start, {} ago\n\n", output::seconds(report.uptime_seconds as f64))
    } else {
        "a directory that no server has open: nothing is counted\n\n".to_owned()
    };
    text += &output::table(&kinds(report), Last::Number);
    text += "\n";
    text += &output::table(&usage(&report.usage), Last::Text);
    for (what, reasons) in [
        ("puts refused", &report.refused_puts),
        ("gets answered as a miss after a failure", &report.absorbed_gets),
    ] {
        if !reasons.is_empty() {
            text += &format!("\n{what}: {}\n", by_reason(reasons));
        }
    }
    if report.leases.granted > 0 {
        text += &format!("\ncompiled once for all: {}\n", leases(&report.leases));
    }
    if let Some(report) = &report.origin {
        text += &format!("\norigin: {}\n", origin(report));
    }
    let saved = output::saved(report.total.saved_seconds, report.stock_graphs_seconds);
    text += &format!("\ncompile time saved: {saved}\n");
    text
}

/// What the origin was asked for, what it did not do, and what it is still to get.
fn origin(origin: &OriginReport) -> String {
    let counted = |name: &str| origin.counts.get(name).copied().unwrap_or(0);
    let mut parts = vec![
        format!("{} hits of {}", counted("hits"), output::count(counted("gets"), "lookup")),
        format!("{} sent", output::count(counted("puts"), "put")),
    ];
    for (name, what) in [
        ("quarantined", "objects were damaged"),
        ("untrusted", "entries were not trusted"),
        ("dropped", "puts found the queue full"),
        ("vanished", "puts left the disk before they were sent"),
    ] {
        if counted(name) > 0 {
            parts.push(format!("{} {what}", counted(name)));
        }
    }
    if origin.queued > 0 {
        parts.push(format!(
            "{} wait, the oldest for {}",
            origin.queued,
            output::seconds(origin.oldest_seconds)
        ));
    }
    match (origin.is_reading_paused, origin.is_writing_paused) {
        (false, false) => {}
        (true, _) => parts.push("not asked just now, as it failed".to_owned()),
        (false, true) => parts.push("nothing sent just now, as that failed".to_owned()),
    }
    if !origin.errors.is_empty() {
        parts.push(format!("failed: {}", by_reason(&origin.errors)));
    }
    parts.join(", ")
}

/// Who compiled for others, and what became of those who waited.
fn leases(leases: &LeasesReport) -> String {
    let mut parts = vec![
        output::count(leases.granted, "lease"),
        format!(
            "{} waited {}",
            output::count(leases.followed, "lookup"),
            output::seconds(leases.waited_seconds)
        ),
    ];
    let lost = leases.gone + leases.expired;
    for (count, what) in [
        (leases.looked, "came to a hit"),
        (leases.timed_out, "waited in vain"),
        (leases.alone, "waited for what did not come"),
        (leases.given_up, "put nothing"),
        (lost, "took over from a leader that was lost"),
        (leases.open, "being compiled right now"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    if leases.saved_seconds > 0.0 {
        parts.push(format!("{} of compiling avoided", output::seconds(leases.saved_seconds)));
    }
    parts.join(", ")
}

/// Kinds that were never seen are left out; the total is always there.
fn kinds(report: &StatsReport) -> Vec<Vec<String>> {
    let head = ["kind", "hits", "misses", "hit rate", "puts", "exceptions", "served", "received", "saved"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let seen = report.kinds.iter().filter(|(_, kind)| **kind != KindReport::default());
    rows.extend(seen.map(|(name, kind)| row(name, kind)));
    rows.push(row("total", &report.total));
    rows
}

fn row(name: &str, kind: &KindReport) -> Vec<String> {
    let rate = kind.hit_rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.1} %", rate * 100.0));
    vec![
        name.to_owned(),
        kind.hits.to_string(),
        kind.misses.to_string(),
        rate,
        kind.puts.to_string(),
        kind.exceptions.to_string(),
        output::bytes(kind.bytes_served),
        output::bytes(kind.bytes_received),
        if kind.saved_seconds == 0.0 { "-".to_owned() } else { output::seconds(kind.saved_seconds) },
    ]
}

fn usage(usage: &UsageReport) -> Vec<Vec<String>> {
    // Of a nearly empty store the overhead is most of it, and a ratio would say nothing.
    let ratio = if usage.stored_bytes == 0 || usage.logical_bytes < usage.stored_bytes {
        String::new()
    } else {
        format!(" (ratio {:.1})", usage.logical_bytes as f64 / usage.stored_bytes as f64)
    };
    let bound = usage.bound_bytes.map_or_else(|| "none".to_owned(), output::bytes);
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("entries", usage.entries.to_string()),
        row("logical", output::bytes(usage.logical_bytes)),
        row("stored", output::bytes(usage.stored_bytes) + &ratio),
        row("bound", bound),
        row("evicted", usage.evicted.to_string()),
        row("expired", usage.expired.to_string()),
        row("quarantined", usage.quarantined.to_string()),
        row("deduplicated", usage.deduplicated.to_string()),
        row("shared", format!("{} fetches", usage.shared_fetches)),
        row("recompressed", recompressed(usage)),
    ];
    // Of interest while it runs, and where it found something.
    if usage.orphans > 0 || usage.sweep.as_ref().is_some_and(|sweep| sweep.looked_at > 0) {
        rows.push(row("swept", swept(usage)));
    }
    rows
}

fn swept(usage: &UsageReport) -> String {
    let removed = format!("{} removed that a crash left", output::count(usage.orphans, "file"));
    match &usage.sweep {
        None => removed,
        Some(SweepReport { looked_at, files }) => {
            format!("{looked_at} of some {} looked at, {removed}", output::count(*files, "file"))
        }
    }
}

fn recompressed(usage: &UsageReport) -> String {
    let UsageReport { recompressed, recompressed_bytes, deltas, .. } = *usage;
    format!("{recompressed}, {} saved, {} against a sibling", output::bytes(recompressed_bytes), deltas)
}

fn by_reason(reasons: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_is_told_of_while_it_is_looked_for_and_where_it_was_found() {
        let last = |orphans, sweep| {
            let report = UsageReport { orphans, sweep, ..UsageReport::default() };
            usage(&report).pop().map(|row| row.join(": "))
        };
        let sweep = |looked_at| Some(SweepReport { looked_at, files: 9000 });
        for nothing_to_tell in [last(0, None), last(0, sweep(0))] {
            assert_eq!(nothing_to_tell.as_deref(), Some("recompressed: 0, 0 B saved, 0 against a sibling"));
        }
        let running = last(1, sweep(1000));
        let told = "swept: 1000 of some 9000 files looked at, 1 file removed that a crash left";
        assert_eq!(running.as_deref(), Some(told));
        assert_eq!(last(3, None).as_deref(), Some("swept: 3 files removed that a crash left"));
    }
}
