//! What a space may take, and who leaves when it would take more: entries of its own, and nobody else's.
//!
//! A quota counts what a space's usage does: records and payloads, without rounding. What several entries share counts for each.
//! To find entries of one space among a million others, a space with a quota keeps a list of its hashes, 16 bytes an entry;
//! stale ones go as they are met.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::evict::Candidate;
use crate::index::Slot;
use crate::policy::{Candidates, SAMPLE};
use crate::store::Inner;
use crate::usage::Tally;
use crate::{Result, StoreError};

/// Draws that may all meet pinned entries before a space counts as pinned full.
const DRAWS_MAX: usize = 64;

/// The quota of one space.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    /// 0 when there is none.
    max_bytes: AtomicU64,
    /// To writers that have not written yet.
    promised: AtomicU64,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    /// Every entry of the space; some twice, some gone.
    hashes: Vec<u128>,
    candidates: Candidates<Candidate>,
}

/// Bytes of a space promised to a writer; given back when dropped, when the entry is counted.
#[derive(Debug)]
pub(crate) struct Share {
    tally: Arc<Tally>,
    bytes: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.tally.quota.promised.fetch_sub(self.bytes, Relaxed);
    }
}

impl Quota {
    pub(crate) fn max_bytes(&self) -> Option<u64> {
        Some(self.max_bytes.load(Relaxed)).filter(|max_bytes| *max_bytes != 0)
    }

    /// Notes a new entry of the space.
    pub(crate) fn note_new(&self, hash: u128) {
        if self.max_bytes().is_some() {
            self.members.lock().hashes.push(hash);
        }
    }
}

impl Inner {
    /// Bounds what `space` may take; from now on, with what it has.
    pub(crate) fn set_quota(&self, space: &[u8], max_bytes: Option<u64>) -> Result<()> {
        let number = self.intern_space(space)?;
        let Some(tally) = self.tally(number) else { return Ok(()) };
        // A quota of nothing is still one.
        tally.quota.max_bytes.store(max_bytes.map_or(0, |max_bytes| max_bytes.max(1)), Relaxed);
        tally.quota.members.lock().hashes.clear();
        if max_bytes.is_none() {
            return Ok(());
        }
        for shard in self.index.shards_from(0) {
            let of_space = shard.iter().filter(|slot| slot.space == number).map(|slot| slot.hash);
            tally.quota.members.lock().hashes.extend(of_space);
        }
        self.has_quotas.store(true, Relaxed);
        // What is pinned may be more than the quota: then the next put is refused.
        let _ = self.promise(space, 0);
        Ok(())
    }

    /// Promises `bytes` of a space to a writer, for which others of the space leave. `None` where there is no quota.
    pub(crate) fn promise(&self, space: &[u8], bytes: u64) -> Result<Option<Share>> {
        // Most stores have no quota, and then no put looks for one.
        if !self.has_quotas.load(Relaxed) {
            return Ok(None);
        }
        let Some(tally) = self.space_number(space).and_then(|number| self.tally(number)) else {
            return Ok(None);
        };
        let Some(max_bytes) = tally.quota.max_bytes() else { return Ok(None) };
        tally.quota.promised.fetch_add(bytes, Relaxed);
        let share = Share { tally: tally.clone(), bytes };
        let number = self.space_number(space).unwrap_or_default();
        let is_over = || {
            let stored_bytes = tally.stored_bytes.load(Relaxed) + self.blobs.orphaned_bytes(number);
            stored_bytes + tally.quota.promised.load(Relaxed) > max_bytes
        };
        if !is_over() {
            return Ok(Some(share));
        }
        // Nobody leaves for what is free already.
        self.tidy();
        // As for all who make room, one at a time: see `leave_together`.
        let _room = self.room.lock();
        while is_over() {
            let victim = if bytes > max_bytes { None } else { self.victim_of(&tally) };
            let Some(victim) = victim else {
                return Err(StoreError::Full { needed_bytes: bytes, bound_bytes: max_bytes });
            };
            self.evict(&victim)?;
        }
        Ok(Some(share))
    }

    /// The entry of a space that is worth least of those drawn now and lately.
    fn victim_of(&self, tally: &Tally) -> Option<Slot> {
        self.trim_members(tally);
        for _ in 0..DRAWS_MAX {
            let drawn = tally.quota.members.lock().draw(|| self.random());
            if drawn.is_empty() {
                return None;
            }
            let (mut stale, mut found) = (Vec::new(), Vec::new());
            for (place, hash) in drawn {
                match self.index.shard(hash).get(hash) {
                    None => stale.push((place, hash)),
                    Some(slot) if slot.is_pinned => {}
                    Some(slot) => found.push(*slot),
                }
            }
            let mut members = tally.quota.members.lock();
            let mut candidates = std::mem::take(&mut members.candidates);
            found.iter().for_each(|slot| candidates.offer(slot.candidate(), slot.standing.worth()));
            members.forget(&stale);
            // Whoever looks at an entry locks its shard, and with that lock new members are noted.
            drop(members);
            let victim = self.least(&mut candidates);
            tally.quota.members.lock().candidates = candidates;
            if victim.is_some() {
                return victim;
            }
        }
        None
    }

    /// Drops stale hashes once they outnumber the entries there are.
    fn trim_members(&self, tally: &Tally) {
        let entries = tally.entries.load(Relaxed) as usize;
        let mut members = tally.quota.members.lock();
        if members.hashes.len() < 2 * entries + 64 {
            return;
        }
        let hashes: HashSet<u128> = std::mem::take(&mut members.hashes).into_iter().collect();
        // Those that come meanwhile are pushed.
        drop(members);
        let live: Vec<u128> =
            hashes.into_iter().filter(|hash| self.index.shard(*hash).get(*hash).is_some()).collect();
        tally.quota.members.lock().hashes.extend(live);
    }
}

impl Members {
    /// Some hashes at random, with their places.
    fn draw(&self, mut random: impl FnMut() -> u64) -> Vec<(usize, u128)> {
        let place = |_| random().checked_rem(self.hashes.len() as u64).map(|place| place as usize);
        let places = (0..SAMPLE).filter_map(place);
        places.filter_map(|place| Some((place, *self.hashes.get(place)?))).collect()
    }

    fn forget(&mut self, stale: &[(usize, u128)]) {
        for (place, hash) in stale {
            // Another may have taken its place.
            if self.hashes.get(*place) == Some(hash) {
                self.hashes.swap_remove(*place);
            }
        }
    }
}
