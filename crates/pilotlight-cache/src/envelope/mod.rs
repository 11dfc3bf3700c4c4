//! The framing around an artifact: version, codec, digest, metadata, and room for a signature.
//!
//! The same bytes stand in every tier and go over the wire to the plug-in. An envelope is a *head* and a *payload*; a
//! backend may keep the two apart. All numbers are little-endian.
//!
//! # Head, version 1
//! | offset | bytes | field |
//! |---:|---:|---|
//! | 0 | 4 | magic `PLEv` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | codec of the payload: 0 raw, 1 zstd |
//! | 6 | 1 | shape: 0 the artifact is what the client put; 1 it was the base64 `data` of PyTorch's JSON, see [`recast`] |
//! | 7 | 1 | flags: bit 0, a signature follows the fields; others zero |
//! | 8 | 4 | length of the fields, in bytes |
//! | 12 | 4 | compile time, in milliseconds; 0 when unknown |
//! | 16 | 8 | length of the payload, in bytes |
//! | 24 | 8 | length of the artifact, the payload decoded, in bytes |
//! | 32 | 32 | BLAKE3-256 of the artifact |
//! | 64 | 8 | created, in milliseconds since the Unix epoch |
//! | 72 | 8 | XXH3-64 of the whole head with this field zero |
//! | 80 | | fields: tag (2 bytes), length (4 bytes), value; unknown tags are skipped |
//! | | 96 | signature, if flagged: algorithm (1 byte, 1 = Ed25519), 23 bytes reserved, key id (8 bytes), 64 bytes |
//!
//! A signature is over the head up to it with codec, payload length and head check zero (recompression must not break
//! it), preceded by namespace and key, so that an entry cannot pass for another's. This version carries signatures and
//! does not make them.
//!
//! Fields: 1 producer (UTF-8); 2 fingerprint (32 bytes); 3 component hashes (pairs of 8 bytes: hash of name, hash of
//! value); 4 variant (8 bytes); 5 what stands before `data`'s text in shape 1; 6 what stands after it.

mod codec;
mod head;
pub mod recast;

use bytes::Bytes;

pub use self::codec::Codec;
use self::head::Head;
use self::recast::Frame;
use crate::{Details, Digest, Entry, Error, Metadata, Result, Verified};

/// Longest artifact, in bytes: lengths are kept in 32 bits in places.
pub const ARTIFACT_LEN_MAX: u64 = u32::MAX as u64;

/// An entry in its envelope. The expiry is not part of it: backends keep that beside, where it can change.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// The head.
    pub head: Bytes,
    /// The payload.
    pub payload: Bytes,
    /// The payload's BLAKE3, where it is known: the artifact's, if they are the same bytes.
    pub payload_digest: Option<Digest>,
}

impl Sealed {
    /// Takes apart an envelope that came in one piece.
    ///
    /// # Errors
    /// `Corrupt` for bytes that do not begin with a head; [`open`] checks the rest.
    pub fn from_whole(mut whole: Bytes) -> Result<Self> {
        match head::len(&whole) {
            Some(head_len) if head_len <= whole.len() => {
                let head = whole.split_to(head_len);
                Ok(Self { head, payload: whole, payload_digest: None })
            }
            Some(_) | None => {
                Err(Error::Corrupt { what: format!("envelope: no head in {} bytes", whole.len()) })
            }
        }
    }

    /// The envelope in one piece, as it goes over a wire.
    #[must_use]
    pub fn to_whole(&self) -> Bytes {
        [self.head.as_ref(), self.payload.as_ref()].concat().into()
    }

    /// How long that is, in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an envelope has a head, always")]
    pub fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }
}

/// How some bytes lie in an envelope.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    codec: Codec,
    pub(crate) payload: Bytes,
    /// Of the artifact inside: the bytes themselves, or what their frame stands around.
    artifact_len: u64,
    digest: Digest,
    frame: Option<Frame>,
}

impl Packed {
    fn new(artifact: &Bytes) -> Self {
        let (codec, payload) = codec::encode(artifact);
        let digest = Digest::of(artifact);
        Self { codec, payload, artifact_len: artifact.len() as u64, digest, frame: None }
    }

    /// The envelope, its head made anew: what stands there besides may have changed.
    fn seal(&self, frame: Option<Frame>, metadata: &Metadata) -> Sealed {
        let head = Head {
            codec: self.codec,
            artifact_len: self.artifact_len,
            payload_len: self.payload.len() as u64,
            digest: self.digest,
            created_ms: metadata.created_ms,
            compile_ms: metadata.compile_ms,
            details: metadata.details.as_deref().cloned().unwrap_or_default(),
            frame,
        };
        let payload_digest = (self.codec == Codec::Raw).then_some(self.digest);
        Sealed { head: head.encode().into(), payload: self.payload.clone(), payload_digest }
    }
}

/// An entry as it lies in its envelope: PyTorch's JSON is not around the artifact but beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bare {
    /// What the compiler made.
    pub artifact: Verified,
    /// What stands around it for stock clients, if it has the shape of PyTorch's JSON.
    pub frame: Option<Frame>,
    /// What is known about it.
    pub metadata: Metadata,
}

impl Bare {
    /// The entry with its JSON taken off, if it has one.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        let (artifact, frame) = match recast::split(&entry.artifact) {
            Some((artifact, frame)) => (Verified::rebuilt(artifact.into()), Some(frame)),
            None => (entry.artifact.clone(), None),
        };
        Self { artifact, frame, metadata: entry.metadata.clone() }
    }

    /// The entry as stock clients see it.
    #[must_use]
    pub fn into_entry(self) -> Entry {
        let artifact = match self.frame {
            None => self.artifact,
            Some(frame) => {
                let whole = Verified::rebuilt(recast::join(&self.artifact, &frame));
                match self.artifact.packed() {
                    Some(packed) => whole.packed_as(Packed { frame: Some(frame), ..packed.clone() }),
                    None => whole,
                }
            }
        };
        Entry { artifact, metadata: self.metadata }
    }
}

/// Puts an entry into its envelope: PyTorch's JSON becomes the artifact inside it, and what compresses is compressed.
///
/// # Errors
/// `TooLarge` above [`ARTIFACT_LEN_MAX`].
pub fn seal(entry: &Entry) -> Result<Sealed> {
    check_len(entry.artifact.len())?;
    if let Some(packed) = entry.artifact.packed() {
        return Ok(packed.seal(packed.frame.clone(), &entry.metadata));
    }
    // Of something short the frame costs more than it saves.
    if entry.artifact.len() < recast::WORTH_IT_LEN_MIN {
        let Entry { artifact, metadata } = entry.clone();
        return seal_bare(&Bare { artifact, frame: None, metadata });
    }
    seal_bare(&Bare::of(entry))
}

/// The same for an entry whose JSON is off already.
///
/// # Errors
/// `TooLarge` above [`ARTIFACT_LEN_MAX`].
pub fn seal_bare(bare: &Bare) -> Result<Sealed> {
    let artifact = bare.artifact.bytes();
    check_len(artifact.len())?;
    match bare.artifact.packed().filter(|packed| packed.frame.is_none()) {
        Some(packed) => Ok(packed.seal(bare.frame.clone(), &bare.metadata)),
        None => Ok(Packed::new(artifact).seal(bare.frame.clone(), &bare.metadata)),
    }
}

fn check_len(len: usize) -> Result<()> {
    let too_large =
        || Error::TooLarge { what: "artifact", size_bytes: len as u64, max_bytes: ARTIFACT_LEN_MAX };
    if len as u64 > ARTIFACT_LEN_MAX { Err(too_large()) } else { Ok(()) }
}

/// Takes an entry out of its envelope, checking the head, every length and the artifact's digest.
///
/// # Errors
/// `Corrupt` for bytes that are no whole envelope, `Unsupported` for one of a later version.
pub fn open(sealed: &Sealed, expires_ms: Option<u64>) -> Result<Entry> {
    let mut entry = open_bare(sealed, ARTIFACT_LEN_MAX)?.into_entry();
    entry.metadata.expires_ms = expires_ms;
    Ok(entry)
}

/// The same, leaving PyTorch's JSON off, and refusing what is longer than the caller would hold in memory.
///
/// # Errors
/// As [`open`], and `TooLarge` for an artifact above `artifact_len_max` bytes, before anything is allocated.
pub fn open_bare(sealed: &Sealed, artifact_len_max: u64) -> Result<Bare> {
    let head = Head::decode(&sealed.head)?;
    if head.payload_len != sealed.payload.len() as u64 {
        return Err(Error::Corrupt {
            what: format!("payload of {} bytes, expected {}", sealed.payload.len(), head.payload_len),
        });
    }
    if head.artifact_len > artifact_len_max {
        let (size_bytes, max_bytes) = (head.artifact_len, artifact_len_max);
        return Err(Error::TooLarge { what: "artifact", size_bytes, max_bytes });
    }
    let decoded = codec::decode(head.codec, &sealed.payload, head.artifact_len)?;
    let Head { codec, artifact_len, digest, .. } = head;
    let packed = Packed { codec, payload: sealed.payload.clone(), artifact_len, digest, frame: None };
    let artifact = Verified::by_digest(decoded, &digest)?.packed_as(packed);
    let details = (head.details != Details::default()).then(|| head.details.into());
    let Head { created_ms, compile_ms, frame, .. } = head;
    Ok(Bare { artifact, frame, metadata: Metadata { created_ms, expires_ms: None, compile_ms, details } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(is_torch_json: bool) -> Entry {
        let artifact = Verified::from_producer(b"artifact ".repeat(1000).into());
        let frame = is_torch_json.then(|| Frame::torch(12));
        Bare { artifact, frame, metadata: Metadata::default() }.into_entry()
    }

    #[test]
    fn what_was_opened_is_sealed_again_without_being_packed_again() {
        for is_torch_json in [false, true] {
            let sealed = seal(&entry(is_torch_json)).unwrap();
            let mut opened = open(&Sealed::from_whole(sealed.to_whole()).unwrap(), None).unwrap();
            opened.metadata.created_ms = 7;
            opened.metadata.compile_ms = 12;
            let again = seal(&opened).unwrap();
            assert_eq!(again.payload, sealed.payload);
            assert_ne!(again.head, sealed.head, "what was changed since is in it");
            let bare = open_bare(&again, u64::MAX).unwrap();
            assert_eq!((bare.metadata.created_ms, bare.frame.is_some()), (7, is_torch_json));
            assert_eq!(bare.clone().into_entry(), opened);
            // The bare artifact is packed as it lies there, not as the JSON around it.
            let plain = seal_bare(&Bare { frame: None, ..bare }).unwrap();
            assert_eq!(open(&plain, None).unwrap().artifact[..], b"artifact ".repeat(1000)[..]);
        }
    }

    #[test]
    fn an_artifact_above_the_callers_limit_is_refused_before_it_is_unpacked() {
        let sealed = seal(&entry(false)).unwrap();
        assert!(matches!(open_bare(&sealed, 8999), Err(Error::TooLarge { .. })));
        assert!(open_bare(&sealed, 9000).is_ok());
    }

    #[test]
    fn any_cut_of_an_envelope_is_refused() {
        let whole = seal(&entry(true)).unwrap().to_whole();
        for len in 0..whole.len() {
            let opened = Sealed::from_whole(whole.slice(..len)).and_then(|sealed| open(&sealed, None));
            assert!(opened.is_err(), "{len} of {} bytes", whole.len());
        }
    }
}
