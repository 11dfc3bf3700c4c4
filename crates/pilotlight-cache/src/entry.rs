//! What stands under a key: an artifact and what is known about it.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use crate::envelope::Packed;
use crate::{Error, Result};

/// Bytes that are what their producer made: checked against a digest, or straight from the producer.
///
/// A decoder takes only `Verified` bytes, so nothing that failed a check, or skipped it, can reach one.
#[derive(Clone)]
pub struct Verified {
    bytes: Bytes,
    /// How these bytes lie in the envelope they came from: whoever seals them again need not compress and hash them again.
    packed: Option<Arc<Packed>>,
}

impl Verified {
    /// Bytes handed over by whoever made them, in this process or over a connection of its own.
    #[must_use]
    pub fn from_producer(bytes: Bytes) -> Self {
        Self { bytes, packed: None }
    }

    /// Bytes that came from storage, checked against the digest they were stored with.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with both digests when they differ.
    pub fn by_digest(bytes: Bytes, expected: &Digest) -> Result<Self> {
        let found = Digest::of(&bytes);
        if found == *expected {
            Ok(Self { bytes, packed: None })
        } else {
            Err(Error::Corrupt { what: format!("digest expected {expected}, found {found}") })
        }
    }

    /// For bytes derived from verified ones by a rebuild that was proved exact when they were stored.
    pub(crate) fn rebuilt(bytes: Bytes) -> Self {
        Self { bytes, packed: None }
    }

    /// The same with how they are packed, which the caller vouches for.
    pub(crate) fn packed_as(self, packed: Packed) -> Self {
        Self { packed: Some(Arc::new(packed)), ..self }
    }

    pub(crate) fn packed(&self) -> Option<&Packed> {
        self.packed.as_deref()
    }

    /// What they take in memory, the packed form included where that is not the same bytes.
    pub(crate) fn kept_bytes(&self) -> u64 {
        let other = self.packed().map(|packed| &packed.payload);
        let other = other.filter(|payload| payload.as_ptr() != self.bytes.as_ptr());
        (self.bytes.len() + other.map_or(0, Bytes::len)) as u64
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The bytes, shared.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl PartialEq for Verified {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Verified {}

impl Deref for Verified {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Verified {
    /// The length alone: artifacts never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verified({} bytes)", self.bytes.len())
    }
}

/// BLAKE3-256 of an artifact.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// A digest read from an envelope.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// What is known about an artifact besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// When the entry was put, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it expires, milliseconds since the Unix epoch; never when `None`.
    pub expires_ms: Option<u64>,
    /// What the compiler took to make the artifact, in milliseconds; 0 when unknown. Eviction weighs it.
    pub compile_ms: u32,
    /// What only some entries carry. Behind a pointer: most gets never look at it.
    pub details: Option<Arc<Details>>,
}

/// The rarer metadata. An empty one is written as none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// Who made the artifact (host, torch version), for people.
    pub producer: Option<String>,
    /// What must match for the artifact to be usable: a digest over CPU features, GPU, compiler and versions.
    pub fingerprint: Option<[u8; 32]>,
    /// Hashes of the parts the key was made of, by hash of the part's name: they let a miss name what differs.
    pub components: Vec<(u64, u64)>,
    /// Tells apart the entries of one key.
    pub variant: Option<u64>,
}

/// An artifact and its metadata, as put and got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The bytes exactly as the client put them.
    pub artifact: Verified,
    /// What is known about them.
    pub metadata: Metadata,
}

impl Entry {
    /// An entry straight from a producer, with no expiry. Backends fill in `created_ms` when it is 0.
    #[must_use]
    pub fn new(artifact: impl Into<Bytes>) -> Self {
        Self { artifact: Verified::from_producer(artifact.into()), metadata: Metadata::default() }
    }

    /// The same, expiring at `expires_ms` (milliseconds since the Unix epoch).
    #[must_use]
    pub fn expiring_at(mut self, expires_ms: Option<u64>) -> Self {
        self.metadata.expires_ms = expires_ms;
        self
    }
}

/// Grows with every put that a backend accepts, over all keys: two entries never share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// An entry and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The entry.
    pub entry: Entry,
    /// The put that made it.
    pub version: Version,
    /// The tier that answered, 0 being the fastest.
    pub tier: u8,
}

/// What can be told of an entry without reading its artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The put that made it.
    pub version: Version,
    /// Length of the artifact as the client put it, in bytes.
    pub artifact_len: u64,
    /// What it takes in the backend, in bytes.
    pub stored_bytes: u64,
    /// When it was put, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it expires, milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
    /// When it was last put or got, milliseconds since the Unix epoch, to the second.
    pub accessed_ms: u64,
    /// How often it was got since it was put or the backend was opened, saturating.
    pub hits: u32,
    /// What its compile took, in milliseconds; 0 when unknown.
    pub compile_ms: u32,
}

/// What must hold for a write to take place. Checked and done in one step: no other write comes between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// In any case.
    Always,
    /// If the key is absent (`SET NX`, `If-None-Match: *`).
    Absent,
    /// If the key is present (`SET XX`).
    Present,
    /// If the key still holds this put (compare-and-swap).
    Version(Version),
}

/// What a put did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// Stored, and acknowledged as durably as the backend is set to.
    Stored(Version),
    /// Its precondition did not hold; nothing changed.
    Unmet,
}
