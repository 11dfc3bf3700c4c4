//! Room for new entries: which entries leave, and how their bytes come back.
//!
//! What an entry is worth says [`crate::policy`]; here is how the one worth least is found, and what becomes of it.
//!
//! A payload file is free at once. Bytes in the log come back from its old end: what is alive in the oldest segment is appended
//! again, and the segment is removed. Of small records the least worthy third in there is dropped with it: one by one they
//! would fill the log with tombstones. Larger ones leave one by one, as files do, which in the simulator's `--store` saves 2 to
//! 4 points more than to let go of a third. Taking always the oldest keeps the records of a key in
//! the order of their making, so tombstones live for one turn of the log at most, and an entry that is evicted from there
//! needs none.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::format::{RecordType, SEGMENT_HEADER_LEN, key_hash};
use crate::index::{Place, Slot};
use crate::log::{Append, Segment, lock_soon};
use crate::pending::Change;
use crate::policy::{Candidates, SAMPLE};
use crate::read::Wait;
use crate::records::{Records, split_key};
use crate::space::{BLOCK, Reservation};
use crate::store::Inner;
use crate::{Result, StoreError};

/// Below the worth of any entry.
const KEEP_ALL: f32 = -1.0;
/// The same; and a segment that cannot be read stays, which else would be given up, lest the log could never be cleaned again.
pub(crate) const KEEP_OR_FAIL: f32 = -2.0;
/// Above it.
pub(crate) const DROP_INLINE: f32 = f32::MAX;
/// Entries whose payload is in a file go, too.
pub(crate) const DROP_ALL: f32 = f32::INFINITY;

/// One part of so many of the log may be dead before it is cleaned: with rows in footers and blocks that are not full, less than 15 %
/// of the disk is no entry's then. It dies as it ages, so about a sixth of the oldest segment is dead, and five bytes are moved for
/// one that is gained; half as many with 8, which no put's latency showed, and a fiftieth of the entries fewer.
const DEAD_SHARE: u64 = 12;
/// Records up to this length go with their segment, many at a time: a tombstone and its row are 176 bytes.
const SMALL_LEN: u32 = 2 << 10;
/// Shards looked into for a sample, once something was found.
const SHARDS_LOOKED_AT: usize = 256;

/// An entry that may be the one to leave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) hash: u128,
    /// The put that made it.
    pub(crate) seq: u64,
    /// What it alone was worth when it was drawn.
    pub(crate) worth: f32,
}

/// What a step towards more room did.
pub(crate) enum Step {
    /// It took something away.
    Freed,
    /// It moved what is alive along the log, and found nothing to take away.
    Turned,
    /// There is nothing left.
    Nothing,
}

/// What becomes of a record in the segment that is cleaned.
enum Fate {
    /// Nothing: it speaks for no entry.
    Dead,
    /// It lies at the log's end now.
    Moved,
    /// It goes with its segment.
    Unworthy,
}

impl Inner {
    /// Promises `bytes` to a writer, making room as needed.
    pub(crate) fn reserve(&self, bytes: u64, wait: Wait) -> Result<Reservation<'_>> {
        // Others may take what was made free, but not for ever.
        for _ in 0..64 {
            if let Some(reservation) = self.space.try_reserve(bytes) {
                if self.space.is_growth_scarce() {
                    self.hurry_sweep();
                }
                return Ok(reservation);
            }
            // Others may keep us tidying, and make no room for us.
            self.tidy();
            if self.space.is_over_ceiling(bytes) {
                match wait {
                    Wait::Allowed => self.finish_sweep()?,
                    Wait::Never if self.is_swept_soon() => {}
                    Wait::Never => return Err(StoreError::Unswept { needed_bytes: bytes }),
                }
            }
            if self.space.excess(bytes) > 0 && !self.make_room(bytes) {
                break;
            }
        }
        self.space
            .try_reserve(bytes)
            .ok_or(StoreError::Full { needed_bytes: bytes, bound_bytes: self.space.bound() })
    }

    /// Frees space until `bytes` fit under the limit; says whether they do.
    pub(crate) fn make_room(&self, bytes: u64) -> bool {
        let mut candidates = self.room.lock();
        // Twice around the log without a byte gained is enough: all of it is alive, and more than the bound.
        let mut turns_left = 2 * self.log.all().len();
        while self.space.excess(bytes) > 0 && turns_left > 0 {
            match self.free_some(&mut candidates) {
                Ok(Step::Freed) => {}
                Ok(Step::Turned) => turns_left -= 1,
                Ok(Step::Nothing) => return false,
                Err(StoreError::DiskFull { .. }) if self.drop_oldest() => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot make room");
                    return false;
                }
            }
        }
        turns_left > 0
    }

    fn free_some(&self, candidates: &mut Candidates<Candidate>) -> Result<Step> {
        let sealed = self.log.sealed();
        let live: u64 = sealed.iter().map(|segment| segment.live.load(Relaxed)).sum();
        let total: u64 = sealed.iter().map(|segment| segment.end.load(Relaxed)).sum();
        // Much is dead already: that goes first.
        if let Some(oldest) = sealed.first()
            && total.saturating_sub(live) > total / DEAD_SHARE
        {
            return self.clean(oldest, KEEP_ALL);
        }
        match (sealed.first(), self.victim(candidates)) {
            (Some(oldest), None) => self.clean(oldest, KEEP_ALL),
            (Some(oldest), Some(victim)) if !victim.is_external && victim.place.record_len < SMALL_LEN => {
                // It need not be among those that this drops.
                candidates.offer(victim.candidate(), victim.standing.worth());
                self.clean(oldest, self.cut())
            }
            (_, Some(victim)) => {
                self.evict(&victim)?;
                Ok(Step::Freed)
            }
            (None, None) => Ok(Step::Nothing),
        }
    }

    /// The entry worth least of those drawn now and lately.
    fn victim(&self, candidates: &mut Candidates<Candidate>) -> Option<Slot> {
        for slot in self.sample() {
            candidates.offer(slot.candidate(), slot.standing.worth());
        }
        self.least(candidates)
    }

    /// The candidate that is worth least and still what it was when it was drawn. One of a group is worth what the group is.
    pub(crate) fn least(&self, candidates: &mut Candidates<Candidate>) -> Option<Slot> {
        while let Some((candidate, worth)) = candidates.take_least() {
            let slot = self.index.shard(candidate.hash).get(candidate.hash).copied();
            let Some(slot) = slot.filter(|slot| slot.candidate() == candidate && !slot.is_pinned) else {
                continue;
            };
            let Some(group) = slot.group() else { return Some(slot) };
            let together = self.worth_together(group);
            if together <= worth {
                return Some(slot);
            }
            if together.is_finite() {
                candidates.offer(candidate, together);
            }
        }
        None
    }

    /// A few entries drawn at random, none of them pinned.
    pub(crate) fn sample(&self) -> Vec<Slot> {
        let from = self.random();
        let mut sample = Vec::with_capacity(SAMPLE);
        for (looked_at, shard) in self.index.shards_from(from as usize).enumerate() {
            let skip = if shard.len() > SAMPLE { (from >> 32) as usize % (shard.len() - SAMPLE) } else { 0 };
            let free = shard.iter().skip(skip).filter(|slot| !slot.is_pinned);
            sample.extend(free.take(SAMPLE - sample.len()));
            // Where nearly all is pinned, few are enough: to find more would be a walk through everything.
            if sample.len() >= SAMPLE || looked_at >= SHARDS_LOOKED_AT && !sample.is_empty() {
                break;
            }
        }
        sample
    }

    /// The worth under which about a third of all entries in the log lie.
    fn cut(&self) -> f32 {
        let mut worths: Vec<f32> = (0..4)
            .flat_map(|_| self.sample())
            .filter(|slot| !slot.is_external)
            .map(|slot| slot.standing.worth())
            .collect();
        worths.sort_unstable_by(f32::total_cmp);
        worths.get(worths.len() / 3).copied().unwrap_or(f32::MAX)
    }

    /// Evicts the entry, and its group with it. Nobody else may make room meanwhile.
    pub(crate) fn evict(&self, victim: &Slot) -> Result<()> {
        if let Some(group) = victim.group() {
            return self.leave_together(group);
        }
        let Some(seq) = self.stage_removal(victim.hash, |slot| slot.seq == victim.seq)? else {
            return Ok(());
        };
        if victim.is_external || victim.base_len > 0 {
            // Its files are free only then.
            self.settle(seq)?;
        } else {
            // It goes with the put that the room is made for.
            self.relieve();
        }
        self.note_evicted(victim);
        Ok(())
    }

    pub(crate) fn note_evicted(&self, slot: &Slot) {
        self.policy.note_evicted(slot.policy_hash(), &slot.standing);
        self.counters.evicted.fetch_add(1, Relaxed);
    }

    /// The next of a sequence that is different for every store; quality does not matter here.
    pub(crate) fn random(&self) -> u64 {
        let count = self.draws.fetch_add(1, Relaxed);
        let mixed = (self.seed ^ count).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 29
    }

    /// Removes the oldest segment, appending again what is alive in it and worth more than `cut`.
    ///
    /// Only ever the oldest. So an entry that is dropped here needs no tombstone, and no tombstone is needed any longer:
    /// older records of the same keys could only lie in front, and nothing is. It is dropped when the file is gone, not
    /// before: whoever is told that a key is absent must not find it again after a crash. (But for the moment in which a
    /// tombstone waits or is being written, see `remove`.)
    pub(crate) fn clean(&self, oldest: &Arc<Segment>, cut: f32) -> Result<Step> {
        // All of it must be in its file to be read there. And had a write failed meanwhile, entries would be alive again
        // that were dead when they were looked at.
        let failures = self.log.failures();
        self.flush().map_err(StoreError::io("append to the log", 0))?;
        let end = oldest.end.load(Relaxed);
        let mut bytes = vec![0; end as usize];
        let mut dropped = Vec::new();
        let mut moved_bytes = 0;
        if let Err(error) = oldest.file.read_at(&mut bytes, 0) {
            if cut == KEEP_OR_FAIL {
                return Err(StoreError::io("read the log", 0)(error));
            }
            // Else the log could never be cleaned again.
            tracing::warn!(%error, segment = oldest.id, "cannot read a segment: what it held is lost");
            dropped = self.index.hashes_in(oldest.id);
            bytes.clear();
        }
        for (offset, record, payload) in Records::from(&bytes, SEGMENT_HEADER_LEN as u64, self.seed) {
            if record.header.record_type == RecordType::Put
                && let Some((space, key)) = split_key(record.key)
            {
                let append = Append {
                    header: record.header,
                    key: &[record.key],
                    head: record.head,
                    payload,
                    reference: record.reference,
                    hash: key_hash(space, key, self.seed),
                    space: 0,
                    is_move: true,
                };
                let hash = append.hash;
                let fate = self.keep(oldest, offset, append, cut)?;
                self.relieve();
                match fate {
                    Fate::Dead => {}
                    Fate::Moved => moved_bytes += record.header.record_len(),
                    Fate::Unworthy => dropped.push(hash),
                }
            }
        }
        // The copies must be down before the originals go, `relaxed` or not: they may be as old as the store. And this
        // segment must not outlive one removed after it, which may hold the tombstones of what is in here.
        self.flush().map_err(StoreError::io("append to the log", 0))?;
        self.sync_log().map_err(StoreError::io("sync", 0))?;
        // Nobody takes a record back between the look and the removal.
        let turn = lock_soon(&self.log.turn);
        if self.log.failures() != failures {
            return Ok(Step::Turned);
        }
        self.log.remove(oldest.id, || dropped.iter().for_each(|hash| self.drop_from(oldest.id, *hash)))?;
        drop(turn);
        // Not by what the log takes in all: others append to it meanwhile.
        Ok(if moved_bytes + BLOCK <= end { Step::Freed } else { Step::Turned })
    }

    /// Appends a record of the oldest segment again, if it is alive and worth it.
    fn keep(&self, oldest: &Segment, offset: u64, mut append: Append<'_>, cut: f32) -> Result<Fate> {
        let seq = append.header.seq;
        let from = Place { segment: oldest.id, offset, record_len: append.header.record_len() as u32 };
        let is_alive = |slot: &Slot| slot.place == from && slot.seq == seq;
        let slot = self.index.shard(append.hash).get(append.hash).copied();
        let Some(slot) = slot.filter(is_alive) else { return Ok(Fate::Dead) };
        if cut > KEEP_ALL && !slot.is_pinned && (!slot.is_external || cut == DROP_ALL) {
            match slot.group() {
                None if slot.standing.worth() <= cut => return Ok(Fate::Unworthy),
                // One that holds a pinned entry is worth infinitely much, and stays.
                Some(group) if self.worth_together(group) <= cut.min(DROP_INLINE) => {
                    self.leave_together(group)?;
                    return Ok(Fate::Dead);
                }
                None | Some(_) => {}
            }
        }
        let mut shard = self.index.shard(append.hash);
        let Some(slot) = shard.get_mut(append.hash).filter(|slot| is_alive(slot)) else {
            return Ok(Fate::Dead);
        };
        append.space = slot.space;
        let change = Change { old: Some(*slot), names_record: true, ..Change::default() };
        let (_, place) = self.log.append(&append, Some(change))?;
        slot.place = place;
        oldest.live.fetch_sub(u64::from(from.record_len), Relaxed);
        Ok(Fate::Moved)
    }

    /// Evicts an entry whose segment was removed, if it was not put again since.
    fn drop_from(&self, segment: u32, hash: u128) {
        let mut shard = self.index.shard(hash);
        if shard.get(hash).is_some_and(|slot| slot.place.segment == segment)
            && let Some(slot) = shard.remove(hash)
        {
            let released = self.forget(&slot);
            drop(shard);
            self.release(&released);
            self.note_evicted(&slot);
        }
    }
}
