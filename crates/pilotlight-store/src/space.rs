//! Who takes how many bytes, so that the bound holds before a byte is written.
//!
//! Counted as `du` counts: in whole blocks, with directories. Every writer reserves first and writes after.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes of a file system block, as everywhere that matters.
pub(crate) const BLOCK: u64 = 4096;
/// What the empty store takes: its directories, FORMAT, LOCK.
const BASE_BYTES: u64 = 16 * BLOCK;
/// Most that is kept free for the sake of whoever counts while files come and go.
const SLACK_MAX: u64 = 256 << 20;
/// What the name of a file takes in its directory, rounded up generously.
const NAME_BYTES: u64 = 128;

/// Bytes a file of `len` takes, with the block in which the file system notes where a scattered file's blocks are.
pub(crate) fn blocks(len: u64) -> u64 {
    if len <= BLOCK { len.next_multiple_of(BLOCK) } else { len.next_multiple_of(BLOCK) + BLOCK }
}

/// Bytes a file of `len` takes, its name included.
pub(crate) fn file_bytes(len: u64) -> u64 {
    blocks(len) + NAME_BYTES
}

/// The counts, shared by everyone who writes.
#[derive(Debug)]
pub(crate) struct Space {
    bound: u64,
    /// Kept free. For the cleaner, which writes a segment's survivors before it may remove the segment; and because `du`
    /// takes its time: what it counted may be gone, and its successor counted too, before it is through.
    headroom: u64,
    /// Segments.
    pub(crate) log: AtomicU64,
    /// Payload files, the ones set aside for reuse and the quarantined ones included.
    pub(crate) blobs: AtomicU64,
    /// Promised to writers that have not written yet.
    pending: AtomicU64,
    /// What may be used until it is known what a crash left. From then on it is no less than the limit.
    ceiling: AtomicU64,
    /// By so much that is more than what is used at the open. Whoever died kept under the limit, but for what its cleaner
    /// needed; what ours needs, and this, are the rest of the bound.
    growth_unswept: u64,
}

/// Bytes promised to a writer; given back when dropped, when what was written is counted where it went.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    space: &'a Space,
    bytes: u64,
}

impl Reservation<'_> {
    /// Takes `bytes` of it out, for what is counted before the rest: twice counted, somebody might leave for it.
    pub(crate) fn split(&mut self, bytes: u64) -> Self {
        self.bytes -= bytes;
        Self { space: self.space, bytes }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.space.pending.fetch_sub(self.bytes, Relaxed);
    }
}

impl Space {
    pub(crate) fn new(bound: u64, segment_bytes: u64) -> Self {
        let (cleaning, slack) = (segment_bytes + segment_bytes / 4, (bound / 16).min(SLACK_MAX));
        Self {
            bound,
            headroom: cleaning + slack,
            log: AtomicU64::new(0),
            blobs: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            ceiling: AtomicU64::new(u64::MAX),
            growth_unswept: slack.saturating_sub(cleaning),
        }
    }

    /// The least bound under which a store with such segments can work.
    pub(crate) fn bound_min(segment_bytes: u64) -> u64 {
        BASE_BYTES + 8 * segment_bytes
    }

    pub(crate) fn bound(&self) -> u64 {
        self.bound
    }

    /// What everything takes now, promises included.
    pub(crate) fn used(&self) -> u64 {
        BASE_BYTES + self.log.load(Relaxed) + self.blobs.load(Relaxed) + self.pending.load(Relaxed)
    }

    /// What puts may fill.
    pub(crate) fn limit(&self) -> u64 {
        self.bound.saturating_sub(self.headroom)
    }

    /// The largest single entry that could fit an otherwise empty store.
    pub(crate) fn entry_max(&self) -> u64 {
        self.limit().saturating_sub(BASE_BYTES + self.headroom / 2)
    }

    /// At the open, when all is counted that is known: bounds how much the store may grow before [`Self::lift_ceiling`]. Says
    /// whether it may at all.
    pub(crate) fn set_ceiling(&self) -> bool {
        self.ceiling.store(self.used() + self.growth_unswept, Relaxed);
        self.growth_unswept > 0
    }

    /// Until [`Self::lift_ceiling`].
    pub(crate) fn forbid_growth(&self) {
        self.ceiling.store(self.used(), Relaxed);
    }

    /// Nothing is there any longer that is not counted.
    pub(crate) fn lift_ceiling(&self) {
        self.ceiling.store(u64::MAX, Relaxed);
    }

    /// Whether half is taken of what the store may grow by until it is known what a crash left.
    pub(crate) fn is_growth_scarce(&self) -> bool {
        self.is_over_ceiling(self.growth_unswept / 2)
    }

    /// Whether `bytes` must wait until it is known what a crash left.
    pub(crate) fn is_over_ceiling(&self, bytes: u64) -> bool {
        self.used() + bytes > self.ceiling.load(Relaxed)
    }

    /// Promises `bytes`, if they fit under the limit now.
    pub(crate) fn try_reserve(&self, bytes: u64) -> Option<Reservation<'_>> {
        self.pending.fetch_add(bytes, Relaxed);
        let reservation = Reservation { space: self, bytes };
        (self.used() <= self.limit() && !self.is_over_ceiling(0)).then_some(reservation)
    }

    /// What is kept free ahead of need, so that a put seldom waits for room.
    pub(crate) fn spare(&self) -> u64 {
        self.limit() / 40
    }

    /// Promises `bytes`, if nobody needs to leave for them, not even ahead of need.
    pub(crate) fn try_reserve_spare(&self, bytes: u64) -> Option<Reservation<'_>> {
        let reservation = self.try_reserve(bytes)?;
        (self.used() + self.spare() <= self.limit()).then_some(reservation)
    }

    /// How far `used` must fall for `bytes` to fit.
    pub(crate) fn excess(&self, bytes: u64) -> u64 {
        (self.used() + bytes).saturating_sub(self.limit())
    }
}
