use std::time::{Duration, Instant};

use super::failures::{fail, full_store};
use super::{ALL, crash, empty_store};
use crate::media::{BROKEN, FULL, Lasting, READ_ONLY, STUCK};
use crate::setup::{Dice, seed};

const TELL_EVERY: Duration = Duration::from_secs(10);

/// What was done so far.
#[derive(Default)]
struct Done {
    rounds: u64,
    calls: usize,
    crashes: usize,
    failures: u64,
}

impl Done {
    /// Another seed, another workload: crashed at some of its calls, and on media that fail somewhere.
    fn round(&mut self, seed: u64) {
        const CRASHES: usize = 60;
        let mut dice = Dice::new(seed);
        let durability = ALL[dice.below(ALL.len())];
        let steps = 50 + dice.below(1000);
        let calls = crash(empty_store(seed), durability, seed, steps, CRASHES);
        let start = full_store(durability, seed);
        for failure in [BROKEN, FULL, READ_ONLY, STUCK] {
            for lasting in [Lasting::Once, Lasting::ForEver] {
                self.failures += u64::from(fail(&start, dice.below(400) as i64, failure, lasting, seed));
            }
        }
        self.rounds += 1;
        self.calls += calls;
        self.crashes += 2 * CRASHES.min(calls);
    }

    fn tell(&self, since: Instant) {
        println!(
            "{:4.0} s: {} rounds, {} crashes in runs of {} calls, {} failing media",
            since.elapsed().as_secs_f64(),
            self.rounds,
            self.crashes,
            self.calls,
            self.failures
        );
    }
}

#[test]
#[ignore = "takes as long as it is told to: make soak SECONDS=600"]
fn every_promise_is_kept_for_as_long_as_one_looks() {
    let seconds = std::env::var("PILOTLIGHT_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let (since, first) = (Instant::now(), seed());
    let (mut done, mut told) = (Done::default(), since);
    while since.elapsed() < Duration::from_secs(seconds.unwrap_or(10)) {
        // A panic names the seed of its round: PILOTLIGHT_TEST_SEED begins with that one.
        done.round(first + done.rounds);
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            done.tell(since);
        }
    }
    done.tell(since);
}
