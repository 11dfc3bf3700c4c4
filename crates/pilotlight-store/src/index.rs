//! What is where, in memory: one slot an entry, in shards by hash.
//!
//! What is absent here: keys. A slot knows its key's seeded 128-bit hash; the record on disk holds the key itself, and a
//! read compares it.

use std::num::NonZeroU32;

use parking_lot::{Mutex, MutexGuard};

use crate::evict::Candidate;
use crate::expiries::{Expiries, Expiry};
use crate::format::ROW_LEN;
use crate::groups::{Group, SHARED};
use crate::policy::{Asset, Standing};
use crate::shard::Shard;
use crate::space::file_bytes;

/// Enough that two cores seldom meet in one, few enough that a store of ten entries is not all shards.
const SHARDS: usize = 1 << SHARD_BITS;
pub(crate) const SHARD_BITS: u32 = 10;

/// Which shard a hash belongs to: what it starts with.
pub(crate) fn shard_of(hash: u128) -> usize {
    (hash >> (u128::BITS - SHARD_BITS)) as usize
}

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    /// In bytes.
    pub(crate) offset: u64,
    /// In bytes.
    pub(crate) record_len: u32,
}

/// What the index knows of an entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) hash: u128,
    /// The put that made the entry; its version.
    pub(crate) seq: u64,
    /// 0 when it never expires.
    pub(crate) expires_ms: u64,
    pub(crate) created_ms: u64,
    pub(crate) place: Place,
    pub(crate) payload_len: u32,
    pub(crate) logical_len: u32,
    pub(crate) cost_ms: u32,
    pub(crate) accessed_s: u32,
    /// How much keeping the entry is worth.
    pub(crate) standing: Standing,
    pub(crate) hits: u16,
    pub(crate) space: u16,
    /// See [`Slot::group`].
    pub(crate) group_number: Option<NonZeroU32>,
    pub(crate) is_external: bool,
    /// It does not leave for want of space.
    pub(crate) is_pinned: bool,
    /// Others are stored against its payload, or were; not on disk.
    pub(crate) is_base: bool,
    /// There is nothing to gain by rewriting it.
    pub(crate) is_rewritten: bool,
    /// Length of the payload that its own is stored against; 0 when it stands for itself.
    pub(crate) base_len: u32,
}

/// Among so many a base's bytes are shared, as far as eviction goes. Families of recompiles are larger, and their last member
/// has the base for itself: counted exactly, each use of one would have to look at all.
const BASE_SHARERS: u64 = 4;

impl Slot {
    pub(crate) fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms != 0 && self.expires_ms <= now_ms
    }

    /// Bytes the entry takes on disk, without rounding.
    pub(crate) fn stored_bytes(&self) -> u64 {
        u64::from(self.place.record_len) + if self.is_external { u64::from(self.payload_len) } else { 0 }
    }

    /// Bytes the entry takes with what it takes beside: its row in a footer, blocks that are not full, and its base.
    pub(crate) fn footprint(&self) -> u64 {
        let file = if self.is_external { file_bytes(self.stored_bytes()) } else { 0 };
        let base = if self.base_len > 0 { file_bytes(u64::from(self.base_len)) } else { 0 };
        u64::from(self.place.record_len) + ROW_LEN as u64 + file + base
    }

    /// Whom it leaves with.
    pub(crate) fn group(&self) -> Option<Group> {
        self.group_number.filter(|number| *number != SHARED).map(|number| Group { space: self.space, number })
    }

    pub(crate) fn candidate(&self) -> Candidate {
        Candidate { hash: self.hash, seq: self.seq, worth: self.standing.worth() }
    }

    pub(crate) fn asset(&self) -> Asset {
        let payload_len = if self.is_external { u64::from(self.payload_len) } else { 0 };
        // A base's file is there for its deltas when the entry is gone, and a delta keeps it there.
        let own = if self.is_base { payload_len / BASE_SHARERS } else { payload_len };
        let stored_bytes = u64::from(self.place.record_len) + own + u64::from(self.base_len) / BASE_SHARERS;
        Asset { cost_ms: self.cost_ms, stored_bytes }
    }

    /// What the policy knows the key by.
    pub(crate) fn policy_hash(&self) -> u64 {
        self.hash as u64
    }
}

/// All slots, and when which of them expire.
#[derive(Debug)]
pub(crate) struct Index {
    shards: Vec<Mutex<Shard>>,
    expiries: Mutex<Expiries>,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), expiries: Mutex::default() }
    }

    /// Makes room for so many slots in all.
    pub(crate) fn reserve(&self, slots: usize) {
        // Hashes fall into shards like dice.
        let mean = slots / SHARDS;
        self.shards.iter().for_each(|shard| shard.lock().reserve(mean + 4 * mean.isqrt()));
    }

    /// The shard that `hash` belongs to, locked. Order: a shard before the log, and never two shards.
    #[expect(clippy::indexing_slicing, reason = "ten bits index 1024 shards")]
    pub(crate) fn shard(&self, hash: u128) -> MutexGuard<'_, Shard> {
        self.shards[shard_of(hash)].lock()
    }

    /// Every shard in turn, from the one numbered `from` around, locked one at a time.
    pub(crate) fn shards_from(&self, from: usize) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        let from = from % SHARDS;
        self.shards.iter().cycle().skip(from).take(SHARDS).map(|shard| shard.lock())
    }

    /// The shards that hold hashes whose upper 64 bits are `from` and above, in order, each with the least such number
    /// it can hold.
    pub(crate) fn shards_from_hash(&self, from: u64) -> impl Iterator<Item = (u64, MutexGuard<'_, Shard>)> {
        (0u64..)
            .zip(&self.shards)
            .skip((from >> 54) as usize)
            .map(|(number, shard)| (number << 54, shard.lock()))
    }

    /// The hashes of all entries whose records lie in `segment`: a walk through everything.
    pub(crate) fn hashes_in(&self, segment: u32) -> Vec<u128> {
        let in_segment = |shard: MutexGuard<'_, Shard>| -> Vec<u128> {
            shard.iter().filter(|slot| slot.place.segment == segment).map(|slot| slot.hash).collect()
        };
        self.shards_from(0).flat_map(in_segment).collect()
    }

    /// Notes that the entry under `hash` expires then. A stale note does no harm.
    pub(crate) fn note_expiry(&self, expires_ms: u64, hash: u128) {
        if expires_ms != 0 {
            self.expiries.lock().push(Expiry::of(expires_ms, hash));
        }
    }

    /// Some hash whose entry may have expired by now.
    pub(crate) fn pop_expired(&self, now_ms: u64) -> Option<u128> {
        loop {
            let expiry = self.expiries.lock().pop_due(now_ms)?;
            // Stale notes are many where keys are written over and over.
            if let Some(hash) = self.shards.get(expiry.shard())?.lock().find_half(expiry.half()) {
                return Some(hash);
            }
        }
    }

    /// Drops stale notes once they outnumber the `entries` there are: keys written over and over leave one each.
    pub(crate) fn trim_expiries(&self, entries: u64) {
        if (self.expiries.lock().len() as u64) < 2 * entries + 4096 {
            return;
        }
        // Taken away first: what is noted meanwhile is kept, what is lost is found again in the slots.
        self.expiries.lock().clear();
        let mut kept = Expiries::default();
        for shard in &self.shards {
            let shard = shard.lock();
            let expiring = shard.iter().filter(|slot| slot.expires_ms != 0);
            expiring.for_each(|slot| kept.push(Expiry::of(slot.expires_ms, slot.hash)));
        }
        self.expiries.lock().append(kept);
    }
}
