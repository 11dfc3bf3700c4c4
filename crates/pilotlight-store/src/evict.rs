//! Room for new entries: which entries leave, and how their bytes come back.
//!
//! Eviction is sampled GreedyDual-Size-Frequency (Cherkasova 1998): an entry is worth `floor + (1 + hits) * cost / size`,
//! of a few entries drawn at random the one worth least leaves, and its worth becomes the floor, which ages all that are
//! not used. It saves more compile time than LRU at equal size because compile time is what it counts.
//!
//! A payload file is free at once. Bytes in the log come back when a segment is cleaned: what is alive in it is appended
//! again, and the file is removed.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::format::{HEADER_LEN, RecordType, SEGMENT_HEADER_LEN, key_hash};
use crate::index::{Place, Slot};
use crate::log::{Append, Segment};
use crate::records::{Records, split_key};
use crate::space::Reservation;
use crate::store::Inner;
use crate::{Result, StoreError};

/// Entries looked at to find one that leaves: 16 come within two points of looking at all.
const SAMPLE: usize = 16;
/// What an entry of unknown cost is taken to cost, in milliseconds: a small compile.
const COST_MS_UNKNOWN: u32 = 500;

impl Inner {
    /// How much keeping the entry is worth now.
    pub(crate) fn worth(&self, slot: &Slot) -> f32 {
        let cost_ms = if slot.cost_ms == 0 { COST_MS_UNKNOWN } else { slot.cost_ms };
        // A block on top: no entry takes less, and a tiny one is not worth infinitely much.
        let size = slot.stored_bytes() + 4096;
        f32::from_bits(self.floor.load(Relaxed)) + (1.0 + f32::from(slot.hits)) * cost_ms as f32 / size as f32
    }

    /// Promises `bytes` to a writer, making room as needed.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<Reservation<'_>> {
        // Others may take what was made free, but not for ever.
        for _ in 0..4 {
            if let Some(reservation) = self.space.try_reserve(bytes) {
                return Ok(reservation);
            }
            if !self.make_room(bytes) {
                break;
            }
        }
        self.space
            .try_reserve(bytes)
            .ok_or(StoreError::Full { needed_bytes: bytes, bound_bytes: self.space.bound() })
    }

    /// Frees space until `bytes` fit under the limit; says whether they do.
    pub(crate) fn make_room(&self, bytes: u64) -> bool {
        let _room = self.room.lock();
        let mut is_stuck = false;
        while self.space.excess(bytes) > 0 {
            if self.blobs.drain_pool() {
                continue;
            }
            if let Some(segment) = self.worth_cleaning(is_stuck) {
                if let Err(error) = self.clean(&segment) {
                    tracing::warn!(%error, segment = segment.id, "cannot clean a segment");
                    return false;
                }
                continue;
            }
            if is_stuck {
                return false;
            }
            is_stuck = match self.evict_one() {
                Ok(evicted) => !evicted,
                Err(error) => {
                    tracing::warn!(%error, "cannot evict");
                    return false;
                }
            };
        }
        true
    }

    /// Evicts the least worthy of a few entries; `false` if there is none.
    fn evict_one(&self) -> Result<bool> {
        let from = self.random();
        let mut victim: Option<Slot> = None;
        let mut seen = 0;
        for shard in self.index.shards_from(from as usize) {
            let skip = if shard.len() > SAMPLE { (from >> 32) as usize % (shard.len() - SAMPLE) } else { 0 };
            for slot in shard.iter().skip(skip).take(SAMPLE - seen) {
                seen += 1;
                if victim.is_none_or(|victim| slot.worth < victim.worth) {
                    victim = Some(*slot);
                }
            }
            if seen >= SAMPLE {
                break;
            }
        }
        let Some(victim) = victim else { return Ok(false) };
        self.floor.fetch_max(victim.worth.max(0.0).to_bits(), Relaxed);
        if self.remove(victim.hash, |slot| slot.seq == victim.seq)? {
            self.counters.evicted.fetch_add(1, Relaxed);
        }
        Ok(true)
    }

    /// The next of a sequence that is different for every store; quality does not matter here.
    fn random(&self) -> u64 {
        let count = self.counters.evicted.load(Relaxed) ^ self.log.last_seq() << 20;
        let mixed = (self.seed ^ count).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 29
    }

    /// The segment whose cleaning gives back most, if it is worth the copying: a third of it dead, or anything at all
    /// when nothing is left to evict.
    fn worth_cleaning(&self, is_stuck: bool) -> Option<Arc<Segment>> {
        let sealed = self.log.sealed();
        let oldest = sealed.first().map(|segment| segment.id);
        let gain = |segment: &Segment| {
            let kept = segment.live.load(Relaxed)
                // Behind the oldest segment there is nothing that its tombstones could speak of.
                + if oldest == Some(segment.id) { 0 } else { segment.tombstones.load(Relaxed) };
            segment.len.load(Relaxed).saturating_sub(kept)
        };
        let best = sealed.iter().max_by_key(|segment| gain(segment))?;
        let needed = if is_stuck { 4096 } else { best.len.load(Relaxed) / 3 };
        if gain(best) >= needed {
            return Some(best.clone());
        }
        // Tombstones go away from the oldest end: when they are many, that is where to clean.
        let tombstones: u64 = sealed.iter().map(|segment| segment.tombstones.load(Relaxed)).sum();
        let total: u64 = sealed.iter().map(|segment| segment.len.load(Relaxed)).sum();
        if tombstones > total / 4 { sealed.first().cloned() } else { None }
    }

    /// Appends again what is alive in a segment, and removes it.
    pub(crate) fn clean(&self, segment: &Arc<Segment>) -> Result<()> {
        let end = segment.end.load(Relaxed);
        let mut bytes = vec![0; end as usize];
        segment.file.read_at(&mut bytes, 0).map_err(StoreError::io("read a segment", end))?;
        // Tombstones matter as long as an older segment may hold a put that they speak of.
        let oldest_other =
            self.log.all().iter().filter(|other| other.id != segment.id).map(|other| other.created_seq).min();
        for (offset, record, payload) in Records::from(&bytes, SEGMENT_HEADER_LEN as u64, self.seed) {
            let header = record.header;
            let mut append = Append {
                header,
                key: record.key,
                head: record.head,
                payload,
                reference: record.reference,
                hash: 0,
                space: 0,
                is_move: true,
            };
            if header.record_type == RecordType::Put {
                self.move_put(segment.id, offset, &mut append)?;
                continue;
            }
            if oldest_other.is_none_or(|created_seq| created_seq >= header.seq) {
                continue;
            }
            match (header.record_type, record.key.try_into().map(u128::from_le_bytes)) {
                (RecordType::Tombstone, Ok(hash)) => {
                    append.hash = hash;
                    let shard = self.index.shard(hash);
                    // A newer put speaks for the key by itself.
                    if shard.get(hash).is_none() {
                        self.log.append(&append)?;
                    }
                }
                (RecordType::Tombstone, Err(_)) => {}
                _ => {
                    append.space = self.intern_space(record.key);
                    self.log.append(&append)?;
                }
            }
        }
        if !self.is_relaxed() {
            // The copies must be down before the originals go.
            self.log.sync().map_err(StoreError::io("sync", 0))?;
        }
        self.log.remove(segment.id)
    }

    fn move_put(&self, segment: u32, offset: u64, append: &mut Append<'_>) -> Result<()> {
        let Some((space, key)) = split_key(append.key) else { return Ok(()) };
        append.hash = key_hash(space, key, self.seed);
        let mut shard = self.index.shard(append.hash);
        let Some(slot) = shard.get_mut(append.hash) else { return Ok(()) };
        let from = Place { segment, offset, record_len: slot.place.record_len };
        if slot.place != from || slot.seq != append.header.seq {
            return Ok(());
        }
        append.space = slot.space;
        debug_assert!(slot.place.record_len as usize >= HEADER_LEN);
        let (_, place) = self.log.append(append)?;
        slot.place = place;
        Ok(())
    }
}
