//! How every operation runs: admitted, timed, counted, and its failure turned into nothing worse than a miss.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Settings;
use super::address::{Address, Place};
use super::counters::Counters;
use super::directory::DirectoryEngine;
use super::engine::{Answer, Engine, Request};
use super::leases::Heart;
use super::pace::Deadline;
use super::resp::RespEngine;
use super::signing::Signing;
use super::trouble::{Sort, Trouble};
use crate::envelope::Sealed;
use crate::trust::{Signer, Verifier, Vetted};
use crate::{Error, GROUP_ENTRIES_MAX, Result};

#[derive(Debug)]
pub(super) struct Core {
    pub(super) engine: Box<dyn Engine>,
    pub(super) heart: Heart,
    pub(super) counters: Arc<Counters>,
    pub(super) trouble: Trouble,
    pub(super) signer: Option<Signer>,
    pub(super) verifier: Verifier,
    settings: Settings,
    shown: String,
    /// Whose counts these are.
    pid: AtomicU32,
}

/// What is said of a put that a server answered nil: Pilotlight counts why.
const SILENT_REFUSAL: &str = "it does not say why: `pilotlight stats` counts the puts refused, by reason";

impl Core {
    pub(super) fn new(address: Address, settings: Settings, signing: Signing) -> Self {
        let counters = Arc::new(Counters::default());
        let (signer, verifier) = signing.in_database(address.database);
        let shown = address.to_string();
        let pid = std::process::id();
        let seed = seed(pid);
        let engine: Box<dyn Engine> = match &address.place {
            Place::Directory { path } => {
                Box::new(DirectoryEngine::new(path, settings.max_bytes, seed, counters.clone()))
            }
            Place::Tcp { .. } | Place::Unix { .. } => {
                Box::new(RespEngine::new(address, settings.tls.clone(), counters.clone()))
            }
        };
        let trouble = Trouble::new(settings.trouble_budget, seed);
        let heart = Heart::default();
        Self { engine, heart, counters, trouble, signer, verifier, settings, shown, pid: AtomicU32::new(pid) }
    }

    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    pub(super) fn notice(&self) -> Option<String> {
        self.trouble.notice()
    }

    pub(super) fn stats(&self) -> Vec<(&'static str, u64)> {
        self.note_fork();
        self.counters.all()
    }

    pub(super) fn close(&self) {
        self.engine.close();
    }

    /// A forked child begins to count anew; its budget and breakers are its parent's.
    fn note_fork(&self) {
        let pid = std::process::id();
        if self.pid.swap(pid, Ordering::Relaxed) != pid {
            self.counters.clear();
        }
    }

    /// One round trip for `count` operations of the caller's. `None` if it failed as a whole, which is counted as that many
    /// failures by reason.
    pub(super) fn exchange(
        &self,
        sort: Sort,
        count: usize,
        requests: &[Request<'_>],
    ) -> Option<Vec<Result<Answer>>> {
        let Some(allowance) = self.admit(sort) else {
            self.counters.add_unasked(count as u64);
            return None;
        };
        let deadline = Arc::new(self.deadline(Duration::ZERO, allowance));
        let started = Instant::now();
        let result = self.engine.exchange(requests, &deadline);
        let took = started.elapsed();
        match result {
            Ok(answers) => {
                // A put is its last request: those before it make room, and may be refused for what they move.
                let room = if sort == Sort::Put { answers.len().saturating_sub(1) } else { 0 };
                let refusals = || answers.iter().skip(room).filter_map(|answer| answer.as_ref().err());
                refusals().take(count).for_each(|error| self.counters.add_failures(error, 1));
                let is_dropped =
                    || answers.iter().skip(room).any(|answer| matches!(answer, Ok(Answer::Dropped)));
                let refusal = match refusals().next() {
                    Some(error) => Some(error.to_string()),
                    None => is_dropped().then(|| SILENT_REFUSAL.to_owned()),
                };
                let lost = if refusal.is_some() && sort == Sort::Put { took } else { deadline.excess() };
                self.count_lost(lost);
                self.trouble.answered(sort, refusal.as_deref(), lost, &self.shown);
                Some(answers)
            }
            Err(error) => {
                self.fail(&error, count, took);
                None
            }
        }
    }

    /// What waits of an operation may cost, if it is to be tried.
    pub(super) fn admit(&self, sort: Sort) -> Option<Duration> {
        self.note_fork();
        self.trouble.admit(sort)
    }

    /// The limits of an operation to which the engine may take `wait` without a byte.
    ///
    /// Waiting for a dead server may cost what is left of the budget, `allowance`, and no more. Steady work has its own limit.
    pub(super) fn deadline(&self, wait: Duration, allowance: Duration) -> Deadline {
        let Settings { connect_timeout, stall_timeout, total_timeout, .. } = self.settings;
        Deadline::new(connect_timeout, stall_timeout + wait, total_timeout + wait, allowance + wait)
    }

    pub(super) fn stall_timeout(&self) -> Duration {
        self.settings.stall_timeout
    }

    /// An operation failed as a whole, `count` of the caller's with it.
    pub(super) fn fail(&self, error: &Error, count: usize, took: Duration) {
        self.counters.add_failures(error, count as u64);
        self.count_lost(took);
        self.trouble.failed(error, took, &self.shown);
    }

    pub(super) fn count_lost(&self, lost: Duration) {
        let lost_us = u64::try_from(lost.as_micros()).unwrap_or(u64::MAX);
        Counters::add(&self.counters.trouble_us, lost_us);
    }

    pub(super) fn ping(&self) -> Option<Duration> {
        let started = Instant::now();
        let answers = self.exchange(Sort::Get, 1, &[Request::Ping])?;
        answers.into_iter().next()?.ok()?;
        Some(started.elapsed())
    }

    pub(super) fn delete(&self, key: &[u8]) -> bool {
        let answers = self.exchange(Sort::Put, 1, &[Request::Delete(key)]);
        matches!(answers.as_deref(), Some([Ok(Answer::Done)]))
    }

    /// How many of `keys` are in the group of the first then; none where there are no groups, which is found out once.
    pub(super) fn group(&self, keys: &[&[u8]]) -> usize {
        let keys = keys.get(..GROUP_ENTRIES_MAX).unwrap_or(keys);
        if keys.len() < 2 || !self.engine.may_group() {
            return 0;
        }
        match self.exchange(Sort::Put, 1, &[Request::Group(keys)]).as_deref() {
            Some([Ok(Answer::Grouped(count))]) => *count,
            _ => 0,
        }
    }

    pub(super) fn quarantine(&self, key: &[u8]) {
        Counters::add(&self.counters.quarantined, 1);
        self.delete(key);
    }

    /// Which of `keys` something stands under; `None` if that could not be found out.
    pub(super) fn has(&self, keys: &[&[u8]]) -> Option<Vec<bool>> {
        if keys.is_empty() {
            return Some(Vec::new());
        }
        let requests: Vec<_> = keys.iter().map(|key| Request::Has(key)).collect();
        let answers = self.exchange(Sort::Get, 1, &requests)?;
        answers.into_iter().map(|answer| answer.ok().map(|answer| matches!(answer, Answer::Done))).collect()
    }

    /// What may be opened of what came for `key`. What is not trusted is counted and said, by reason, whether it may or not.
    pub(super) fn vetted(&self, key: &[u8], whole: Bytes) -> Result<Vetted> {
        let vetted = self.verifier.vet(key, Sealed::from_whole(whole)?, now_ms());
        match &vetted {
            Ok(vetted) => {
                if let Some(doubt) = vetted.doubt() {
                    self.counters.add_doubt(doubt.reason());
                    let text = format!("is used although nobody trusted signed it ({doubt})");
                    self.trouble.tell_untrusted(doubt.reason(), &text, &self.shown);
                }
            }
            Err(Error::Unverified(refusal)) => {
                let text = format!("is not used ({refusal})");
                self.trouble.tell_untrusted(refusal.reason(), &text, &self.shown);
            }
            Err(_) => {}
        }
        vetted
    }

    /// Counts what failed before anything was sent, or after all had come.
    pub(super) fn refuse(&self, error: &Error) {
        self.counters.add_failures(error, 1);
    }
}

/// Different in every process on every host: the standard library's hasher takes its keys from the system's randomness.
fn seed(pid: u32) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((pid, now_ms()))
}

/// The time of day, in milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
