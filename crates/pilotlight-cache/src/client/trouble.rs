//! What failures may cost: a breaker that stops asking who does not answer, and a budget for all of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::guarded::Guarded;
use crate::trust::Reason;
use crate::{Error, ErrorKind};

/// Decides whether an operation is worth trying, and tells the user about it, rarely.
#[derive(Debug)]
pub(super) struct Trouble {
    state: Guarded<State>,
    budget: Duration,
    /// In microseconds.
    spent_us: AtomicU64,
    /// So that a healthy client looks at nothing else but what is spent.
    is_calm: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// Stops everything: nobody answers.
    all: Breaker,
    /// Stops puts alone: they are answered, and refused.
    puts: Breaker,
    /// Refused puts in a row.
    refusals: u32,
    told: Told,
    /// For the user, not fetched yet.
    notices: Vec<String>,
    /// For the jitter of delays: processes that failed together must not come back together.
    seed: u64,
}

/// Each is said once in the life of a process.
#[derive(Debug, Default)]
struct Told {
    failure: bool,
    recovery: bool,
    end: bool,
    /// Reasons not to trust entries.
    untrusted: Vec<Reason>,
}

#[derive(Debug, Default)]
struct Breaker {
    /// Closed when 0.
    failures: u32,
    /// When the next probe may go.
    probe_at: Option<Instant>,
    is_probing: bool,
    is_off_for_good: bool,
}

/// What an operation is, to the breakers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Get,
    Put,
}

const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(30);
/// One entry may be too large for a server that keeps all others: only as many refusals in a row stop the puts.
const REFUSALS_MAX: u32 = 3;
/// A probe whose thread died with a fork, or whose caller was killed, must not keep the breaker open.
const PROBE_LOST_AFTER: Duration = Duration::from_secs(60);

impl Breaker {
    /// Whether to try now. An open breaker lets one probe through when its time has come.
    fn admits(&mut self, now: Instant) -> bool {
        if self.is_off_for_good {
            return false;
        }
        if self.failures == 0 {
            return true;
        }
        let is_due = self.probe_at.is_none_or(|at| at <= now);
        if is_due {
            self.is_probing = true;
            self.probe_at = Some(now + PROBE_LOST_AFTER);
        }
        is_due
    }

    fn fail(&mut self, now: Instant, random: u64) {
        // Operations that were on their way when the breaker opened say nothing new.
        if self.failures > 0 && !std::mem::take(&mut self.is_probing) {
            return;
        }
        let doubled = DELAY_MIN.saturating_mul(1 << self.failures.min(20)).min(DELAY_MAX);
        // From half the delay to all of it.
        let jittered = doubled / 2 + doubled.mul_f64((random % 1024) as f64 / 2048.0);
        self.failures = self.failures.saturating_add(1);
        self.probe_at = Some(now + jittered);
    }
}

impl Trouble {
    pub(super) fn new(budget: Duration, seed: u64) -> Self {
        let state = State {
            all: Breaker::default(),
            puts: Breaker::default(),
            refusals: 0,
            told: Told::default(),
            notices: Vec::new(),
            seed: seed | 1,
        };
        Self {
            state: Guarded::new(state),
            budget,
            spent_us: AtomicU64::new(0),
            is_calm: AtomicBool::new(true),
        }
    }

    /// What waits of an operation may cost, or nothing if it is not to be tried.
    pub(super) fn admit(&self, sort: Sort) -> Option<Duration> {
        if self.is_calm.load(Relaxed) {
            return Some(self.left());
        }
        let mut state = self.state.lock()?;
        let now = Instant::now();
        // In this order: a put that its own breaker refuses must not use up the other's probe.
        let is_admitted = (sort == Sort::Get || state.puts.admits(now)) && state.all.admits(now);
        is_admitted.then(|| self.left())
    }

    /// What is left of the budget, and never nothing: a wait of zero is one without an end.
    fn left(&self) -> Duration {
        let spent = Duration::from_micros(self.spent_us.load(Relaxed));
        self.budget.saturating_sub(spent).max(Duration::from_millis(1))
    }

    /// Whether the budget has this left; then it is spent.
    pub(super) fn afford(&self, pause: Duration) -> bool {
        self.left() > pause && !self.spend(pause)
    }

    /// Whether the budget is used up with this.
    fn spend(&self, lost: Duration) -> bool {
        let lost_us = u64::try_from(lost.as_micros()).unwrap_or(u64::MAX);
        let before_us = self.spent_us.fetch_add(lost_us, Relaxed);
        Duration::from_micros(before_us.saturating_add(lost_us)) >= self.budget
    }

    /// The engine answered. `refusal` is why it did not do as asked, `lost` is what that or its slowness cost.
    pub(super) fn answered(&self, sort: Sort, refusal: Option<&str>, lost: Duration, shown: &str) {
        if refusal.is_none() && lost.is_zero() && self.is_calm.load(Relaxed) {
            return;
        }
        let is_spent = self.spend(lost);
        let Some(mut state) = self.state.lock() else { return };
        let was_down = state.all.failures > 0 && !state.all.is_off_for_good;
        if was_down {
            state.all = Breaker::default();
            if !state.told.recovery && state.told.failure {
                state.told.recovery = true;
                state.notices.push(format!("the cache at {shown} answers again"));
            }
        }
        match refusal {
            // Refused quickly, and maybe for this key alone: asked again next time.
            Some(reason) if sort == Sort::Get => {
                state.tell_failure(shown, &format!("does not answer what is asked ({reason})"));
            }
            Some(reason) => {
                let random = state.random();
                state.refusals += 1;
                if state.refusals >= REFUSALS_MAX {
                    state.puts.fail(Instant::now(), random);
                }
                state.puts.is_off_for_good |= is_spent;
                state.tell_failure(shown, &format!("does not keep what is put ({reason})"));
            }
            None if sort == Sort::Put && !state.puts.is_off_for_good => {
                state.puts = Breaker::default();
                state.refusals = 0;
            }
            None => {}
        }
        // Who refuses puts may go on answering gets, unless those are too slow.
        let is_slow = !lost.is_zero() && (refusal.is_none() || sort == Sort::Get);
        if is_slow && is_spent {
            state.end(self.budget, shown);
        }
        self.is_calm.store(state.is_calm(), Relaxed);
    }

    /// The operation failed as a whole, and took this long to do so.
    pub(super) fn failed(&self, error: &Error, took: Duration, shown: &str) {
        let is_spent = self.spend(took);
        let Some(mut state) = self.state.lock() else { return };
        let random = state.random();
        match error.kind() {
            // One entry's matter; whoever sent it can be talked to.
            ErrorKind::TooLarge => {}
            _ => state.all.fail(Instant::now(), random),
        }
        state.tell_failure(shown, &format!("cannot be used ({error})"));
        if is_spent {
            state.end(self.budget, shown);
        }
        self.is_calm.store(state.is_calm(), Relaxed);
    }

    /// Says of an entry that nobody trusted signed what becomes of it and what to do: once for each reason.
    pub(super) fn tell_untrusted(&self, reason: Reason, what: &str, shown: &str) {
        let Some(mut state) = self.state.lock() else { return };
        if !state.told.untrusted.contains(&reason) {
            state.told.untrusted.push(reason);
            let hint = reason.hint();
            state.notices.push(format!("an entry of the cache at {shown} {what}; {hint}"));
        }
    }

    /// Says what is wrong with the client's own settings.
    pub(super) fn tell(&self, what: String) {
        if let Some(mut state) = self.state.lock() {
            state.notices.push(what);
        }
    }

    pub(super) fn notice(&self) -> Option<String> {
        let mut state = self.state.lock()?;
        if state.notices.is_empty() { None } else { Some(state.notices.remove(0)) }
    }
}

impl State {
    fn is_calm(&self) -> bool {
        let State { all, puts, refusals, .. } = self;
        all.failures == 0 && puts.failures == 0 && *refusals == 0 && !puts.is_off_for_good
    }

    /// xorshift64.
    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    /// Leaves the cache alone when it has cost what it may.
    fn end(&mut self, budget: Duration, shown: &str) {
        self.all.is_off_for_good = true;
        self.all.failures = self.all.failures.max(1);
        if !self.told.end {
            self.told.end = true;
            let budget = budget.as_secs_f64();
            self.notices.push(format!(
                "waiting for the cache at {shown} has cost {budget:.1} s, so it is left alone from here on"
            ));
        }
    }

    fn tell_failure(&mut self, shown: &str, what: &str) {
        if !self.told.failure {
            self.told.failure = true;
            self.notices.push(format!("the cache at {shown} {what}; compiling goes on without it"));
        }
    }
}
