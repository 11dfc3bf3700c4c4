//! Entries that are made smaller where they are, and payloads that are stored against others.
//!
//! A rewrite changes how an entry is kept and nothing else of it: its version, times, uses and pin stay. Its record is
//! appended again with another head and payload under the number it had, as the cleaner moves one, so that a crash leaves the
//! old form or the new one. What the old form holds is let go when the new one is down, `relaxed` or not: the entry may be as
//! old as the store.
//!
//! The new payload may need another to be read: its *base*, a payload in a file, which the entry holds like its own. The base
//! stays on the disk while anybody needs it, whatever becomes of the entry it came with. A base never has a base itself. What a
//! payload and its base make together is the caller's affair.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use crate::format::{BaseRef, Header, REF_LEN, ROW_LEN, key_hash};
use crate::holding::{Held, Synced};
use crate::index::Slot;
use crate::log::Append;
use crate::ops::{PutRequest, ScanPage, Stat, TryGet};
use crate::pending::Change;
use crate::read::{Noted, Wait};
use crate::records::space_len;
use crate::space::{BLOCK, file_bytes};
use crate::store::{Inner, Store};
use crate::write::header;
use crate::{Result, StoreError};
use crate::{directory, holding};

/// A payload that others are stored against.
#[derive(Debug, Clone)]
pub struct Base {
    /// The head it came with.
    pub head: Bytes,
    /// The payload.
    pub payload: Bytes,
    pub(crate) reference: BaseRef,
    /// Hash and number of the entry it was taken from.
    pub(crate) owner: Option<(u128, u64)>,
}

/// An entry's new form.
#[derive(Debug, Clone)]
pub struct Rewrite<'a> {
    /// See [`PutRequest::space`].
    pub space: &'a [u8],
    /// See [`PutRequest::key`].
    pub key: &'a [u8],
    /// The put that made the entry.
    pub version: u64,
    /// In place of its head.
    pub head: &'a [u8],
    /// In place of its payload.
    pub payload: &'a [u8],
    /// What it takes to read the payload.
    pub base: Option<&'a Base>,
}

/// How an entry is kept, apart from its bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Form {
    pub(crate) base: Option<BaseRef>,
    /// The payload lies in a file however short it is.
    pub(crate) is_external: bool,
    pub(crate) is_rewritten: bool,
}

impl Store {
    /// Keeps an entry in another form from now on, if it is still the one that `version` made; says whether it is. Its version
    /// stays. Entries are not evicted for this: without room for both forms nothing changes. Nor does it if the entry is a base.
    ///
    /// # Errors
    /// As [`Store::put`]; the old form stands then.
    pub fn rewrite(&self, rewrite: &Rewrite<'_>) -> Result<bool> {
        let form =
            Form { base: rewrite.base.map(|base| base.reference), is_external: false, is_rewritten: true };
        self.inner.rewrite(rewrite, form)
    }

    /// The payload of an entry as a base for others, if it is still the one that `version` made and has no base itself. It is
    /// moved into a file of its own if it is not in one.
    ///
    /// # Errors
    /// As [`Store::put`] and [`Store::get`].
    pub fn base(&self, space: &[u8], key: &[u8], version: u64) -> Result<Option<Base>> {
        self.inner.base(space, key, version)
    }

    /// As [`Store::scan`], of those keys alone that are `wanted` by what is known of their entries. A page may be empty and not
    /// the last.
    ///
    /// # Errors
    /// `Io` when the medium fails.
    pub fn scan_for(
        &self,
        space: &[u8],
        cursor: u64,
        limit: usize,
        wanted: impl Fn(&Stat) -> bool,
    ) -> Result<ScanPage> {
        self.inner.scan(space, cursor, limit, wanted)
    }

    /// Whether there is room for a new form of so many bytes beside the old one. Else it need not be made.
    #[must_use]
    pub fn has_room_to_spare(&self, bytes: u64) -> bool {
        self.inner.space.try_reserve_spare(file_bytes(bytes)).is_some()
    }

    /// Notes until the store is closed that there is nothing to gain by rewriting an entry.
    pub fn leave_as_is(&self, space: &[u8], key: &[u8], version: u64) {
        let hash = key_hash(space, key, self.inner.seed);
        if let Some(slot) = self.inner.index.shard(hash).get_mut(hash).filter(|slot| slot.seq == version) {
            slot.is_rewritten = true;
        }
    }
}

impl Inner {
    fn base(&self, space: &[u8], key: &[u8], version: u64) -> Result<Option<Base>> {
        let hash = key_hash(space, key, self.seed);
        let slot = || self.index.shard(hash).get(hash).filter(|slot| slot.seq == version).copied();
        let Some(found) = slot() else { return Ok(None) };
        if found.base_len > 0 || found.payload_len == 0 {
            return Ok(None);
        }
        if !found.is_external {
            let TryGet::Ready(Some(stored)) = self.get(space, key, Wait::Allowed, Noted::No)? else {
                return Ok(None);
            };
            let (head, payload) = (&stored.head[..], &stored.payload[..]);
            let form = Form { is_external: true, ..stored.form() };
            let rewrite = Rewrite { space, key, version, head, payload, base: None };
            if stored.stat.version != version || !self.rewrite(&rewrite, form)? {
                return Ok(None);
            }
        }
        slot().map_or(Ok(None), |slot| self.as_base(&slot))
    }

    fn rewrite(&self, rewrite: &Rewrite<'_>, form: Form) -> Result<bool> {
        self.check_writable()?;
        let Rewrite { space, key, version, head, payload, .. } = *rewrite;
        let hash = key_hash(space, key, self.seed);
        let now_ms = self.options.clock.now_ms();
        let is_meant = |slot: &&Slot| slot.seq == version && !slot.is_expired(now_ms) && !slot.is_base;
        let Some(slot) = self.index.shard(hash).get(hash).filter(is_meant).copied() else { return Ok(false) };
        let request = request_for(&slot, rewrite);
        self.check_sizes(&request)?;
        let header =
            Header { seq: slot.seq, is_pinned: slot.is_pinned, ..header(&request, &form, self.seed) };
        let file_need =
            if header.is_external { file_bytes((header.body_offset() + payload.len()) as u64) } else { 0 };
        let need = header.record_len() + (ROW_LEN + REF_LEN) as u64 + BLOCK + file_need;
        let Some(mut reservation) = self.space.try_reserve_spare(need) else { return Ok(false) };
        self.raise_format()?;
        let mut held = Held::nothing(self);
        let space_len = space_len(space);
        let key: [&[u8]; 3] = [&space_len, space, key];
        if form.base.is_some_and(|base| !held.base(&base, slot.space)) {
            return Ok(false);
        }
        if header.is_external {
            let digest = holding::digest(&request);
            if !held.shared(digest)? {
                held.written(digest, &header, &request, &key, reservation.split(file_need), Synced::Always)?;
            }
        }
        if !held.holds.is_empty() {
            // What the new form needs is down before an open could take it for the entry.
            self.sync_files().map_err(StoreError::io("sync", 0))?;
        }
        let append = Append {
            header,
            key: &key,
            head,
            payload: if header.is_external { &[] } else { payload },
            reference: held.payload_reference(),
            hash,
            space: slot.space,
            is_move: true,
        };
        let Some(saved) = self.append_rewritten(append, &slot, held)? else { return Ok(false) };
        self.flush().map_err(StoreError::io("append to the log", 0))?;
        if let Some((hash, seq)) = rewrite.base.and_then(|base| base.owner) {
            self.note_base(hash, seq);
        }
        // A base that is moved into a file is no smaller.
        if !form.is_external {
            self.counters.rewritten.fetch_add(1, Relaxed);
            self.counters.rewritten_bytes.fetch_add(saved, Relaxed);
        }
        Ok(true)
    }

    /// Appends the entry's new form if it is still kept in the old one, and says how many bytes that saves.
    fn append_rewritten(&self, append: Append<'_>, known: &Slot, held: Held<'_>) -> Result<Option<u64>> {
        // As for the cleaner, no clear meanwhile: see there.
        let _room = self.room.lock();
        let mut shard = self.index.shard(append.hash);
        let is_same =
            |slot: &&Slot| slot.seq == known.seq && slot.payload_len == known.payload_len && !slot.is_base;
        let Some(old) = shard.get(append.hash).filter(is_same).copied() else { return Ok(None) };
        let change = Change {
            old: Some(old),
            names_record: true,
            old_files: self.files_of(&old),
            new_files: held.holds.clone(),
            is_rewrite: true,
        };
        let (_, place) = self.log.append(&append, Some(change))?;
        let Header { payload_len, is_external, is_rewritten, base, .. } = append.header;
        let base_len = base.map_or(0, |base| base.payload_len);
        let is_rewritten = is_rewritten || old.is_rewritten;
        let mut slot = Slot { place, payload_len, is_external, is_rewritten, base_len, ..old };
        slot.standing = self.policy.resized(&old.standing, &old.asset(), &slot.asset());
        shard.insert(slot);
        self.log.note_dead(&old.place);
        self.count(Some(&old), Some(&slot));
        drop(shard);
        held.keep();
        Ok(Some(old.stored_bytes().saturating_sub(slot.stored_bytes())))
    }

    /// Notes that the entry's payload is another's base.
    fn note_base(&self, hash: u128, seq: u64) {
        let mut shard = self.index.shard(hash);
        if let Some(slot) = shard.get_mut(hash).filter(|slot| slot.seq == seq && !slot.is_base) {
            let before = slot.asset();
            slot.is_base = true;
            slot.standing = self.policy.resized(&slot.standing, &before, &slot.asset());
        }
    }

    /// Has FORMAT say that something was rewritten, before anything is.
    fn raise_format(&self) -> Result<()> {
        let mut is_rewritable = self.is_rewritable.lock();
        if !*is_rewritable {
            let raised = directory::raise(&*self.options.media, &self.options.dir);
            raised.map_err(StoreError::io("write FORMAT", 1))?;
            *is_rewritable = true;
        }
        Ok(())
    }
}

fn request_for<'a>(slot: &Slot, rewrite: &Rewrite<'a>) -> PutRequest<'a> {
    PutRequest {
        space: rewrite.space,
        key: rewrite.key,
        head: rewrite.head,
        payload: rewrite.payload,
        digest: None,
        logical_len: slot.logical_len,
        cost_ms: slot.cost_ms,
        created_ms: slot.created_ms,
        expires_ms: (slot.expires_ms != 0).then_some(slot.expires_ms),
        group: slot.group_number,
    }
}
