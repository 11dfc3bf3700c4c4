//! How an entry is put, and how it goes.

use std::num::NonZeroU32;
use std::sync::atomic::Ordering::Relaxed;

use crate::format::{
    GROUP_LEN, HEAD_LEN_MAX, Header, KEY_LEN_MAX, REF_LEN, ROW_LEN, RecordType, key_hash, payload_check,
};
use crate::holding::{Held, Synced};
use crate::holds::Hold;
use crate::index::{Place, Slot};
use crate::log::Append;
use crate::ops::{Condition, INLINE_MAX, PutRequest};
use crate::pending::Change;
use crate::policy::Standing;
use crate::read::Wait;
use crate::records::space_len;
use crate::rewrite::Form;
use crate::space::{BLOCK, file_bytes};
use crate::store::Inner;
use crate::{Result, StoreError, holding};

/// What an entry is put for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It is new. What is put over a pinned entry is pinned, and over one in a group is in that, unless it brings its own.
    Put,
    Pin,
    Unpin,
    /// It joins this group, which is no use of it.
    Join(NonZeroU32),
}

impl Inner {
    pub(crate) fn put(
        &self,
        request: &PutRequest<'_>,
        condition: Condition,
        purpose: Purpose,
        form: Form,
        wait: Wait,
    ) -> Result<Option<u64>> {
        self.with_room(wait, || {
            let seq = self.try_stage(request, condition, purpose, form, wait)?;
            if let Some(seq) = seq {
                self.settle_untidied(seq)?;
                self.wait_for(seq)?;
            }
            Ok(seq)
        })
    }

    /// A put up to where every reader sees it: it is not acknowledged before it is settled, see [`crate::pending`].
    pub(crate) fn stage(
        &self,
        request: &PutRequest<'_>,
        condition: Condition,
        purpose: Purpose,
        form: Form,
    ) -> Result<Option<u64>> {
        let wait = Wait::Never;
        self.with_room(wait, || self.try_stage(request, condition, purpose, form, wait))
    }

    fn try_stage(
        &self,
        request: &PutRequest<'_>,
        condition: Condition,
        purpose: Purpose,
        form: Form,
        wait: Wait,
    ) -> Result<Option<u64>> {
        self.check_writable()?;
        self.check_sizes(request)?;
        let hash = key_hash(request.space, request.key, self.seed);
        let now_ms = self.options.clock.now_ms();
        let live = |slot: &&Slot| !slot.is_expired(now_ms);
        // Asked again under the lock; asked here so that an unmet put writes no payload file.
        if condition != Condition::Always && !condition.holds(self.index.shard(hash).get(hash).filter(live)) {
            return Ok(None);
        }
        let space_len = space_len(request.space);
        let key: [&[u8]; 3] = [&space_len, request.space, request.key];
        let header = header(request, &form, self.seed);
        let file_len = header.body_offset() + request.payload.len();
        let file_need = if header.is_external { file_bytes(file_len as u64) } else { 0 };
        let mut held = Held::nothing(self);
        // Nobody leaves for a payload that is there.
        let mut new_file = header.is_external.then(|| holding::digest(request));
        if let Some(digest) = new_file
            && held.shared(digest)?
        {
            new_file = None;
        }
        let stored_len =
            header.record_len() + if header.is_external { u64::from(header.payload_len) } else { 0 };
        let _share = self.promise(request.space, stored_len)?;
        let need = header.record_len() + (GROUP_LEN + ROW_LEN + REF_LEN) as u64 + BLOCK;
        let file_need = if new_file.is_some() { file_need } else { 0 };
        let mut reservation = self.reserve(need + file_need, wait)?;
        let space = self.intern_space(request.space)?;
        if let Some(base) = &form.base
            && !held.base(base, space)
        {
            return Ok(None);
        }
        if let Some(digest) = new_file {
            held.written(digest, &header, request, &key, reservation.split(file_need), Synced::AsPut)?;
        }
        let mut append = Append {
            header,
            key: &key,
            head: request.head,
            payload: if header.is_external { &[] } else { request.payload },
            reference: held.payload_reference(),
            hash,
            space,
            is_move: false,
        };
        let mut shard = self.index.shard(hash);
        let old = shard.get(hash).copied();
        if !condition.holds(old.as_ref().filter(live)) {
            return Ok(None);
        }
        let replaced = old.filter(|old| live(&old));
        append.header.is_pinned = match purpose {
            Purpose::Put | Purpose::Join(_) => replaced.is_some_and(|old| old.is_pinned),
            Purpose::Pin => true,
            Purpose::Unpin => false,
        };
        append.header.join(match purpose {
            Purpose::Join(group) => Some(group),
            Purpose::Put | Purpose::Pin | Purpose::Unpin => {
                request.group.or(replaced.and_then(|old| old.group_number))
            }
        });
        if append.header.is_pinned {
            self.check_pinned(old.as_ref(), header.record_len() + ROW_LEN as u64 + file_need)?;
        }
        let change = Change {
            old,
            names_record: true,
            old_files: old.map_or_else(Vec::new, |old| self.files_of(&old)),
            new_files: held.holds.clone(),
            is_rewrite: false,
        };
        // As when it is pinned: the same payload is put again.
        let is_base = old.is_some_and(|old| old.is_base) && change.old_files == change.new_files;
        let (seq, place) = self.log.append(&append, Some(change))?;
        let mut slot = Slot { is_base, ..self.slot(&append, seq, place, replaced.as_ref(), now_ms) };
        if let (Purpose::Join(_), Some(old)) = (purpose, &replaced) {
            (slot.standing, slot.hits, slot.accessed_s) = (old.standing, old.hits, old.accessed_s);
        }
        shard.insert(slot);
        if let Some(old) = &old {
            self.log.note_dead(&old.place);
        }
        self.count(old.as_ref(), Some(&slot));
        drop(shard);
        held.keep();
        self.index.note_expiry(slot.expires_ms, hash);
        self.relieve();
        Ok(Some(seq))
    }

    pub(crate) fn check_sizes(&self, request: &PutRequest<'_>) -> Result<()> {
        let check = |what, size: usize, max: u64| {
            if size as u64 > max {
                return Err(StoreError::TooLarge { what, size_bytes: size as u64, max_bytes: max });
            }
            Ok(())
        };
        check("space", request.space.len(), 255)?;
        check("key", request.key.len() + request.space.len() + 1, KEY_LEN_MAX as u64)?;
        check("head", request.head.len(), HEAD_LEN_MAX as u64)?;
        check("entry", request.payload.len(), self.space.entry_max().min(u64::from(u32::MAX)))
    }

    /// The slot of a put that takes the place of `old`.
    fn slot(&self, append: &Append<'_>, seq: u64, place: Place, old: Option<&Slot>, now_ms: u64) -> Slot {
        let mut slot = Slot {
            hash: append.hash,
            seq,
            expires_ms: append.header.expires_ms,
            created_ms: append.header.created_ms,
            place,
            payload_len: append.header.payload_len,
            logical_len: append.header.logical_len,
            cost_ms: append.header.cost_ms,
            accessed_s: (now_ms / 1000) as u32,
            standing: Standing::default(),
            hits: 0,
            space: append.space,
            group_number: append.header.group,
            is_external: append.header.is_external,
            is_pinned: append.header.is_pinned,
            is_base: false,
            is_rewritten: append.header.is_rewritten,
            base_len: append.header.base.map_or(0, |base| base.payload_len),
        };
        slot.standing = match old {
            Some(old) => self.policy.used(&old.standing, &slot.asset()),
            None => self.policy.enter(slot.policy_hash(), &slot.asset()),
        };
        slot
    }

    /// Removes the entry under `hash` if `wanted` says so of it, with a tombstone, so that no restart brings it back.
    ///
    /// It is gone for everybody before the tombstone is in its file: should that fail, or the process be killed in between,
    /// it is back.
    pub(crate) fn remove(&self, hash: u128, wanted: impl Fn(&Slot) -> bool) -> Result<bool> {
        let Some(seq) = self.stage_removal(hash, wanted)? else { return Ok(false) };
        self.settle(seq)?;
        Ok(true)
    }

    /// The same, but that the tombstone is not in its file yet, and the payload file not free.
    pub(crate) fn stage_removal(&self, hash: u128, wanted: impl Fn(&Slot) -> bool) -> Result<Option<u64>> {
        self.check_writable()?;
        let mut shard = self.index.shard(hash);
        let Some(slot) = shard.get(hash).filter(|slot| wanted(slot)).copied() else { return Ok(None) };
        let key = hash.to_le_bytes();
        let change = Change { old: Some(slot), old_files: self.files_of(&slot), ..Change::default() };
        let key: [&[u8]; 1] = [&key];
        let tombstone = self.removal(RecordType::Tombstone, &key, hash, slot.space);
        let (seq, _) = self.log.append(&tombstone, Some(change))?;
        shard.remove(hash);
        self.log.note_dead(&slot.place);
        self.count(Some(&slot), None);
        Ok(Some(seq))
    }

    pub(crate) fn removal<'a>(
        &self,
        record_type: RecordType,
        key: &'a [&'a [u8]],
        hash: u128,
        space: u16,
    ) -> Append<'a> {
        let header = Header {
            record_type,
            is_external: false,
            is_pinned: false,
            group: None,
            base: None,
            is_rewritten: false,
            key_len: key.iter().map(|part| part.len() as u16).sum(),
            head_len: 0,
            payload_len: 0,
            seq: 0,
            expires_ms: 0,
            logical_len: 0,
            cost_ms: 0,
            created_ms: self.options.clock.now_ms(),
            payload_check: payload_check(&[], self.seed),
        };
        Append { header, key, head: &[], payload: &[], reference: None, hash, space, is_move: false }
    }

    /// Takes an entry that was just removed from the index out of all counts, and says which payload files it held.
    ///
    /// Its shard must still be locked: the cleaner needs that lock to move the record, so the record is where the slot
    /// says.
    pub(crate) fn forget(&self, slot: &Slot) -> Vec<Hold> {
        self.count(Some(slot), None);
        self.log.note_dead(&slot.place);
        self.files_of(slot)
    }

    /// The payload files that an entry holds, by its record. Its shard must be locked.
    pub(crate) fn files_of(&self, slot: &Slot) -> Vec<Hold> {
        if !slot.is_external && slot.base_len == 0 {
            return Vec::new();
        }
        self.log.segment(slot.place.segment).map_or_else(Vec::new, |segment| self.holds(&segment, slot))
    }

    pub(crate) fn release(&self, files: &[Hold]) {
        files.iter().for_each(|file| self.blobs.release(file));
    }

    pub(crate) fn clear(&self, space: &[u8]) -> Result<u64> {
        self.check_writable()?;
        let Some(number) = self.space_number(space) else { return Ok(0) };
        let now_ms = self.options.clock.now_ms();
        // No cleaning meanwhile: a record that it moved behind the clear would outlive the clear in the log, and come
        // back at an open.
        let room = self.room.lock();
        let (seq, _) = self.log.append(&self.removal(RecordType::Clear, &[space], 0, number), None)?;
        self.settle(seq)?;
        if let Some(tally) = self.tallies.read().get(usize::from(number)) {
            tally.cleared_seq.fetch_max(seq, Relaxed);
        }
        let mut cleared = 0;
        for mut shard in self.index.shards_from(0) {
            // What was put after the clear was recorded stays.
            let gone: Vec<Slot> =
                shard.iter().filter(|slot| slot.space == number && slot.seq < seq).copied().collect();
            let mut released = Vec::new();
            for slot in &gone {
                cleared += u64::from(!slot.is_expired(now_ms));
                shard.remove(slot.hash);
                released.push(self.forget(slot));
            }
            drop(shard);
            released.iter().for_each(|files| self.release(files));
        }
        drop(room);
        self.wait_for(seq)?;
        Ok(cleared)
    }

    pub(crate) fn wait_durable(&self) -> Result<()> {
        if self.is_relaxed() { Ok(()) } else { self.wait_for(self.log.last_seq()) }
    }

    pub(crate) fn wait_for(&self, seq: u64) -> Result<()> {
        if self.is_relaxed() {
            return Ok(());
        }
        self.committer.wait(seq).map_err(StoreError::io("sync", 0))
    }
}

pub(crate) fn header(request: &PutRequest<'_>, form: &Form, seed: u64) -> Header {
    Header {
        record_type: RecordType::Put,
        is_external: form.is_external || request.payload.len() > INLINE_MAX,
        is_pinned: false,
        group: request.group,
        base: form.base,
        is_rewritten: form.is_rewritten,
        key_len: (1 + request.space.len() + request.key.len()) as u16,
        head_len: (request.head.len()
            + form.base.map_or(0, |_| REF_LEN)
            + request.group.map_or(0, |_| GROUP_LEN)) as u32,
        payload_len: request.payload.len() as u32,
        seq: 0,
        // 0 says never: what expired at the epoch expired a millisecond later.
        expires_ms: request.expires_ms.map_or(0, |expires_ms| expires_ms.max(1)),
        logical_len: request.logical_len,
        cost_ms: request.cost_ms,
        created_ms: request.created_ms,
        payload_check: payload_check(request.payload, seed),
    }
}
