//! Room on a disk that others fill: entries leave as they do at the bound, when the medium has no room below it.
//!
//! Only for a write that was refused twice, and about as much as that takes: neither a moment without room nor what others put
//! there may empty the store. A tombstone may not fit either; then the oldest segment goes with all that it holds, which
//! takes no write.

use std::sync::atomic::Ordering::Relaxed;

use crate::evict::{DROP_ALL, DROP_INLINE, Step};
use crate::policy::Candidates;
use crate::read::Wait;
use crate::store::Inner;
use crate::{Result, StoreError};

/// How often a refused write is tried again: what is freed may be taken by others.
const RETRIES: usize = 3;
/// Freed beyond what is asked for, in bytes: blocks for the log, and for what the file system needs itself.
const SPARE: u64 = 64 << 10;
/// Entries or segments given up for one write.
const STEPS_MAX: usize = 64;
/// Draws that may all miss the entries whose payload is in a file. The more of those went, the rarer they are, and while the log
/// has one segment nothing else can be given back.
const DRAWS_MAX: usize = 64;

impl Inner {
    /// Makes an attempt at writing something again if the disk was full: it may have room by now, or else entries leave.
    pub(crate) fn with_room<T>(&self, wait: Wait, attempt: impl Fn() -> Result<T>) -> Result<T> {
        let mut outcome = attempt();
        for retry in 0..RETRIES {
            let Err(StoreError::DiskFull { needed_bytes }) = outcome else { break };
            self.tidy();
            if retry > 0 && !self.free_disk(needed_bytes, wait) {
                break;
            }
            outcome = attempt();
        }
        outcome
    }

    /// Notes how a write ended that nobody can make again. Where one after the other finds no room, the next shall.
    pub(crate) fn note_settled(&self, outcome: &Result<()>) {
        if let Err(StoreError::DiskFull { needed_bytes }) = outcome {
            if self.disk_refusals.fetch_add(1, Relaxed) > 0 {
                self.free_disk(*needed_bytes, Wait::Never);
            }
        } else if self.disk_refusals.load(Relaxed) > 0 {
            self.disk_refusals.store(0, Relaxed);
        }
    }

    /// Frees about so many bytes of a full disk; says whether it freed any.
    fn free_disk(&self, bytes: u64, wait: Wait) -> bool {
        // Whoever only looks into a store or mends it is told that the disk is full.
        if !self.is_bounded() {
            return false;
        }
        match wait {
            Wait::Allowed if self.free_what_a_crash_left() => return true,
            // Nobody leaves before what a crash left does.
            Wait::Never if !self.is_swept_soon() => return false,
            _ => {}
        }
        let _room = self.room.lock();
        let before = self.space.used();
        for _ in 0..STEPS_MAX {
            if self.space.used() + bytes + SPARE <= before || !self.free_some_of_disk() {
                break;
            }
        }
        self.space.used() < before
    }

    fn free_what_a_crash_left(&self) -> bool {
        let before = self.counters.orphans.load(Relaxed);
        if !self.is_swept()
            && let Err(error) = self.finish_sweep()
        {
            tracing::warn!(%error, "cannot remove what a crash left");
        }
        self.counters.orphans.load(Relaxed) > before
    }

    fn free_some_of_disk(&self) -> bool {
        // Their files are free at once, and what is in the log only with its segment.
        let victim = (0..DRAWS_MAX).find_map(|_| {
            let mut external = Candidates::default();
            // A base's file stays for those that need it.
            for slot in self.sample().into_iter().filter(|slot| slot.is_external && !slot.is_base) {
                external.offer(slot.candidate(), slot.standing.worth());
            }
            self.least(&mut external)
        });
        victim.is_some_and(|victim| self.evict(&victim).is_ok()) || self.drop_oldest()
    }

    /// Gives up what the oldest segment itself holds, and if that cannot be done without it, the payload files it names as
    /// well. [`Inner::room`] must be locked.
    pub(crate) fn drop_oldest(&self) -> bool {
        let Some(oldest) = self.log.sealed().into_iter().next() else { return false };
        // What the disk does not take is refused here, to whoever waits for it.
        let _ = self.flush();
        [DROP_INLINE, DROP_ALL].iter().any(|cut| matches!(self.clean(&oldest, *cut), Ok(Step::Freed)))
    }
}
