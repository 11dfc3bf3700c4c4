//! Runs a trace through a policy.

use crate::policies::Policy;
use crate::trace::{Operation, Trace};

/// Cache sizes, in percent of the working set.
pub(crate) const SIZES_PERCENT: [u64; 5] = [1, 5, 10, 25, 50];

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
    pub(crate) policy: Policy,
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
            runs.push(Run { policy, size_percent, outcome });
        }
    }
    runs
}

pub(crate) fn run(trace: &Trace, policy: Policy, capacity_bytes: u64) -> Outcome {
    let mut cache = policy.cache(&trace.items, capacity_bytes);
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
    let saved = |size_percent: u64, is_wanted: fn(Policy) -> bool| {
        let wanted = runs.iter().filter(|run| run.size_percent == size_percent && is_wanted(run.policy));
        wanted.map(|run| run.outcome.saved_percent()).fold(0.0, f64::max)
    };
    SIZES_PERCENT
        .map(|size| {
            saved(size, |policy| policy != Policy::Ours) - saved(size, |policy| policy == Policy::Ours)
        })
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
