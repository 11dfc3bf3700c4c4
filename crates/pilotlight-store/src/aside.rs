//! How a damaged entry is set aside, and what operators see of it.

use std::sync::atomic::Ordering::Relaxed;

use crate::directory::Access;
use crate::format::{HEAD_LEN_MAX, HEADER_LEN, KEY_LEN_MAX, decode_record, encode_prefix, key_hash};
use crate::holds::Role;
use crate::index::Slot;
use crate::notes::Note;
use crate::ops::{PutRequest, Stored};
use crate::quarantine::Held;
use crate::read::{Noted, Wait};
use crate::records::{space_len, split_key};
use crate::store::{Inner, Store};
use crate::write::header;
use crate::{Result, StoreError};

/// What is told of an entry of which only a file was found.
const NO_NOTE: &str = "no note of it was left";

/// Something that was set aside because it failed its check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Grows from one to the next.
    pub number: u64,
    /// Space and key, where they are known; a key over a kibibyte is cut.
    pub name: Option<(Vec<u8>, Vec<u8>)>,
    /// When, milliseconds since the Unix epoch, where it is known.
    pub when_ms: Option<u64>,
    /// What it took, in bytes.
    pub bytes: u64,
    /// Whether its bytes are kept for a person to look at.
    pub is_kept: bool,
    /// What was expected and found.
    pub reason: String,
}

/// What a purge removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Entries.
    pub count: u64,
    /// What that gave back, in bytes, as `du` counts.
    pub freed_bytes: u64,
}

impl Store {
    /// What was set aside, oldest first.
    #[must_use]
    pub fn quarantine(&self) -> Vec<SetAside> {
        self.inner.quarantine.list().into_iter().map(|held| self.inner.set_aside_of(held)).collect()
    }

    /// Removes what was set aside before `before_ms`, or all of it.
    ///
    /// # Errors
    /// `Io` when some of it cannot be removed; the rest is.
    pub fn purge_quarantine(&self, before_ms: Option<u64>) -> Result<Purged> {
        self.inner.check_writable()?;
        let purged =
            self.inner.quarantine.purge(before_ms).map_err(StoreError::io("purge the quarantine", 0));
        purged.map(|(count, freed_bytes)| Purged { count, freed_bytes })
    }

    /// Sets an entry aside that the caller found damaged although its check passed, if it still is the put that was given
    /// `version`; says whether it was. A copy is kept: the payload itself may be shared by entries that are whole.
    ///
    /// # Errors
    /// As [`Store::delete`].
    pub fn set_aside(&self, space: &[u8], key: &[u8], version: u64, reason: &str) -> Result<bool> {
        let inner = &self.inner;
        inner.check_writable()?;
        let hash = key_hash(space, key, inner.seed);
        let read = inner.get(space, key, Wait::Allowed, Noted::No);
        let stored = match read {
            Ok(crate::TryGet::Ready(Some(stored))) if stored.stat.version == version => Some(stored),
            Ok(_) | Err(_) => None,
        };
        if !inner.with_room(Wait::Allowed, || inner.remove(hash, |slot| slot.seq == version))? {
            return Ok(false);
        }
        inner.counters.quarantined.fetch_add(1, Relaxed);
        let number = stored.as_ref().and_then(|stored| inner.keep_copy(space, key, hash, stored));
        let bytes = stored.map_or(0, |stored| stored.stat.stored_bytes);
        inner.note_aside(number, Some((space, key)), bytes, reason);
        inner.wait_durable()?;
        Ok(true)
    }
}

impl Inner {
    /// Sets a damaged entry aside: its next get is a miss.
    pub(crate) fn set_aside(&self, slot: &Slot, name: Option<(&[u8], &[u8])>, reason: &str) -> Result<()> {
        // Not by its number alone: rewritten meanwhile, it may be whole.
        let is_it = |current: &Slot| (current.seq, current.place) == (slot.seq, slot.place);
        if self.check_writable().is_err() {
            // It stays where it is, and nobody is led to it.
            let mut shard = self.index.shard(slot.hash);
            if shard.get(slot.hash).is_some_and(is_it) {
                shard.remove(slot.hash);
                self.count(Some(slot), None);
                drop(shard);
                self.counters.quarantined.fetch_add(1, Relaxed);
                self.note_aside(None, name, slot.stored_bytes(), reason);
            }
            return Ok(());
        }
        // Its base may be whole, and others need it; and if it is the record that is damaged, so may its payload be.
        let segment = self.log.segment(slot.place.segment);
        let files =
            segment.as_ref().and_then(|segment| self.recorded_holds(segment, slot)).unwrap_or_default();
        let file = files.into_iter().find(|file| file.role == Role::Payload);
        let mut number = file.and_then(|file| self.blobs.quarantine(&file.reference));
        let in_log = match (file, segment) {
            (None, Some(segment)) => {
                self.read_log(&segment, slot.place.offset, slot.place.record_len as usize).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        if self.remove(slot.hash, is_it)? {
            self.counters.quarantined.fetch_add(1, Relaxed);
            if !in_log.is_empty() {
                number = self.quarantine.copy(slot.hash, &[&in_log]);
            }
            self.note_aside(number, name, slot.stored_bytes(), reason);
        }
        Ok(())
    }

    /// Keeps a copy of an entry, framed as a payload file is.
    fn keep_copy(&self, space: &[u8], key: &[u8], hash: u128, stored: &Stored) -> Option<u64> {
        let request: PutRequest<'_> = stored.again(space, key);
        let header =
            crate::format::Header { is_external: false, ..header(&request, &stored.form(), self.seed) };
        let mut prefix = Vec::new();
        encode_prefix(&mut prefix, &header, &[&space_len(space), space, key], &stored.head, None, self.seed);
        self.quarantine.copy(hash, &[&prefix, &stored.payload])
    }

    pub(crate) fn note_aside(
        &self,
        number: Option<u64>,
        name: Option<(&[u8], &[u8])>,
        bytes: u64,
        reason: &str,
    ) {
        tracing::warn!(reason, "a damaged entry was set aside");
        let note = Note {
            number: 0,
            when_ms: self.options.clock.now_ms(),
            bytes,
            name: name.map(|(space, key)| (space.to_vec(), key.to_vec())),
            reason: reason.to_owned(),
        };
        let access = if self.check_writable().is_ok() { Access::Full } else { Access::ReadOnly };
        self.quarantine.note(number, note, access);
    }

    fn set_aside_of(&self, held: Held) -> SetAside {
        let Held { number, note, kept } = held;
        let is_kept = kept.is_some();
        if let Some(note) = note {
            let Note { when_ms, bytes, name, reason, .. } = note;
            return SetAside { number, name, when_ms: Some(when_ms), bytes, is_kept, reason };
        }
        let bytes = kept.as_ref().map_or(0, |(_, len)| *len);
        let name = kept.and_then(|(path, len)| self.name_in(&path, len));
        SetAside { number, name, when_ms: None, bytes, is_kept, reason: NO_NOTE.to_owned() }
    }

    /// Space and key of the record that a file begins with, if that much of it is whole.
    fn name_in(&self, path: &std::path::Path, len: u64) -> Option<(Vec<u8>, Vec<u8>)> {
        let most = (HEADER_LEN + KEY_LEN_MAX + HEAD_LEN_MAX) as u64;
        let mut bytes = vec![0; len.min(most) as usize];
        self.options.media.open(path, false).ok()?.read_at(&mut bytes, 0).ok()?;
        let record = decode_record(&bytes, self.seed)?;
        split_key(record.key).map(|(space, key)| (space.to_vec(), key.to_vec()))
    }
}
