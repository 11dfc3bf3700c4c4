//! What stands under a key: an artifact and what is known about it.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use crate::envelope::Packed;
use crate::{Error, Result};

/// Bytes that are what their producer made: checked against a digest, or straight from the producer.
///
/// A decoder takes only `Verified` bytes, so nothing that failed a check, or skipped it, can reach one.
#[derive(Clone, PartialEq, Eq)]
pub struct Verified(Bytes);

impl Verified {
    /// Bytes handed over by whoever made them, in this process or over a connection of its own.
    #[must_use]
    pub fn from_producer(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Bytes that came from storage, checked against the digest they were stored with.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with both digests when they differ.
    pub fn by_digest(bytes: Bytes, expected: &Digest) -> Result<Self> {
        let found = Digest::of(&bytes);
        if found == *expected {
            Ok(Self(bytes))
        } else {
            Err(Error::Corrupt { what: format!("digest expected {expected}, found {found}") })
        }
    }

    /// For bytes derived from verified ones by a rebuild that was proved exact when they were stored.
    pub(crate) fn rebuilt(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The bytes, shared.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl Deref for Verified {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Verified {
    /// The length alone: artifacts never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verified({} bytes)", self.0.len())
    }
}

/// An artifact as a backend keeps and hands it on: bytes from their producer, or still packed as in their envelope.
///
/// It gives its bytes to nobody but through [`Artifact::verify`]: what is packed may be damaged, and whoever only passes the
/// envelope on need neither unpack nor hash it.
#[derive(Clone)]
pub struct Artifact(Form);

#[derive(Clone)]
enum Form {
    Plain(Verified),
    Packed(Arc<Packed>),
}

impl Artifact {
    pub(crate) fn of_packed(packed: Packed) -> Self {
        Self(Form::Packed(Arc::new(packed)))
    }

    /// The bytes as the client put them. What was packed is unpacked and checked once; its clones share that.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is damaged, each time.
    pub fn verify(&self) -> Result<Verified> {
        match &self.0 {
            Form::Plain(artifact) => Ok(artifact.clone()),
            Form::Packed(packed) => packed.unpacked(),
        }
    }

    /// Whether [`Artifact::verify`] costs nothing any more.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        match &self.0 {
            Form::Plain(_) => true,
            Form::Packed(packed) => packed.is_unpacked(),
        }
    }

    /// Whether its envelope can be passed on at the price of its head: not before [`Artifact::make_portable`], where it is
    /// stored against another artifact.
    #[must_use]
    pub fn is_portable(&self) -> bool {
        match &self.0 {
            Form::Plain(_) => true,
            Form::Packed(packed) => packed.is_portable(),
        }
    }

    /// Unpacks it and packs it anew, if it takes that to pass it on; its clones share what comes of it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is damaged, each time.
    pub fn make_portable(&self) -> Result<()> {
        match &self.0 {
            Form::Plain(_) => Ok(()),
            Form::Packed(packed) => packed.make_portable(),
        }
    }

    /// How long it is as the client put it, in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> u64 {
        match &self.0 {
            Form::Plain(artifact) => artifact.len() as u64,
            Form::Packed(packed) => packed.len(),
        }
    }

    /// The signed head that it came under, if any: what a signature is checked on, and what is passed on as it is.
    pub(crate) fn signed(&self) -> Option<&Bytes> {
        self.packed()?.signed()
    }

    /// What its head says that its digest is, if it is packed.
    #[cfg(feature = "client")]
    pub(crate) fn digest(&self) -> Option<&Digest> {
        Some(self.packed()?.digest())
    }

    /// Whether it is the same artifact, by digest.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Form::Packed(one), Form::Packed(other)) => one.is_same(other),
            (Form::Plain(one), Form::Plain(other)) => one == other,
            (Form::Plain(_), Form::Packed(_)) | (Form::Packed(_), Form::Plain(_)) => {
                matches!((self.verify(), other.verify()), (Ok(one), Ok(other)) if one == other)
            }
        }
    }

    pub(crate) fn packed(&self) -> Option<&Packed> {
        match &self.0 {
            Form::Plain(_) => None,
            Form::Packed(packed) => Some(packed),
        }
    }

    /// What it may come to take in memory: the packed form, and the unpacked one where those are not the same bytes.
    pub(crate) fn kept_bytes(&self) -> u64 {
        match &self.0 {
            Form::Plain(artifact) => artifact.len() as u64,
            Form::Packed(packed) => packed.kept_bytes(),
        }
    }
}

impl From<Verified> for Artifact {
    fn from(artifact: Verified) -> Self {
        Self(Form::Plain(artifact))
    }
}

impl fmt::Debug for Artifact {
    /// The length alone: artifacts never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Artifact({} bytes)", self.len())
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

/// An artifact and its metadata, as put and got: checked where it says [`Verified`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<A = Artifact> {
    /// What the client put.
    pub artifact: A,
    /// What is known about them.
    pub metadata: Metadata,
}

impl Entry {
    /// An entry straight from a producer, with no expiry. Backends fill in `created_ms` when it is 0.
    #[must_use]
    pub fn new(artifact: impl Into<Bytes>) -> Self {
        Self { artifact: Verified::from_producer(artifact.into()).into(), metadata: Metadata::default() }
    }

    /// The same, expiring at `expires_ms` (milliseconds since the Unix epoch).
    #[must_use]
    pub fn expiring_at(mut self, expires_ms: Option<u64>) -> Self {
        self.metadata.expires_ms = expires_ms;
        self
    }
}

impl Entry {
    /// The same with its artifact checked.
    ///
    /// # Errors
    /// As [`Artifact::verify`].
    pub fn verify(self) -> Result<Entry<Verified>> {
        Ok(Entry { artifact: self.artifact.verify()?, metadata: self.metadata })
    }
}

impl From<Entry<Verified>> for Entry {
    fn from(entry: Entry<Verified>) -> Self {
        Self { artifact: entry.artifact.into(), metadata: entry.metadata }
    }
}

impl Found {
    /// The same with its artifact checked.
    ///
    /// # Errors
    /// As [`Artifact::verify`].
    pub fn verify(self) -> Result<Found<Verified>> {
        let Self { entry, version, tier } = self;
        Ok(Found { entry: entry.verify()?, version, tier })
    }
}

/// Grows with every put that a backend accepts, over all keys: two entries never share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// An entry and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<A = Artifact> {
    /// The entry.
    pub entry: Entry<A>,
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
    /// Whether it is kept from eviction.
    pub is_pinned: bool,
    /// The group that it is evicted with; the number means something within a namespace.
    pub group: Option<NonZeroU32>,
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
