//! What callers do with a store.

use std::num::NonZeroU32;

use bytes::Bytes;

use crate::format::key_hash;
use crate::index::Slot;
use crate::read::{Noted, Wait};
use crate::rewrite::{Base, Form};
use crate::store::Store;
use crate::usage::StoreUsage;
use crate::write::Purpose;
use crate::{Result, StoreError};

/// Payloads up to this length lie in the log, larger ones in files of their own. A log append costs a fifth of a file, a
/// file can be shared by equal payloads and freed alone; 32 KiB is where the two cross on ext4.
pub const INLINE_MAX: usize = 32 << 10;

/// What to put.
#[derive(Debug, Clone)]
pub struct PutRequest<'a> {
    /// Isolates keys; at most 255 bytes.
    pub space: &'a [u8],
    /// The key.
    pub key: &'a [u8],
    /// Small bytes kept beside the payload, for the caller's use.
    pub head: &'a [u8],
    /// The payload. Equal payloads over [`INLINE_MAX`] are stored once.
    pub payload: &'a [u8],
    /// The payload's BLAKE3, if the caller has it already. Payloads of one digest are taken to be equal.
    pub digest: Option<[u8; 32]>,
    /// Length of what the payload stands for, in bytes, for accounting.
    pub logical_len: u32,
    /// What it costs to make the payload again, in milliseconds; 0 when unknown. Eviction weighs it.
    pub cost_ms: u32,
    /// When the entry was made, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it expires, milliseconds since the Unix epoch; never when `None`.
    pub expires_ms: Option<u64>,
    /// Entries of one space with the same number are of use only together: for want of space they leave together, or not at
    /// all. Two groups that happen upon one number are one group. `None` leaves it to the entry that is replaced, if there is one.
    pub group: Option<NonZeroU32>,
}

/// What must hold for a write to take place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// In any case.
    Always,
    /// If the key is absent.
    Absent,
    /// If the key is present.
    Present,
    /// If the key still holds this put.
    Version(u64),
}

impl Condition {
    pub(crate) fn holds(self, current: Option<&Slot>) -> bool {
        match self {
            Self::Always => true,
            Self::Absent => current.is_none(),
            Self::Present => current.is_some(),
            Self::Version(version) => current.is_some_and(|slot| slot.seq == version),
        }
    }
}

/// What is known of an entry without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The put that made it; grows over all keys.
    pub version: u64,
    /// See [`PutRequest::logical_len`].
    pub logical_len: u32,
    /// Bytes it takes on disk, without rounding to blocks.
    pub stored_bytes: u64,
    /// See [`PutRequest::created_ms`].
    pub created_ms: u64,
    /// See [`PutRequest::expires_ms`].
    pub expires_ms: Option<u64>,
    /// See [`PutRequest::cost_ms`].
    pub cost_ms: u32,
    /// When it was last put or got, milliseconds since the Unix epoch, to the second.
    pub accessed_ms: u64,
    /// Gets since the put or the open, saturating.
    pub hits: u32,
    /// See [`PutRequest::group`].
    pub group: Option<NonZeroU32>,
    /// See [`Store::pin`].
    pub is_pinned: bool,
    /// It was rewritten, see [`Store::rewrite`], or there is nothing to gain by it, see [`Store::leave_as_is`].
    pub is_rewritten: bool,
    /// It has a [`Base`].
    pub is_based: bool,
}

/// An entry as it was put, its check passed.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The caller's head.
    pub head: Bytes,
    /// The payload.
    pub payload: Bytes,
    /// What the payload was stored against.
    pub base: Option<Box<Base>>,
    /// What else is known.
    pub stat: Stat,
    /// Whether its payload lies in a file, and whether its record says that it was rewritten.
    pub(crate) is_external: bool,
    pub(crate) is_rewritten: bool,
}

impl Stored {
    /// How the entry is kept.
    pub(crate) fn form(&self) -> Form {
        let base = self.base.as_ref().map(|base| base.reference);
        Form { base, is_external: self.is_external, is_rewritten: self.is_rewritten }
    }

    /// Notes that it is put again as it is, and refuses to do so twice: no other write came between, so its base cannot be held
    /// once more, and a third time would be no better. After a power cut entries of two spaces may hold one base.
    pub(crate) fn check_not_tried(&self, tried: &mut Option<u64>) -> Result<()> {
        if tried.replace(self.stat.version) == Some(self.stat.version) {
            return Err(StoreError::Corrupt { what: "its base is another space's".to_owned() });
        }
        Ok(())
    }

    /// The put that makes it anew under its key.
    pub(crate) fn again<'a>(&'a self, space: &'a [u8], key: &'a [u8]) -> PutRequest<'a> {
        PutRequest {
            space,
            key,
            head: &self.head,
            payload: &self.payload,
            digest: None,
            logical_len: self.stat.logical_len,
            cost_ms: self.stat.cost_ms,
            created_ms: self.stat.created_ms,
            expires_ms: self.stat.expires_ms,
            group: self.stat.group,
        }
    }
}

/// What a read without waiting gave.
#[derive(Debug)]
pub enum TryGet {
    /// The entry, or that there is none.
    Ready(Option<Stored>),
    /// The medium must be waited for: call [`Store::get`] where blocking is allowed.
    WouldBlock,
}

/// A part of a scan.
#[derive(Debug, Default)]
pub struct ScanPage {
    /// Keys in the order of their hashes.
    pub keys: Vec<(Bytes, Stat)>,
    /// Where to go on; 0 at the end.
    pub next: u64,
}

impl Store {
    /// The entry under `key`, whole and checked.
    ///
    /// # Errors
    /// `Corrupt` once for a damaged entry, which is set aside: later gets are misses. `Io` when the medium fails.
    pub fn get(&self, space: &[u8], key: &[u8]) -> Result<Option<Stored>> {
        match self.inner.get(space, key, Wait::Allowed, Noted::AsUse)? {
            TryGet::Ready(found) => Ok(found),
            TryGet::WouldBlock => Ok(None),
        }
    }

    /// The same, but no use: for whoever only checks.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn peek(&self, space: &[u8], key: &[u8]) -> Result<Option<Stored>> {
        match self.inner.get(space, key, Wait::Allowed, Noted::No)? {
            TryGet::Ready(found) => Ok(found),
            TryGet::WouldBlock => Ok(None),
        }
    }

    /// As [`Store::get`], if it can be had without waiting for the medium.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn try_get(&self, space: &[u8], key: &[u8]) -> Result<TryGet> {
        self.inner.get(space, key, Wait::Never, Noted::AsUse)
    }

    /// What is known of the entry under `key`: a look into memory.
    #[must_use]
    pub fn stat(&self, space: &[u8], key: &[u8]) -> Option<Stat> {
        let hash = key_hash(space, key, self.inner.seed);
        let now_ms = self.inner.options.clock.now_ms();
        self.inner.index.shard(hash).get(hash).filter(|slot| !slot.is_expired(now_ms)).map(stat)
    }

    /// Notes a hit that was served from elsewhere, so that eviction knows of it, and says what is known of the entry.
    #[must_use]
    pub fn touch(&self, space: &[u8], key: &[u8]) -> Option<Stat> {
        let hash = key_hash(space, key, self.inner.seed);
        self.inner.touch(hash, self.inner.options.clock.now_ms()).map(|slot| stat(&slot))
    }

    /// Stores an entry if `condition` holds; gives its version, or `None` if it did not.
    ///
    /// # Errors
    /// `Full`, `TooLarge`, `ReadOnly` or `Io`; the old entry stands then. But for a sync that failed, where the store
    /// waits for one: the new entry stands, and may not survive a power cut.
    pub fn put(&self, request: &PutRequest<'_>, condition: Condition) -> Result<Option<u64>> {
        self.inner.put(request, condition, Purpose::Put, Form::default(), Wait::Allowed)
    }

    /// The same, for whoever may not wait for as long as a walk through all payload files takes: where a put would remove what
    /// a crash left, for what it needs of room, this is refused, and the background begins with that.
    ///
    /// # Errors
    /// `Unswept` then; else as [`Store::put`].
    pub fn try_put(&self, request: &PutRequest<'_>, condition: Condition) -> Result<Option<u64>> {
        self.inner.put(request, condition, Purpose::Put, Form::default(), Wait::Never)
    }

    /// A put whose acknowledgement waits for [`Store::settle`]: every reader sees the entry at once, and a kill may lose it
    /// until then. Many puts staged together go into the log with one system call.
    ///
    /// # Errors
    /// As [`Store::try_put`].
    pub fn stage(&self, request: &PutRequest<'_>, condition: Condition) -> Result<Option<u64>> {
        self.inner.stage(request, condition, Purpose::Put, Form::default())
    }

    /// Makes the staged put that was given `version` as sure as [`Store::put`] makes one. What else is staged goes with
    /// it, so that settling one after the other costs no more than settling the last.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn settle(&self, version: u64) -> Result<()> {
        let settled = self.inner.settle_untidied(version);
        self.inner.note_settled(&settled);
        settled?;
        self.inner.wait_for(version)
    }

    /// Frees the files of what was replaced by then, and says whether there were any. To be called when nobody waits any
    /// longer: a put leaves this to whoever comes first of its caller, a put that needs the room, and the next sync.
    pub fn tidy(&self) -> bool {
        self.inner.tidy()
    }

    /// The same, unless somebody is at it, or has nothing to do.
    pub fn try_tidy(&self) -> bool {
        !self.is_tidy() && self.inner.try_tidy()
    }

    /// Whether [`Store::tidy`] would find nothing.
    #[must_use]
    pub fn is_tidy(&self) -> bool {
        self.inner.untidied.lock().is_empty()
    }

    /// Changes when an entry expires if `condition` holds; gives its new version, or `None`.
    ///
    /// # Errors
    /// As [`Store::put`] and [`Store::get`].
    pub fn set_expiry(
        &self,
        space: &[u8],
        key: &[u8],
        expires_ms: Option<u64>,
        condition: Condition,
    ) -> Result<Option<u64>> {
        let mut tried = None;
        loop {
            let Some(stored) = self.get(space, key)? else { return Ok(None) };
            let is_met = match condition {
                Condition::Always | Condition::Present => true,
                Condition::Absent => false,
                Condition::Version(version) => version == stored.stat.version,
            };
            if !is_met {
                return Ok(None);
            }
            stored.check_not_tried(&mut tried)?;
            let request = PutRequest { expires_ms, ..stored.again(space, key) };
            // Another write may have come between: then the loop looks at what it wrote.
            let condition = Condition::Version(stored.stat.version);
            let form = stored.form();
            if let Some(version) = self.inner.put(&request, condition, Purpose::Put, form, Wait::Allowed)? {
                return Ok(Some(version));
            }
        }
    }

    /// Keeps the entry under `key` from leaving for want of space, and all that its group is with it; says whether there is
    /// one. It counts against the bound, expires and can be deleted as before, and what is put over it is pinned too.
    ///
    /// # Errors
    /// `PinnedFull` when more than half of the bound would be pinned; else as [`Store::put`] and [`Store::get`].
    pub fn pin(&self, space: &[u8], key: &[u8]) -> Result<bool> {
        self.inner.repin(space, key, Purpose::Pin)
    }

    /// Takes the pin of the entry under `key` away; says whether there is an entry.
    ///
    /// # Errors
    /// As [`Store::put`] and [`Store::get`].
    pub fn unpin(&self, space: &[u8], key: &[u8]) -> Result<bool> {
        self.inner.repin(space, key, Purpose::Unpin)
    }

    /// Bounds what the entries of `space` take together, as its usage counts, from now until the store is closed. A space
    /// that would take more loses entries of its own, and no others; a put is refused with `Full` where that is not enough.
    ///
    /// # Errors
    /// `TooLarge` when there are too many spaces.
    pub fn set_quota(&self, space: &[u8], max_bytes: Option<u64>) -> Result<()> {
        self.inner.set_quota(space, max_bytes)
    }

    /// Deletes an entry if `condition` holds, and says whether one was deleted.
    ///
    /// # Errors
    /// `Io` when the deletion cannot be recorded; the entry stands then.
    pub fn delete(&self, space: &[u8], key: &[u8], condition: Condition) -> Result<bool> {
        let hash = key_hash(space, key, self.inner.seed);
        let now_ms = self.inner.options.clock.now_ms();
        let wanted = |slot: &Slot| !slot.is_expired(now_ms) && condition.holds(Some(slot));
        let removed = self.inner.with_room(Wait::Never, || self.inner.remove(hash, wanted))?;
        self.inner.wait_durable()?;
        Ok(removed)
    }

    /// Up to about `limit` keys of `space`, from `cursor` on; 0 starts.
    ///
    /// # Errors
    /// `Io` when the medium fails.
    pub fn scan(&self, space: &[u8], cursor: u64, limit: usize) -> Result<ScanPage> {
        self.inner.scan(space, cursor, limit, |_| true)
    }

    /// Deletes every entry of `space`, and says how many there were.
    ///
    /// # Errors
    /// `Io` when the deletion cannot be recorded; the entries stand then.
    pub fn clear(&self, space: &[u8]) -> Result<u64> {
        self.inner.clear(space)
    }

    /// How much is kept of `space`, or of all.
    #[must_use]
    pub fn usage(&self, space: Option<&[u8]>) -> StoreUsage {
        self.inner.usage(space)
    }

    /// Makes every put so far survive a power cut.
    ///
    /// # Errors
    /// `Io` when the medium fails.
    pub fn sync(&self) -> Result<()> {
        let synced = self.inner.sync_earlier().and_then(|()| self.inner.sync_all());
        synced.map(|_| ()).map_err(StoreError::io("sync", 0))
    }

    /// A number of this store and no other, from its first open on. It tells nothing of what seeds its checks.
    #[must_use]
    pub fn id(&self) -> u64 {
        let digest = blake3::derive_key("pilotlight-store id", &self.inner.seed.to_le_bytes());
        digest.first_chunk().map_or(0, |id| u64::from_le_bytes(*id))
    }

    /// The names of the spaces that hold, or held, entries.
    #[must_use]
    pub fn spaces(&self) -> Vec<Vec<u8>> {
        self.inner.spaces.read().clone()
    }
}

pub(crate) fn stat(slot: &Slot) -> Stat {
    Stat {
        version: slot.seq,
        logical_len: slot.logical_len,
        stored_bytes: slot.stored_bytes(),
        created_ms: slot.created_ms,
        expires_ms: (slot.expires_ms != 0).then_some(slot.expires_ms),
        cost_ms: slot.cost_ms,
        accessed_ms: u64::from(slot.accessed_s) * 1000,
        hits: u32::from(slot.hits),
        group: slot.group_number,
        is_pinned: slot.is_pinned,
        is_rewritten: slot.is_rewritten || slot.is_base,
        is_based: slot.base_len > 0,
    }
}
