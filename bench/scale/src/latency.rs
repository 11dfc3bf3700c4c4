//! Durations, counted by how long they were: to within a sixteenth, in memory that does not grow.

use std::time::{Duration, Instant};

/// Parts that each doubling is divided into.
const STEPS: usize = 16;

/// How often which duration was measured.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    counts: Vec<u64>,
    total: u64,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; 64 * STEPS], total: 0 }
    }

    /// Measures `work`.
    pub(crate) fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let result = work();
        self.add(begin.elapsed());
        result
    }

    fn add(&mut self, duration: Duration) {
        let nanoseconds = (duration.as_nanos() as u64).max(STEPS as u64);
        let doublings = nanoseconds.ilog2() as usize;
        let step = (nanoseconds >> (doublings - STEPS.ilog2() as usize)) as usize % STEPS;
        if let Some(count) = self.counts.get_mut(doublings * STEPS + step) {
            *count += 1;
            self.total += 1;
        }
    }

    /// What so many per cent stayed under, in microseconds; 0 of nothing.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        let rank = (self.total as f64 * percent / 100.0).ceil() as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && rank > 0 {
                let (doublings, step) = (at / STEPS, at % STEPS + 1);
                return (1u64 << doublings) as f64 * (1.0 + step as f64 / STEPS as f64) / 1000.0;
            }
        }
        0.0
    }

    pub(crate) fn median(&self) -> f64 {
        self.percentile(50.0)
    }

    pub(crate) fn p99(&self) -> f64 {
        self.percentile(99.0)
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_sixteenth() {
        let mut latencies = Latencies::new();
        for microseconds in 1..=1000 {
            latencies.add(Duration::from_micros(microseconds));
        }
        for percent in [1.0, 50.0, 99.0, 100.0] {
            let (found, expected) = (latencies.percentile(percent), percent * 10.0);
            assert!(found >= expected && found <= expected * 1.13, "{percent} %: {found} us");
        }
        assert_eq!(Latencies::new().p99(), 0.0);
    }
}
