//! How long a follower waits: decisions without a clock or a socket.

use std::time::Duration;

/// What one question waits for; then it is asked anew, so that a server that is gone is noticed.
const WAIT: Duration = Duration::from_millis(500);
/// A compile may take so many times what it usually takes, and this at least, before nobody waits for it any longer.
const OVERDUE_FACTOR: u32 = 4;
const OVERDUE_MIN: Duration = Duration::from_secs(30);

/// One follower's. Every `elapsed` is since it first asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Patience {
    limit: Duration,
    has_waited: bool,
}

/// What one may not wait for any longer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Compiles, as nobody answers.
    Alone,
    /// Compiles, though another does.
    TimedOut,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, has_waited: false }
    }

    /// How long the next question may wait, and whether one has waited before.
    pub(super) fn question(&self, elapsed: Duration) -> (Duration, bool) {
        (WAIT.min(self.limit.saturating_sub(elapsed)), self.has_waited)
    }

    /// Another has compiled it for `age`, and such a compile takes as long as `expected`. Nothing: ask again.
    pub(super) fn after_wait(
        &mut self,
        elapsed: Duration,
        age: Duration,
        expected: Option<Duration>,
    ) -> Option<End> {
        self.has_waited = true;
        (elapsed >= self.limit || is_overdue(age, expected)).then_some(End::TimedOut)
    }

    /// Nobody answered; `sits_out` waits a little, if that was not done too often. Nothing: ask again.
    pub(super) fn after_failure(&self, elapsed: Duration, sits_out: impl FnOnce() -> bool) -> Option<End> {
        // Whoever has not waited yet has nothing to wait for.
        let goes_on = self.has_waited && elapsed < self.limit && sits_out();
        (!goes_on).then_some(End::Alone)
    }
}

/// Whether a compile has taken so long that it is not to be waited for, though its leader lives: it may hang.
fn is_overdue(age: Duration, expected: Option<Duration>) -> bool {
    expected.is_some_and(|expected| age > OVERDUE_MIN.max(expected * OVERDUE_FACTOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compile_is_overdue_when_it_takes_four_times_what_it_does_and_half_a_minute() {
        let seconds = Duration::from_secs;
        assert!(!is_overdue(seconds(1000), None));
        assert!(!is_overdue(seconds(30), Some(seconds(1))));
        assert!(is_overdue(seconds(31), Some(seconds(1))));
        assert!(!is_overdue(seconds(80), Some(seconds(20))));
        assert!(is_overdue(seconds(81), Some(seconds(20))));
    }
}
