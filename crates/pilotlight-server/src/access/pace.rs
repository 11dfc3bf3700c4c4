//! How often a user may ask.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What may be asked for at once, after a while in which nothing was: what the rate allows in this time.
const BURST: Duration = Duration::from_secs(1);
/// Longest that a request waits for its turn; well below what stock clients wait for an answer.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A number of requests in a time.
#[derive(Debug)]
pub(crate) struct Rate {
    requests: u64,
    per: Per,
    began: Instant,
    /// Until when what was asked for takes at this rate, in nanoseconds since `began`.
    until_ns: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Per {
    Second,
    Minute,
}

/// When a request may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Now,
    After(Duration),
    /// Not within the time that one may wait.
    TooFast,
}

impl Rate {
    /// Reads `200/s` or `6000/min`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (requests, per) = text.split_once('/')?;
        let per = match per.trim() {
            "s" => Per::Second,
            "min" | "m" => Per::Minute,
            _ => return None,
        };
        let requests =
            requests.trim().parse().ok().filter(|requests| (1..=1_000_000_000).contains(requests))?;
        Some(Self { requests, per, began: Instant::now(), until_ns: AtomicU64::new(0) })
    }

    /// When one more request may run. What is too fast takes no turn.
    pub(crate) fn ask(&self, now: Instant) -> Pace {
        let now_ns = nanos(now.saturating_duration_since(self.began));
        let each_ns = self.each_ns();
        let (burst_ns, wait_ns) = (nanos(BURST).max(each_ns), nanos(WAIT_MAX));
        let mut wait = 0;
        let taken = self.until_ns.fetch_update(Relaxed, Relaxed, |until_ns| {
            let until_ns = until_ns.max(now_ns).saturating_add(each_ns);
            wait = until_ns.saturating_sub(now_ns.saturating_add(burst_ns));
            (wait <= wait_ns).then_some(until_ns)
        });
        match (taken, wait) {
            (Err(_), _) => Pace::TooFast,
            (Ok(_), 0) => Pace::Now,
            (Ok(_), wait) => Pace::After(Duration::from_nanos(wait)),
        }
    }

    /// Takes over what was asked for of `before`.
    pub(super) fn succeed(&self, before: &Self) {
        let owed_ns = before.until_ns.load(Relaxed).saturating_sub(nanos(before.began.elapsed()));
        // At the new rate: so many requests as were owed.
        let owed = owed_ns / before.each_ns().max(1);
        self.until_ns
            .store(nanos(self.began.elapsed()).saturating_add(owed.saturating_mul(self.each_ns())), Relaxed);
    }

    fn each_ns(&self) -> u64 {
        let per_ns = match self.per {
            Per::Second => 1_000_000_000,
            Per::Minute => 60_000_000_000,
        };
        per_ns / self.requests.max(1)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per {
            Per::Second => "s",
            Per::Minute => "min",
        };
        write!(f, "{}/{per}", self.requests)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_runs_at_once_then_requests_wait_then_they_are_too_many() {
        let rate = Rate::parse("100/s").unwrap();
        let at = rate.began;
        let paces: Vec<_> = (0..250).map(|_| rate.ask(at)).collect();
        assert!(paces[..100].iter().all(|pace| *pace == Pace::Now));
        assert_eq!(paces[100], Pace::After(Duration::from_millis(10)));
        assert_eq!(paces[199], Pace::After(Duration::from_secs(1)));
        assert!(paces[200..].iter().all(|pace| *pace == Pace::TooFast));
        // Those were not counted: half a second later there is room for fifty.
        let later = at + Duration::from_millis(500);
        let paces: Vec<_> = (0..51).map(|_| rate.ask(later)).collect();
        assert!(paces[..50].iter().all(|pace| matches!(pace, Pace::After(_))), "{paces:?}");
        assert_eq!(paces[50], Pace::TooFast);
        assert_eq!(rate.ask(at + Duration::from_secs(10)), Pace::Now);
    }

    #[test]
    fn a_rate_is_a_number_in_a_second_or_a_minute() {
        assert_eq!(Rate::parse("200/s").unwrap().to_string(), "200/s");
        assert_eq!(Rate::parse("30 / min").unwrap().to_string(), "30/min");
        for text in ["200", "0/s", "x/s", "1/h", "-1/s", ""] {
            assert!(Rate::parse(text).is_none(), "{text}");
        }
        let slow = Rate::parse("1/min").unwrap();
        assert_eq!(slow.ask(slow.began), Pace::Now);
        assert_eq!(slow.ask(slow.began), Pace::TooFast);
    }

    #[test]
    fn what_was_asked_for_still_counts_at_another_rate() {
        let before = Rate::parse("10/s").unwrap();
        for _ in 0..20 {
            before.ask(Instant::now());
        }
        let after = Rate::parse("20/s").unwrap();
        after.succeed(&before);
        assert!(matches!(after.ask(Instant::now()), Pace::Now | Pace::After(_)));
        assert!(after.until_ns.load(Relaxed) > 500_000_000, "{after:?}");
    }
}
