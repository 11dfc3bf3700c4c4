//! Stops asking who fails: for a pause that doubles, and ends with one probe that goes well.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open it. One may be bad luck, and each costs its caller the budget.
const FAILURES_MAX: u32 = 3;
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Closed while operations go well; open, and then half open, after some that did not.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// When the next probe may go; there is one while it is open.
    probe_at: Option<Instant>,
}

impl Breaker {
    /// When the next probe may go, if nothing else may.
    pub(super) fn open_until(&self) -> Option<Instant> {
        self.probe_at
    }

    /// How often it failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// An operation, or a probe, went well.
    pub(super) fn succeed(&mut self) {
        *self = Self::default();
    }

    /// An operation failed. Those that were under way when it opened say nothing new.
    pub(super) fn fail(&mut self, now: Instant, random: u64) {
        if self.probe_at.is_none() {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= FAILURES_MAX {
                self.pause(now, random);
            }
        }
    }

    /// A probe failed.
    pub(super) fn fail_probe(&mut self, now: Instant, random: u64) {
        self.failures = self.failures.saturating_add(1);
        self.pause(now, random);
    }

    fn pause(&mut self, now: Instant, random: u64) {
        let doublings = self.failures.saturating_sub(FAILURES_MAX).min(16);
        let pause = PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX);
        self.probe_at = Some(now + jittered(pause, random));
    }
}

/// From half of `pause` to all of it: nodes that failed together must not come back together.
pub(super) fn jittered(pause: Duration, random: u64) -> Duration {
    pause / 2 + pause.mul_f64((random % 1024) as f64 / 2048.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_three_failures_in_a_row_and_closes_after_a_probe() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..2 {
            breaker.fail(now, 0);
        }
        breaker.succeed();
        for _ in 0..2 {
            breaker.fail(now, 0);
        }
        assert_eq!(breaker.open_until(), None, "four failures, and not in a row");
        breaker.fail(now, 0);
        assert_eq!(breaker.open_until(), Some(now + PAUSE_MIN / 2));
        breaker.succeed();
        assert_eq!((breaker.open_until(), breaker.failures()), (None, 0));
    }

    #[test]
    fn pauses_double_with_failed_probes_up_to_a_bound_and_late_failures_do_not_count() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.fail(now, 1023);
        }
        assert_eq!(breaker.failures(), FAILURES_MAX);
        let mut last = Duration::ZERO;
        for _ in 0..40 {
            breaker.fail_probe(now, 1023);
            let pause = breaker.open_until().unwrap() - now;
            assert!(pause >= last && pause <= PAUSE_MAX);
            last = pause;
        }
        assert!(last > PAUSE_MAX * 9 / 10);
    }
}
