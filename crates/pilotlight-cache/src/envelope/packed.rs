//! An artifact as it lies in its envelope.

use std::sync::OnceLock;

use bytes::Bytes;

use super::Sealed;
use super::codec::{self, Codec};
use super::head::{self, Head};
use super::recast::{self, Frame};
use crate::{Digest, Metadata, Result, Verified};

/// How an artifact lies in an envelope. Its payload is unchecked until it is unpacked.
#[derive(Debug)]
pub(crate) struct Packed {
    codec: Codec,
    payload: Bytes,
    /// Of the artifact inside: the bytes themselves, or what their frame stands around.
    artifact_len: u64,
    digest: Digest,
    frame: Option<Frame>,
    /// What it takes to unpack a [`Codec::Delta`].
    base: Option<Box<Packed>>,
    /// Codec and payload of the same artifact without a base, once somebody asked for them.
    portable: OnceLock<(Codec, Bytes)>,
    /// The head that it came under, if that is signed: it stays as it is.
    signed: Option<Bytes>,
    /// Whether `digest` was made here from these bytes, and not only claimed by a head.
    is_own_digest: bool,
    /// The artifact as stock clients see it, once somebody asked for it.
    unpacked: OnceLock<Verified>,
}

impl Packed {
    /// Packs an artifact.
    pub(super) fn new(artifact: &Verified, frame: Option<Frame>) -> Self {
        let (codec, payload) = codec::encode(artifact.bytes());
        let artifact_len = artifact.len() as u64;
        let digest = Digest::of(artifact);
        let received = Self::received(codec, payload, artifact_len, digest, frame);
        Self { is_own_digest: true, ..received }
    }

    /// What somebody else packed.
    pub(super) fn received(
        codec: Codec,
        payload: Bytes,
        artifact_len: u64,
        digest: Digest,
        frame: Option<Frame>,
    ) -> Self {
        Self {
            codec,
            payload,
            artifact_len,
            digest,
            frame,
            base: None,
            portable: OnceLock::new(),
            signed: None,
            is_own_digest: false,
            unpacked: OnceLock::new(),
        }
    }

    /// The same, stored against another artifact.
    pub(super) fn upon(self, base: Option<Self>) -> Self {
        Self { base: base.map(Box::new), ..self }
    }

    /// The same, under the signed head that it came with.
    pub(super) fn under(self, signed: Option<Bytes>) -> Self {
        Self { signed, ..self }
    }

    /// The signed head, if there is one.
    pub(crate) fn signed(&self) -> Option<&Bytes> {
        self.signed.as_ref()
    }

    /// Codec and payload for whoever has no base: packed anew if need be, the first time.
    fn portable(&self) -> Result<(Codec, Bytes)> {
        if self.base.is_none() {
            return Ok((self.codec, self.payload.clone()));
        }
        if let Some(portable) = self.portable.get() {
            return Ok(portable.clone());
        }
        let portable = codec::encode(self.artifact()?.bytes());
        Ok(self.portable.get_or_init(|| portable).clone())
    }

    /// Has [`Packed::seal`] cost no more than its head from here on.
    pub(crate) fn make_portable(&self) -> Result<()> {
        self.portable().map(drop)
    }

    pub(crate) fn is_portable(&self) -> bool {
        self.base.is_none() || self.portable.get().is_some()
    }

    /// The envelope, its head made anew, as what stands there besides may have changed; a signed one is the signer's.
    pub(super) fn seal(&self, metadata: &Metadata) -> Result<Sealed> {
        let (codec, payload) = self.portable()?;
        // Equal payloads are stored once, by their digest: a claimed one could put other bytes under somebody's artifact.
        let is_known = codec == Codec::Raw && (self.is_own_digest || self.is_unpacked());
        let payload_digest = is_known.then_some(self.digest);
        if let Some(signed) = &self.signed {
            let head = head::for_payload(signed, codec, payload.len() as u64).into();
            return Ok(Sealed { head, payload, payload_digest });
        }
        let head = Head {
            codec,
            artifact_len: self.artifact_len,
            payload_len: payload.len() as u64,
            digest: self.digest,
            created_ms: metadata.created_ms,
            compile_ms: metadata.compile_ms,
            details: metadata.details.as_deref().cloned().unwrap_or_default(),
            frame: self.frame.clone(),
            signed_for: None,
        };
        Ok(Sealed { head: head.encode().into(), payload, payload_digest })
    }

    /// The artifact inside, unpacked and checked.
    pub(super) fn artifact(&self) -> Result<Verified> {
        let decode = |packed: &Self, base: Option<&[u8]>| {
            codec::decode(packed.codec, &packed.payload, packed.artifact_len, base)
        };
        // The base's own digest need not be checked: what comes of a wrong one fails this one's.
        let base = self.base.as_deref().map(|base| decode(base, None)).transpose()?;
        let artifact = decode(self, base.as_deref())?;
        Verified::by_digest(artifact, &self.digest)
    }

    /// The artifact as stock clients see it, unpacked and checked the first time.
    pub(crate) fn unpacked(&self) -> Result<Verified> {
        if let Some(unpacked) = self.unpacked.get() {
            return Ok(unpacked.clone());
        }
        let artifact = self.artifact()?;
        let unpacked = match &self.frame {
            None => artifact,
            Some(frame) => Verified::rebuilt(recast::join(&artifact, frame)),
        };
        Ok(self.unpacked.get_or_init(|| unpacked).clone())
    }

    /// Whether both heads speak of the same artifact in the same shape.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.digest, self.artifact_len, &self.frame) == (other.digest, other.artifact_len, &other.frame)
    }

    pub(crate) fn is_unpacked(&self) -> bool {
        self.unpacked.get().is_some()
    }

    /// How long that is, in bytes, by what the head says.
    pub(crate) fn len(&self) -> u64 {
        self.frame.as_ref().map_or(self.artifact_len, |frame| recast::joined_len(self.artifact_len, frame))
    }

    pub(crate) fn kept_bytes(&self) -> u64 {
        let is_same = self.codec == Codec::Raw && self.frame.is_none();
        let unpacked = if is_same { 0 } else { self.len() };
        // What is packed anew is seldom more than a third.
        let base = self.base.as_deref().map_or(0, |base| base.payload.len() as u64 + self.artifact_len / 3);
        self.payload.len() as u64 + unpacked + base
    }

    /// The artifact's digest, by what the head says.
    #[cfg(feature = "client")]
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(super) fn into_frame(self) -> Option<Frame> {
        self.frame
    }
}
