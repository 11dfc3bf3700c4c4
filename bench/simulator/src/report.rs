//! The outcome, for people and for programs.

use std::fmt::Write as _;

use crate::policies::Policy;
use crate::run::{Run, SIZES_PERCENT, behind_by, run};
use crate::trace::Trace;

/// A table of what is saved, and one of hits.
pub(crate) fn table(trace: &Trace, runs: &[Run]) -> String {
    let endless = run(trace, Policy::Lru, u64::MAX);
    let mut text = format!(
        "{}: {} entries, {:.1} GiB, {} gets of {:.0} h of compiling; a cache without bound saves {:.1} % of it and hits {:.1} %\n",
        trace.name,
        trace.items.len(),
        trace.working_set_bytes() as f64 / f64::from(1 << 30),
        endless.gets,
        endless.asked_ms as f64 / 3.6e6,
        endless.saved_percent(),
        endless.hit_percent(),
    );
    for (title, value) in [
        ("% of compile seconds saved", (|run| run.outcome.saved_percent()) as fn(&Run) -> f64),
        ("% of gets that hit", |run| run.outcome.hit_percent()),
    ] {
        // The smallest caches may be too small for some.
        let largest = runs.iter().filter(|run| Some(run.size_percent) == SIZES_PERCENT.last().copied());
        let names: String = largest.map(|run| format!("{:>9}", run.name)).collect();
        let _ = writeln!(text, "  {title:<27}{names}");
        for size_percent in SIZES_PERCENT {
            let _ = write!(text, "  {:>27}", format!("cache of {size_percent} %"));
            for run in runs.iter().filter(|run| run.size_percent == size_percent) {
                let _ = write!(text, "{:>9.1}", value(run));
            }
            text.push('\n');
        }
    }
    let behind = behind_by(runs);
    let word = if behind > 0.0 { "behind" } else { "ahead of" };
    let _ = writeln!(
        text,
        "  ours is at worst {:.1} points {word} the best other in seconds saved",
        behind.abs()
    );
    text
}

/// One array of flat objects. Written by hand: names are ours and need no escapes, but for the trace's.
pub(crate) fn json(traces: &[(Trace, Vec<Run>)]) -> String {
    let mut rows = Vec::new();
    for (trace, runs) in traces {
        let name: String = trace.name.escape_default().collect();
        for run in runs {
            rows.push(format!(
                "{{\"trace\": \"{name}\", \"cache_percent\": {}, \"policy\": \"{}\", \"saved_percent\": {:.3}, \
                 \"hit_percent\": {:.3}, \"saved_ms\": {}, \"asked_ms\": {}, \"hits\": {}, \"gets\": {}}}",
                run.size_percent,
                run.name,
                run.outcome.saved_percent(),
                run.outcome.hit_percent(),
                run.outcome.saved_ms,
                run.outcome.asked_ms,
                run.outcome.hits,
                run.outcome.gets,
            ));
        }
    }
    format!("[{}]", rows.join(",\n "))
}
