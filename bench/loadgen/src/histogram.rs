//! Latencies in buckets that grow with what they hold, as an HDR histogram's do.
//!
//! A power of two is split into 64 buckets, so a percentile is at most 1/64 (1.6 %) above the true one, and recording is
//! an addition to an array. 64-bit nanoseconds need (64 - 6 + 1) * 64 = 3,776 buckets, 30 KiB.

use std::time::Duration;

const SPLIT_BITS: u32 = 6;
const SPLIT: u64 = 1 << SPLIT_BITS;
const BUCKETS: usize = ((64 - SPLIT_BITS + 1) as usize) << SPLIT_BITS;

/// A distribution of durations.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }

    /// Records `times` operations that took `latency` each.
    pub(crate) fn record(&mut self, latency: Duration, times: u64) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(ns)) {
            *count += times;
        }
        self.total += times;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }

    /// The latency that `fraction` of the operations did not exceed, in microseconds; zero when there were none.
    pub(crate) fn percentile_us(&self, fraction: f64) -> f64 {
        let rank = ((self.total as f64 * fraction).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return highest_in(index) as f64 / 1000.0;
            }
        }
        0.0
    }
}

/// Below 64 ns a bucket is one value; above, the six bits after the leading one choose it.
fn bucket(ns: u64) -> usize {
    if ns < SPLIT {
        return ns as usize;
    }
    let shift = ns.ilog2() - SPLIT_BITS;
    ((u64::from(shift + 1) << SPLIT_BITS) + (ns >> shift) - SPLIT) as usize
}

fn highest_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SPLIT {
        return bucket;
    }
    let shift = (bucket >> SPLIT_BITS) - 1;
    let lowest = (SPLIT + (bucket & (SPLIT - 1))) << shift;
    lowest + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_at_most_a_sixty_fourth_too_high() {
        for ns in [0, 1, 63, 64, 65, 127, 128, 1000, 12_345, 999_999, 123_456_789, u64::MAX / 3, u64::MAX] {
            let highest = highest_in(bucket(ns));
            assert!(highest >= ns && highest - ns <= ns / SPLIT, "{ns} ns became {highest} ns");
        }
    }

    #[test]
    fn buckets_follow_each_other() {
        for index in 0..BUCKETS - 1 {
            assert_eq!(bucket(highest_in(index)), index);
            assert_eq!(bucket(highest_in(index) + 1), index + 1);
        }
    }

    #[test]
    fn percentiles_of_a_merge_are_those_of_all() {
        let (mut one, mut other) = (Histogram::new(), Histogram::new());
        one.record(Duration::from_micros(10), 90);
        other.record(Duration::from_micros(1000), 10);
        one.merge(&other);
        assert!((10.0..10.2).contains(&one.percentile_us(0.90)));
        assert!((1000.0..1016.0).contains(&one.percentile_us(0.91)));
        assert_eq!(Histogram::new().percentile_us(0.5), 0.0);
    }
}
