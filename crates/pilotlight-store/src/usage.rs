//! How much is kept: of one space, and of all.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::index::Slot;
use crate::quota::Quota;
use crate::store::Inner;

/// How much is kept, and what happened since the open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreUsage {
    /// Entries.
    pub entries: u64,
    /// Sum of [`crate::PutRequest::logical_len`].
    pub logical_bytes: u64,
    /// As `du` counts the directory; of a space: without rounding and overhead.
    pub stored_bytes: u64,
    /// The bound.
    pub bound_bytes: u64,
    /// What pinned entries take, without what they share; part of `stored_bytes`.
    pub pinned_bytes: u64,
    /// See [`crate::Store::set_quota`]; of all, none.
    pub quota_bytes: Option<u64>,
    /// Evicted for space.
    pub evicted: u64,
    /// Expired.
    pub expired: u64,
    /// Set aside because their check failed.
    pub quarantined: u64,
    /// Puts whose payload was there already.
    pub deduplicated: u64,
    /// Payload files.
    pub files: u64,
    /// Payload files that no entry held, and that were removed.
    pub orphans: u64,
    /// Whether all is gone that a crash left: see [`crate::Store::sweep`].
    pub is_swept: bool,
    /// Payload files that the sweep has looked at, of `files` and those that are nobody's.
    pub swept_files: u64,
    /// Entries that were rewritten.
    pub rewritten: u64,
    /// Bytes that this saved, without rounding.
    pub rewritten_bytes: u64,
    /// Entries with a base, now.
    pub based: u64,
}

/// How much is kept of one space.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) entries: AtomicU64,
    pub(crate) logical_bytes: AtomicU64,
    pub(crate) stored_bytes: AtomicU64,
    /// Footprints of what is pinned.
    pub(crate) pinned_bytes: AtomicU64,
    /// Entries with a base.
    pub(crate) based: AtomicU64,
    pub(crate) quota: Quota,
    /// The last clear of the space: what is older does not come back.
    pub(crate) cleared_seq: AtomicU64,
}

impl Tally {
    pub(crate) fn add(&self, slot: &Slot) {
        self.entries.fetch_add(1, Relaxed);
        self.logical_bytes.fetch_add(u64::from(slot.logical_len), Relaxed);
        self.stored_bytes.fetch_add(slot.stored_bytes(), Relaxed);
        self.based.fetch_add(u64::from(slot.base_len > 0), Relaxed);
        if slot.is_pinned {
            self.pinned_bytes.fetch_add(slot.footprint(), Relaxed);
        }
    }

    pub(crate) fn subtract(&self, slot: &Slot) {
        self.entries.fetch_sub(1, Relaxed);
        self.logical_bytes.fetch_sub(u64::from(slot.logical_len), Relaxed);
        self.stored_bytes.fetch_sub(slot.stored_bytes(), Relaxed);
        self.based.fetch_sub(u64::from(slot.base_len > 0), Relaxed);
        if slot.is_pinned {
            self.pinned_bytes.fetch_sub(slot.footprint(), Relaxed);
        }
    }
}

impl Inner {
    pub(crate) fn usage(&self, space: Option<&[u8]>) -> StoreUsage {
        let mut usage = StoreUsage {
            bound_bytes: self.space.bound(),
            evicted: self.counters.evicted.load(Relaxed),
            expired: self.counters.expired.load(Relaxed),
            quarantined: self.counters.quarantined.load(Relaxed),
            deduplicated: self.counters.deduplicated.load(Relaxed),
            files: self.blobs.len() as u64,
            orphans: self.counters.orphans.load(Relaxed),
            is_swept: self.is_swept(),
            swept_files: self.sweep.looked_at.load(Relaxed),
            rewritten: self.counters.rewritten.load(Relaxed),
            rewritten_bytes: self.counters.rewritten_bytes.load(Relaxed),
            ..StoreUsage::default()
        };
        let wanted = space.map(|space| self.space_number(space));
        for (number, tally) in self.tallies.read().iter().enumerate() {
            if wanted.is_none_or(|wanted| wanted.map(usize::from) == Some(number)) {
                usage.entries += tally.entries.load(Relaxed);
                usage.logical_bytes += tally.logical_bytes.load(Relaxed);
                usage.stored_bytes += tally.stored_bytes.load(Relaxed);
                usage.stored_bytes += self.blobs.orphaned_bytes(number as u16);
                usage.pinned_bytes += tally.pinned_bytes.load(Relaxed);
                usage.based += tally.based.load(Relaxed);
                usage.quota_bytes = tally.quota.max_bytes();
            }
        }
        if space.is_none() {
            usage.stored_bytes = self.space.used();
            usage.quota_bytes = None;
        }
        usage
    }
}
