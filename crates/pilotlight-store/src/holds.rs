//! Who holds which payload file, and as what.
//!
//! A file is there for as long as anybody holds it. Whoever holds its payload accounts for its bytes; when all that are left
//! hold it as their base, nobody does, and the space that they are in has orphaned bytes.

use std::collections::HashMap;

use crate::format::Ref;

/// What a file is to the entry that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Payload,
    Base,
}

/// A hold of an entry on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) reference: Ref,
    pub(crate) role: Role,
}

/// All files that anybody holds.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    blobs: HashMap<u128, Blob>,
    /// Bytes of payloads that are nobody's but as bases, by the space of those who need them.
    orphaned: HashMap<u16, u64>,
}

/// What is known of one file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blob {
    pub(crate) generation: u64,
    pub(crate) payload_offset: u32,
    pub(crate) len: u64,
    /// Holds on it.
    pub(crate) refs: u32,
    /// Those among them as a base.
    pub(crate) bases: u32,
    /// Of the entries that hold it as a base.
    pub(crate) space: u16,
    /// Readers at it.
    pub(crate) pins: u32,
    /// Whether the file is known to be as long as it must be: else that is only what records say.
    pub(crate) is_whole: bool,
}

impl Blob {
    /// One of which only records tell.
    pub(crate) fn new(reference: &Ref, len: u64) -> Self {
        let Ref { generation, payload_offset, .. } = *reference;
        Self { generation, payload_offset, len, refs: 0, bases: 0, space: 0, pins: 0, is_whole: false }
    }

    /// Bytes that no entry's payload accounts for.
    fn orphaned(&self) -> u64 {
        let is_orphaned = self.bases > 0 && self.bases == self.refs;
        if is_orphaned { self.len - u64::from(self.payload_offset) } else { 0 }
    }

    /// An entry of `space` takes hold of it.
    pub(crate) fn take(&mut self, role: Role, space: u16) {
        self.refs += 1;
        if role == Role::Base {
            self.bases += 1;
            self.space = space;
        }
    }

    pub(crate) fn let_go(&mut self, role: Role) {
        self.refs -= 1;
        self.bases -= u32::from(role == Role::Base);
    }
}

impl Holds {
    pub(crate) fn get(&self, digest: u128) -> Option<&Blob> {
        self.blobs.get(&digest)
    }

    pub(crate) fn get_mut(&mut self, digest: u128) -> Option<&mut Blob> {
        self.blobs.get_mut(&digest)
    }

    pub(crate) fn len(&self) -> usize {
        self.blobs.len()
    }

    /// Digest and generation of each.
    pub(crate) fn names(&self) -> impl Iterator<Item = (u128, u64)> {
        self.blobs.iter().map(|(digest, blob)| (*digest, blob.generation))
    }

    pub(crate) fn orphaned_bytes(&self, space: u16) -> u64 {
        self.orphaned.get(&space).copied().unwrap_or(0)
    }

    /// A file that nobody held.
    pub(crate) fn insert(&mut self, digest: u128, blob: Blob) {
        self.blobs.insert(digest, blob);
    }

    /// Changes the blob if it is of this generation, and says what it is then.
    pub(crate) fn change(&mut self, reference: &Ref, change: impl FnOnce(&mut Blob)) -> Option<Blob> {
        let blob = self.blobs.get_mut(&reference.digest)?;
        if blob.generation != reference.generation {
            return None;
        }
        let before = blob.orphaned();
        change(blob);
        let changed = *blob;
        self.note_orphaned(changed.space, before, changed.orphaned());
        Some(changed)
    }

    pub(crate) fn remove(&mut self, digest: u128) -> Option<Blob> {
        let blob = self.blobs.remove(&digest)?;
        self.note_orphaned(blob.space, blob.orphaned(), 0);
        Some(blob)
    }

    fn note_orphaned(&mut self, space: u16, before: u64, after: u64) {
        if before != after {
            let bytes = self.orphaned.entry(space).or_default();
            *bytes = (*bytes + after).saturating_sub(before);
        }
    }
}
