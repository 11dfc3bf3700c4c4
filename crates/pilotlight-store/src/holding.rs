//! Payload files on their way into an entry.

use std::sync::atomic::Ordering::Relaxed;

use crate::format::{BaseRef, Header, Ref, encode_prefix};
use crate::holds::{Hold, Role};
use crate::ops::PutRequest;
use crate::space::Reservation;
use crate::store::Inner;
use crate::{Result, StoreError};

/// Payload files held for an entry that is not in the index yet; let go if it never gets there.
pub(crate) struct Held<'a> {
    inner: &'a Inner,
    pub(crate) holds: Vec<Hold>,
}

/// Whether a payload file must be down before its entry is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Synced {
    /// As puts of this store are.
    AsPut,
    /// In any case: the entry is an old one.
    Always,
}

impl<'a> Held<'a> {
    pub(crate) fn nothing(inner: &'a Inner) -> Self {
        Self { inner, holds: Vec::new() }
    }

    /// Holds the payload file with this digest, and says whether there is one: it takes no room then.
    pub(crate) fn shared(&mut self, digest: u128) -> Result<bool> {
        let there = self.inner.blobs.hold(digest).map_err(StoreError::io("look at a payload file", 0))?;
        if there.is_some() {
            self.inner.counters.deduplicated.fetch_add(1, Relaxed);
        }
        self.holds.extend(there.map(|reference| Hold { reference, role: Role::Payload }));
        Ok(there.is_some())
    }

    /// Holds a new payload file with the request's bytes.
    pub(crate) fn written(
        &mut self,
        digest: u128,
        header: &Header,
        request: &PutRequest<'_>,
        key: &[&[u8]],
        promised: Reservation<'_>,
        synced: Synced,
    ) -> Result<()> {
        let inner = self.inner;
        let inline = Header { is_external: false, ..*header };
        let mut prefix = Vec::new();
        encode_prefix(&mut prefix, &inline, key, request.head, None, inner.seed);
        let is_synced = synced == Synced::Always || !inner.is_relaxed();
        let reference = inner.blobs.write(digest, &prefix, request.payload, promised, is_synced)?;
        self.holds.push(Hold { reference, role: Role::Payload });
        Ok(())
    }

    /// Holds a base's file, if it is still there.
    pub(crate) fn base(&mut self, base: &BaseRef, space: u16) -> bool {
        let hold = self.inner.blobs.hold_base(base, space);
        self.holds.extend(hold);
        hold.is_some()
    }

    pub(crate) fn payload_reference(&self) -> Option<Ref> {
        self.holds.iter().find(|hold| hold.role == Role::Payload).map(|hold| hold.reference)
    }

    pub(crate) fn keep(mut self) {
        self.holds.clear();
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.inner.release(&self.holds);
    }
}

/// The first half of the payload's BLAKE3: what equal payloads are known by.
pub(crate) fn digest(request: &PutRequest<'_>) -> u128 {
    let digest = request.digest.unwrap_or_else(|| *blake3::hash(request.payload).as_bytes());
    let (half, _) = digest.split_at(16);
    half.try_into().map_or(0, u128::from_be_bytes)
}
