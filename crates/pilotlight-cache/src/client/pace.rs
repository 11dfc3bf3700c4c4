//! How long an operation may wait: a clock that runs out unless bytes push it on.
//!
//! Were the wait for each byte alone bounded, a server that drips one byte before each wait ends could hold an operation up to
//! its total limit, again and again. So a byte does not begin the wait anew: it buys the time that it would take at
//! [`RATE_MIN`], and time bought early is kept only as far as the limit of one wait.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// What a cache must do to be waited for, in bytes a second: a quarter of what a slow but honest link does. At less than this a
/// kernel of 100 KB takes half as long to fetch as to compile.
const RATE_MIN: u64 = 256 << 10;

/// The limits of one operation, and how far it came.
#[derive(Debug)]
pub(super) struct Deadline {
    connect: Duration,
    stall: Duration,
    total: Duration,
    /// What waits without a byte may take together.
    patience: Duration,
    began: Instant,
    clocks: Clocks,
}

/// In microseconds since the operation began. Atomic only because connections are shared; one thread moves them.
#[derive(Debug)]
struct Clocks {
    /// When the wait for the next byte ends.
    stall: AtomicU64,
    /// When the patience for the whole operation ends.
    patience: AtomicU64,
    /// What the bytes so far would have taken at the least rate.
    earned: AtomicU64,
}

impl Deadline {
    /// `connect` and `stall` bound one wait each, `total` the operation, and `patience` what it may wait for nothing.
    pub(super) fn new(connect: Duration, stall: Duration, total: Duration, patience: Duration) -> Self {
        let stall = stall.min(patience);
        let clocks = Clocks {
            stall: AtomicU64::new(us(stall)),
            patience: AtomicU64::new(us(patience)),
            earned: AtomicU64::new(0),
        };
        Self { connect: connect.min(patience), stall, total, patience, began: Instant::now(), clocks }
    }

    /// How long a wait for the next byte may take from now on.
    pub(super) fn wait(&self) -> Result<Duration> {
        let until = self.clocks.stall.load(Relaxed).min(self.clocks.patience.load(Relaxed));
        self.at_most(Duration::from_micros(until).saturating_sub(self.began.elapsed()), self.stall)
    }

    /// How long a connection may take to make from now on.
    pub(super) fn connect_wait(&self) -> Result<Duration> {
        let until = Duration::from_micros(self.clocks.patience.load(Relaxed));
        self.at_most(until.saturating_sub(self.began.elapsed()).min(self.connect), self.patience)
    }

    /// Fails when the operation has taken too long already.
    pub(super) fn in_time(&self) -> Result<()> {
        self.at_most(self.total, self.total).map(drop)
    }

    /// A connection stands, and its first byte may take as long as any.
    pub(super) fn connected(&self) {
        self.clocks.stall.store(us(self.began.elapsed() + self.stall), Relaxed);
    }

    /// So many bytes came or went.
    pub(super) fn moved(&self, len: usize) {
        let earned = (len as u64).saturating_mul(1_000_000) / RATE_MIN;
        self.clocks.earned.fetch_add(earned, Relaxed);
        let now = us(self.began.elapsed());
        for (clock, limit) in [(&self.clocks.stall, self.stall), (&self.clocks.patience, self.patience)] {
            clock.store(
                clock.load(Relaxed).saturating_add(earned).min(now.saturating_add(us(limit))),
                Relaxed,
            );
        }
    }

    /// What the operation took so far beyond half a wait and what its bytes may take: what a slow cache costs although it
    /// answers.
    pub(super) fn excess(&self) -> Duration {
        let fair = self.stall / 2 + Duration::from_micros(self.clocks.earned.load(Relaxed));
        self.began.elapsed().saturating_sub(fair)
    }

    /// What is said of a wait that was too long.
    pub(super) fn stalled(&self) -> Error {
        match self.in_time() {
            Ok(()) => Error::Timeout { what: "waiting for the next bytes", after: self.stall },
            Err(error) => error,
        }
    }

    pub(super) fn not_connected(&self) -> Error {
        Error::Timeout { what: "connecting", after: self.connect }
    }

    /// `wait`, or less if the operation ends before; `after` is what the error says when there is none left.
    fn at_most(&self, wait: Duration, after: Duration) -> Result<Duration> {
        const LEAST: Duration = Duration::from_millis(1);
        let left = self.total.saturating_sub(self.began.elapsed());
        // The system takes no timeout of zero, and rounds one below a millisecond.
        if left < LEAST {
            return Err(Error::Timeout { what: "an operation", after: self.total });
        }
        if wait < LEAST {
            return Err(Error::Timeout { what: "waiting for the next bytes", after });
        }
        Ok(left.min(wait))
    }
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(60);
    const PATIENCE: Duration = Duration::from_secs(90);

    fn fresh() -> Deadline {
        Deadline::new(STALL, STALL, STALL * 10, PATIENCE)
    }

    /// As if the operation had begun so long ago.
    fn pass(deadline: &mut Deadline, time: Duration) {
        deadline.began = deadline.began.checked_sub(time).unwrap();
    }

    #[test]
    fn a_drip_does_not_begin_the_wait_anew() {
        let mut deadline = fresh();
        for _ in 0..59 {
            pass(&mut deadline, Duration::from_secs(1));
            deadline.moved(1);
        }
        assert!(deadline.wait().unwrap() < Duration::from_secs(2));
        pass(&mut deadline, Duration::from_secs(2));
        assert!(deadline.wait().is_err());
    }

    #[test]
    fn an_honest_rate_runs_up_to_the_total_and_its_next_stall_may_be_a_whole_one() {
        let mut deadline = fresh();
        for _ in 0..599 {
            pass(&mut deadline, Duration::from_secs(1));
            deadline.moved(1_000_000);
            assert!(deadline.wait().is_ok());
        }
        assert_eq!(deadline.excess(), Duration::ZERO);
        pass(&mut deadline, Duration::from_secs(1));
        assert!(deadline.wait().is_err());
        assert!(deadline.in_time().is_err());
    }

    #[test]
    fn a_burst_buys_no_more_than_one_wait() {
        let mut deadline = fresh();
        deadline.moved(1 << 30);
        assert!(deadline.wait().unwrap() <= STALL);
        pass(&mut deadline, STALL + Duration::from_secs(1));
        assert!(deadline.wait().is_err());
    }

    #[test]
    fn all_waits_for_nothing_together_are_within_the_patience() {
        let mut deadline = fresh();
        pass(&mut deadline, Duration::from_secs(50));
        assert!(deadline.connect_wait().unwrap() <= Duration::from_secs(40));
        deadline.connected();
        assert!(deadline.wait().unwrap() <= Duration::from_secs(40));
        pass(&mut deadline, Duration::from_secs(41));
        assert!(deadline.wait().is_err());
        assert!(deadline.connect_wait().is_err());
        assert!(deadline.in_time().is_ok());
    }

    #[test]
    fn an_answer_is_slow_beyond_half_a_wait() {
        let mut deadline = fresh();
        pass(&mut deadline, STALL / 2);
        deadline.moved(RATE_MIN as usize * 5);
        pass(&mut deadline, Duration::from_secs(4));
        assert_eq!(deadline.excess(), Duration::ZERO);
        pass(&mut deadline, Duration::from_secs(3));
        assert!(deadline.excess() >= Duration::from_secs(2));
    }
}
