//! Compile once per fleet, from the client's side: who compiles a key that is not there, and how long to wait for another that
//! does. What leases are for, and what they cannot break, stands in [`crate::leases`].
//!
//! A lease lives with the connection that it was given on, and with one thread that renews it, so that a server takes it from a
//! process that is dead at once and from one that is stopped soon. The thread ends with the last lease. It is not there in a forked
//! child, whose parent's leases are none of its business.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::Client;
use super::core::Core;
use super::counters::Counters;
use super::engine::{Asked, Hold, Search};
use super::guarded::Guarded;
use super::patience::{End, Patience};
use super::trouble::Sort;

/// How long a lease lasts whose leader is not heard of.
pub(super) const LASTS: Duration = Duration::from_secs(10);
/// How often a leader is heard of.
pub(super) const RENEWED_EVERY: Duration = Duration::from_secs(3);
/// How long a follower goes on asking a server that does not answer: one that is restarted is back by then. In the life of a
/// process.
pub(super) const OUTAGE_MAX: Duration = Duration::from_secs(2);
pub(super) const OUTAGE_PAUSE: Duration = Duration::from_millis(200);
/// What to do about a key that is not there.
#[derive(Debug)]
pub enum Part {
    /// Compile it; others wait.
    Lead(Lease),
    /// Look again: it was put.
    Look,
    /// Compile it: there are no leases here, nobody answers, or what is compiled cannot be kept.
    Alone,
    /// Compile it: another does, for longer than one may wait.
    TimedOut,
}

/// The compile of one key, for others too. Given up when dropped.
#[derive(Debug)]
#[must_use = "a lease that is dropped is given up"]
pub struct Lease {
    core: Arc<Core>,
    held: Arc<Held>,
}

/// A lease that is to be renewed.
#[derive(Debug)]
struct Held {
    key: Vec<u8>,
    hold: Guarded<Option<Box<dyn Hold>>>,
    /// Whoever has `hold` gives it back to the engine.
    is_over: AtomicBool,
    is_put: AtomicBool,
    pid: u32,
}

/// The leases of one client, and the thread that renews them.
#[derive(Debug, Default)]
pub(super) struct Heart {
    state: Guarded<Beating>,
    /// Milliseconds that followers spent on servers that did not answer.
    outage_ms: AtomicU32,
}

#[derive(Debug, Default)]
struct Beating {
    pid: u32,
    held: Vec<Arc<Held>>,
    thread: Option<Thread>,
}

impl Client {
    /// Asks who compiles `key`, which was looked for and is not there, and waits for another that does: for `limit` at most, and
    /// less if the compile is overdue.
    ///
    /// Never raises. What it waits for a leader that lives is not trouble; what it waits for a server that does not answer is
    /// bounded as everything else.
    #[must_use]
    pub fn lease(&self, key: &[u8], limit: Duration) -> Part {
        let began = Instant::now();
        let part = self.core.part(key, limit);
        let counters = &self.core.counters;
        let (counter, is_follower) = match &part {
            Part::Lead(_) => (&counters.led, false),
            Part::Look => (&counters.followed, true),
            Part::Alone => return part,
            Part::TimedOut => (&counters.lease_timeouts, true),
        };
        Counters::add(counter, 1);
        if is_follower {
            Counters::add(
                &counters.waited_ms,
                u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            );
        }
        part
    }
}

impl Core {
    fn part(self: &Arc<Self>, key: &[u8], limit: Duration) -> Part {
        let began = Instant::now();
        let mut patience = Patience::new(limit);
        loop {
            let (wait, is_again) = patience.question(began.elapsed());
            let end = match self.ask_lease(Search { key, lasts: LASTS, wait, is_again }) {
                Some(Asked::Lead(hold)) => return Part::Lead(Lease::new(self, key, hold)),
                Some(Asked::Look) => return Part::Look,
                Some(Asked::Alone) => return Part::Alone,
                Some(Asked::Wait { age, expected }) => patience.after_wait(began.elapsed(), age, expected),
                None => patience.after_failure(began.elapsed(), || self.heart.sits_out()),
            };
            match end {
                Some(End::Alone) => return Part::Alone,
                Some(End::TimedOut) => return Part::TimedOut,
                None => {}
            }
        }
    }

    /// Asks once. `None` if that failed, which is counted.
    fn ask_lease(&self, search: Search<'_>) -> Option<Asked> {
        let allowance = self.admit(Sort::Get)?;
        let wait = search.wait;
        let deadline = Arc::new(self.deadline(wait, allowance));
        let started = Instant::now();
        match self.engine.lease(search, &deadline) {
            Ok(asked) => {
                self.trouble.answered(Sort::Get, None, Duration::ZERO, self.shown());
                Some(asked)
            }
            Err(error) => {
                // The wait was granted; what came on top is the failure's.
                self.fail(&error, 1, started.elapsed().saturating_sub(wait));
                None
            }
        }
    }

    /// A round of renewals, on the thread for that: what it costs costs nobody else. Whether there is more to renew.
    fn beat(&self) -> bool {
        let Some(mut beating) = self.heart.state.lock() else { return true };
        beating.held.retain(|held| !held.is_over.load(Relaxed));
        if beating.held.is_empty() {
            beating.thread = None;
            return false;
        }
        let held = beating.held.clone();
        drop(beating);
        for held in held {
            let Some(mut hold) = held.hold.lock().and_then(|mut hold| hold.take()) else { continue };
            let deadline = || Arc::new(self.deadline(Duration::ZERO, self.stall_timeout()));
            // A server that was restarted knows of no leases; who asks first leads.
            let search = Search { key: &held.key, lasts: LASTS, wait: Duration::ZERO, is_again: true };
            if hold.renew(&deadline()).is_err()
                && !held.is_over.load(Relaxed)
                && let Ok(Asked::Lead(next)) = self.engine.lease(search, &deadline())
            {
                hold = next;
            }
            match held.hold.lock() {
                Some(mut place) if !held.is_over.load(Relaxed) => *place = Some(hold),
                _ => self.end(hold, held.is_put.load(Relaxed)),
            }
        }
        true
    }

    fn end(&self, hold: Box<dyn Hold>, is_put: bool) {
        let deadline = Arc::new(self.deadline(Duration::ZERO, self.stall_timeout()));
        hold.end(is_put, &deadline);
    }
}

impl Heart {
    fn add(&self, core: &Arc<Core>, held: &Arc<Held>) {
        let Some(mut beating) = self.state.lock() else { return };
        if beating.pid != held.pid {
            *beating = Beating { pid: held.pid, ..Beating::default() };
        }
        beating.held.push(held.clone());
        if beating.thread.is_none() {
            let core = core.clone();
            let beats = move || {
                thread::park_timeout(RENEWED_EVERY);
                while core.beat() {
                    thread::park_timeout(RENEWED_EVERY);
                }
            };
            // Without it the lease lasts as long as it lasts.
            let spawned = thread::Builder::new().name("pilotlight-lease".to_owned()).spawn(beats);
            beating.thread = spawned.ok().map(|handle| handle.thread().clone());
        }
    }

    fn remove(&self, held: &Arc<Held>) {
        let Some(mut beating) = self.state.lock() else { return };
        beating.held.retain(|other| !Arc::ptr_eq(other, held));
        if beating.held.is_empty()
            && let Some(thread) = &beating.thread
        {
            thread.unpark();
        }
    }

    /// Waits a little for a server that does not answer, if that was not done too often.
    fn sits_out(&self) -> bool {
        let pause_ms = OUTAGE_PAUSE.as_millis() as u32;
        let is_left = self.outage_ms.fetch_add(pause_ms, Relaxed) < OUTAGE_MAX.as_millis() as u32;
        if is_left {
            thread::sleep(OUTAGE_PAUSE);
        }
        is_left
    }
}

impl Lease {
    fn new(core: &Arc<Core>, key: &[u8], hold: Box<dyn Hold>) -> Self {
        let held = Arc::new(Held {
            key: key.to_vec(),
            hold: Guarded::new(Some(hold)),
            is_over: AtomicBool::new(false),
            is_put: AtomicBool::new(false),
            pid: std::process::id(),
        });
        core.heart.add(core, &held);
        Self { core: core.clone(), held }
    }

    /// Ends the lease without a word: what was put has ended it for everybody.
    pub fn put(self) {
        self.held.is_put.store(true, Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.held.is_over.store(true, Relaxed);
        if self.held.pid != std::process::id() {
            // A forked child's copy: its parent leads.
            return;
        }
        self.core.heart.remove(&self.held);
        // If the thread has it right now, that ends it.
        if let Some(hold) = self.held.hold.lock().and_then(|mut hold| hold.take()) {
            self.core.end(hold, self.held.is_put.load(Relaxed));
        }
    }
}
