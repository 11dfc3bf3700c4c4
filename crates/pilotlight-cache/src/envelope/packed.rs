//! An artifact as it lies in its envelope.

use std::sync::OnceLock;

use bytes::Bytes;

use super::Sealed;
use super::codec::{self, Codec};
use super::head::Head;
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
        Self { codec, payload, artifact_len, digest, frame, is_own_digest: true, unpacked: OnceLock::new() }
    }

    /// What somebody else packed.
    pub(super) fn received(
        codec: Codec,
        payload: Bytes,
        artifact_len: u64,
        digest: Digest,
        frame: Option<Frame>,
    ) -> Self {
        Self { codec, payload, artifact_len, digest, frame, is_own_digest: false, unpacked: OnceLock::new() }
    }

    /// The envelope, its head made anew: what stands there besides may have changed.
    pub(super) fn seal(&self, metadata: &Metadata) -> Sealed {
        let head = Head {
            codec: self.codec,
            artifact_len: self.artifact_len,
            payload_len: self.payload.len() as u64,
            digest: self.digest,
            created_ms: metadata.created_ms,
            compile_ms: metadata.compile_ms,
            details: metadata.details.as_deref().cloned().unwrap_or_default(),
            frame: self.frame.clone(),
        };
        // Equal payloads are stored once, by their digest: a claimed one could put other bytes under somebody's artifact.
        let is_known = self.codec == Codec::Raw && (self.is_own_digest || self.is_unpacked());
        let payload_digest = is_known.then_some(self.digest);
        Sealed { head: head.encode().into(), payload: self.payload.clone(), payload_digest }
    }

    /// The artifact inside, unpacked and checked.
    pub(super) fn artifact(&self) -> Result<Verified> {
        let artifact = codec::decode(self.codec, &self.payload, self.artifact_len)?;
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
        self.payload.len() as u64 + if is_same { 0 } else { self.len() }
    }

    pub(super) fn into_frame(self) -> Option<Frame> {
        self.frame
    }
}
