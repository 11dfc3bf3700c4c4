//! Seeded randomness: the same seed gives the same trace on every machine.

use std::f64::consts::TAU;

/// A small, fast generator (splitmix64).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; zero when the limit is.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.next().checked_rem(limit as u64).unwrap_or(0) as usize
    }

    /// From 0 up to, not including, 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    /// Of the standard normal distribution.
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.fraction()).ln()).sqrt();
        radius * (TAU * self.fraction()).cos()
    }

    /// 1, 2, 3 .. with this mean.
    pub(crate) fn geometric(&mut self, mean: f64) -> usize {
        let stay = 1.0 - 1.0 / mean.max(1.0);
        let mut count = 1;
        while count < 64 && self.chance(stay) {
            count += 1;
        }
        count
    }
}

/// Numbers from 0, of which number `n` comes up in proportion to `1 / (n + 1)^exponent`.
#[derive(Debug)]
pub(crate) struct Zipf(Vec<f64>);

impl Zipf {
    pub(crate) fn new(count: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=count).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        Self(sums.collect())
    }

    pub(crate) fn draw(&self, random: &mut Random) -> usize {
        let at = random.fraction() * self.0.last().copied().unwrap_or(0.0);
        self.0.partition_point(|sum| *sum <= at).min(self.0.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_numbers_come_up_more_often_and_high_ones_do_come_up() {
        let (zipf, mut random) = (Zipf::new(100, 1.0), Random::new(7));
        let mut counts = [0u32; 100];
        for _ in 0..100_000 {
            counts[zipf.draw(&mut random)] += 1;
        }
        // The harmonic number of 100 is 5.19.
        assert!((18_000..21_000).contains(&counts[0]), "{}", counts[0]);
        assert!((8_800..10_500).contains(&counts[1]), "{}", counts[1]);
        assert!((100..300).contains(&counts[99]), "{}", counts[99]);
    }

    #[test]
    fn normal_and_geometric_have_their_means() {
        let mut random = Random::new(7);
        let mean = (0..100_000).map(|_| random.normal()).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02, "{mean}");
        let mean = (0..100_000).map(|_| random.geometric(4.0)).sum::<usize>() as f64 / 1e5;
        assert!((3.9..4.1).contains(&mean), "{mean}");
    }
}
