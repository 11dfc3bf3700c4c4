//! Who starts what, and when.

use super::Workload;
use super::models::{Artifacts, Model};
use crate::random::{Random, Zipf};
use crate::trace::{Event, Operation, Trace};

/// Models in use at a time, and starts in a trace; times the scale.
const MODELS: f64 = 600.0;
const STARTS: f64 = 12_000.0;
/// How much more popular models start more often. Between the 0.7 of web pages and the 1.0 of words.
const EXPONENT: f64 = 0.9;
/// Time from start to start.
const START_MS: u64 = 60_000;
/// From one ask of a process to its next, and from one process of a job to the next.
const ASK_MS: u64 = 5;
/// One start in so many days of a trace.
const DAYS: usize = 24;
/// Deploys, and scans, of all models in a trace.
const DEPLOYS: usize = 6;
const SCANS: usize = 12;
/// Models in a scan, and programs in a night, for each model in use.
const SCAN_SHARE: f64 = 0.25;
const NIGHT_SHARE: f64 = 1.0;
/// Starts that are still of the version before.
const OLD_STARTS: f64 = 0.05;
/// Programs that are run again at once, since they failed.
const RETRIES: f64 = 0.1;
/// Models that change places with another in popularity, for each start of a fleet.
const DRIFT: f64 = 0.05;

struct Fleet {
    artifacts: Artifacts,
    random: Random,
    popularity: Zipf,
    /// Versions by model, the newest last; models by popularity.
    models: Vec<Vec<Model>>,
    events: Vec<Event>,
    now_ms: u64,
}

/// The trace of a workload; at a scale of 1 some 200,000 to 800,000 gets.
pub(crate) fn generate(workload: Workload, seed: u64, scale: f64) -> Trace {
    let mut fleet = Fleet::new(seed, scale);
    let starts = (STARTS * scale) as usize;
    let is = |wanted: Workload| workload == wanted || workload == Workload::Fleet;
    for start in 1..=starts {
        fleet.start_some(if workload == Workload::Fleet { Processes::Many } else { Processes::One });
        let every = |times: usize| start % (starts / times).max(1) == 0;
        if is(Workload::Scans) && every(SCANS) {
            fleet.scan();
        }
        if is(Workload::Nightly) && every(DAYS) {
            fleet.night();
        }
        if workload == Workload::Deploys && every(DEPLOYS) {
            (0..fleet.models.len()).for_each(|model| fleet.deploy(model));
        }
        if workload == Workload::Fleet {
            fleet.drift();
            // Each model at its own time, and as often in all.
            let models = fleet.models.len();
            if fleet.random.chance((models * DEPLOYS) as f64 / starts as f64) {
                let model = fleet.random.below(models);
                fleet.deploy(model);
            }
        }
    }
    Trace { name: workload.name().to_owned(), items: fleet.artifacts.items, events: fleet.events }
}

/// Of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Processes {
    One,
    Many,
}

impl Fleet {
    fn new(seed: u64, scale: f64) -> Self {
        let count = (MODELS * scale).max(1.0) as usize;
        let mut artifacts = Artifacts::new(seed);
        let models = (0..count).map(|_| vec![artifacts.model()]).collect();
        let random = Random::new(seed ^ 0x5eed);
        Self {
            artifacts,
            random,
            popularity: Zipf::new(count, EXPONENT),
            models,
            events: Vec::new(),
            now_ms: 0,
        }
    }

    fn start_some(&mut self, processes: Processes) {
        let Some(versions) = self.models.get(self.popularity.draw(&mut self.random)) else { return };
        let is_old = versions.len() > 1 && self.random.chance(OLD_STARTS);
        let version = versions.len() - 1 - usize::from(is_old);
        let Some(model) = versions.get(version).cloned() else { return };
        let count = match processes {
            Processes::One => 1,
            Processes::Many => [1, 1, 1, 2, 4, 8].get(self.random.below(6)).copied().unwrap_or(1),
        };
        self.run(&model, count);
        self.now_ms += START_MS;
    }

    /// Processes of one job ask for the same, each a moment after the one before.
    fn run(&mut self, model: &Model, processes: usize) {
        let asked = model.start(&mut self.random);
        for _ in 0..processes {
            for item in &asked {
                self.events.push(Event { time_ms: self.now_ms, operation: Operation::Get, item: *item });
                self.now_ms += ASK_MS;
            }
        }
    }

    fn scan(&mut self) {
        for _ in 0..(self.models.len() as f64 * SCAN_SHARE) as usize {
            let model = self.artifacts.model();
            self.run(&model, 1);
        }
    }

    fn night(&mut self) {
        for _ in 0..(self.models.len() as f64 * NIGHT_SHARE) as usize {
            let program = self.artifacts.small_model();
            let runs = if self.random.chance(RETRIES) { 2 } else { 1 };
            self.run(&program, runs);
        }
    }

    fn deploy(&mut self, model: usize) {
        if let Some(versions) = self.models.get_mut(model)
            && let Some(newest) = versions.last()
        {
            let next = self.artifacts.next_version(newest);
            versions.push(next);
        }
    }

    fn drift(&mut self) {
        if self.random.chance(DRIFT * self.models.len() as f64 / 100.0) {
            let (one, other) = (self.random.below(self.models.len()), self.random.below(self.models.len()));
            self.models.swap(one, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_trace_and_another_one_another() {
        for workload in Workload::ALL {
            let trace = generate(workload, 1, 0.02);
            assert_eq!(trace, generate(workload, 1, 0.02));
            assert_ne!(trace, generate(workload, 2, 0.02));
            assert!(trace.events.is_sorted_by_key(|event| event.time_ms));
        }
    }

    #[test]
    fn sizes_are_like_the_corpus_and_costs_follow_them_weakly() {
        let items = generate(Workload::Zipf, 1, 1.0).items;
        let mut sizes: Vec<u32> = items.iter().map(|item| item.size_bytes).collect();
        sizes.sort_unstable();
        let median = sizes[sizes.len() / 2];
        assert!((18_000..40_000).contains(&median), "{median}");
        let logs: Vec<(f64, f64)> = items
            .iter()
            .map(|item| (f64::from(item.size_bytes).ln(), f64::from(item.cost_ms).ln()))
            .collect();
        let mean = |of: &dyn Fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / logs.len() as f64;
        let (size, cost) = (mean(&|log| log.0), mean(&|log| log.1));
        let covariance = mean(&|log| (log.0 - size) * (log.1 - cost));
        let deviations =
            mean(&|log| (log.0 - size).powi(2)).sqrt() * mean(&|log| (log.1 - cost).powi(2)).sqrt();
        // Over all kinds: kernels are small and cheap. Within a kind it is 0.3.
        assert!((0.3..0.7).contains(&(covariance / deviations)), "{}", covariance / deviations);
    }
}
