//! Runs a trace through a policy.

use std::fs;
use std::path::Path;

use crate::policies::{Cache, OnDisk, Policy};
use crate::trace::{Operation, Trace};

/// Cache sizes, in percent of the working set.
pub(crate) const SIZES_PERCENT: [u64; 5] = [1, 5, 10, 25, 50];

/// The store itself, among the policies.
pub(crate) const STORE: &str = "store";

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) gets: u64,
    pub(crate) hits: u64,
    /// What everything that was asked for costs to make.
    pub(crate) asked_ms: u64,
    /// What was hit costs to make.
    pub(crate) saved_ms: u64,
}

impl Outcome {
    pub(crate) fn saved_percent(&self) -> f64 {
        percent(self.saved_ms, self.asked_ms)
    }

    pub(crate) fn hit_percent(&self) -> f64 {
        percent(self.hits, self.gets)
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// A cache of a size under a policy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// The policy's name, or [`STORE`].
    pub(crate) name: &'static str,
    pub(crate) size_percent: u64,
    pub(crate) outcome: Outcome,
}

/// Every policy at every size.
pub(crate) fn run_all(trace: &Trace) -> Vec<Run> {
    let mut runs = Vec::new();
    for size_percent in SIZES_PERCENT {
        let capacity_bytes = trace.working_set_bytes() * size_percent / 100;
        for policy in Policy::ALL {
            let outcome = run(trace, policy, capacity_bytes);
            runs.push(Run { name: policy.name(), size_percent, outcome });
        }
    }
    runs
}

/// The store at every size that one can have, in directories below `dir`, which are removed again.
pub(crate) fn run_store(trace: &Trace, dir: &Path) -> Result<Vec<Run>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
    let mut runs = Vec::new();
    for size_percent in SIZES_PERCENT {
        let capacity_bytes = trace.working_set_bytes() * size_percent / 100;
        if !OnDisk::can_hold(capacity_bytes) {
            continue;
        }
        let dir = dir.join(format!("{}-{size_percent}", trace.name));
        // The store makes the last of them: it must be its own.
        fs::create_dir_all(dir.parent().unwrap_or(&dir)).map_err(failed)?;
        let mut cache = OnDisk::new(&trace.items, capacity_bytes, &dir)?;
        let outcome = run_in(trace, &mut cache);
        drop(cache);
        fs::remove_dir_all(&dir).map_err(failed)?;
        runs.push(Run { name: STORE, size_percent, outcome });
    }
    Ok(runs)
}

pub(crate) fn run(trace: &Trace, policy: Policy, capacity_bytes: u64) -> Outcome {
    run_in(trace, &mut *policy.cache(&trace.items, capacity_bytes))
}

fn run_in(trace: &Trace, cache: &mut dyn Cache) -> Outcome {
    let mut outcome = Outcome::default();
    for event in &trace.events {
        let Some(item) = trace.items.get(event.item as usize) else { continue };
        match event.operation {
            Operation::Get => {
                let cost_ms = u64::from(item.cost_ms_taken());
                outcome.gets += 1;
                outcome.asked_ms += cost_ms;
                if cache.get(event.item, event.time_ms) {
                    outcome.hits += 1;
                    outcome.saved_ms += cost_ms;
                } else {
                    cache.put(event.item, event.time_ms);
                }
            }
            Operation::Put => {
                // To put what is there is a use of it.
                if !cache.get(event.item, event.time_ms) {
                    cache.put(event.item, event.time_ms);
                }
            }
            Operation::Delete => cache.delete(event.item),
        }
    }
    outcome
}

/// How far ours is behind the best of the others in what is saved, in points, where it is furthest; negative where it is
/// ahead everywhere.
pub(crate) fn behind_by(runs: &[Run]) -> f64 {
    let ours = Policy::Ours.name();
    let saved = |size_percent: u64, is_wanted: &dyn Fn(&str) -> bool| {
        let wanted = runs.iter().filter(|run| run.size_percent == size_percent && is_wanted(run.name));
        wanted.map(|run| run.outcome.saved_percent()).fold(0.0, f64::max)
    };
    SIZES_PERCENT
        .map(|size| saved(size, &|name| name != ours && name != STORE) - saved(size, &|name| name == ours))
        .into_iter()
        .fold(f64::NEG_INFINITY, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Event, Item};
    use crate::workloads::{self, Workload};

    #[test]
    fn ours_is_first_or_within_a_point_of_first_on_every_trace() {
        for workload in Workload::ALL {
            // A tenth: a debug build is slow. `make bench-eviction ARGS=--check` is the whole.
            let trace = workloads::generate(workload, 1, 0.1);
            let behind = behind_by(&run_all(&trace));
            assert!(behind <= 1.0, "{}: {behind} points behind", workload.name());
        }
    }

    #[test]
    fn what_is_hit_is_saved_and_what_is_missed_is_kept() {
        let item = |key, cost_ms| Item { key, size_bytes: 10, cost_ms, group: 0 };
        let event = |operation, item| Event { time_ms: 0, operation, item };
        use Operation::{Delete, Get, Put};
        let trace = Trace {
            name: "t".to_owned(),
            items: vec![item(1, 7), item(2, 0)],
            events: vec![
                event(Get, 0),
                event(Get, 0),
                event(Put, 1),
                event(Get, 1),
                event(Delete, 0),
                event(Get, 0),
            ],
        };
        for policy in Policy::ALL {
            let outcome = run(&trace, policy, 100);
            // An entry of unknown cost counts as a small compile.
            let expected = Outcome { gets: 4, hits: 2, asked_ms: 521, saved_ms: 507 };
            assert_eq!(outcome, expected, "{}", policy.name());
        }
    }
}
