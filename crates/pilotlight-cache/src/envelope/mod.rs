//! The framing around an artifact: version, codec, digest, metadata, and perhaps a signature.
//!
//! The same bytes stand in every tier and go over the wire to the plug-in. An envelope is a *head* and a *payload*; a
//! backend may keep the two apart. All numbers are little-endian.
//!
//! # Head, version 1
//! | offset | bytes | field |
//! |---:|---:|---|
//! | 0 | 4 | magic `PLEv` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | codec of the payload: 0 raw, 1 zstd, 2 zstd that needs a base (on disk alone) |
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
//! Fields: 1 producer (UTF-8); 2 fingerprint (32 bytes); 3 component hashes (pairs of 8 bytes: hash of name, hash of
//! value); 4 variant (8 bytes); 5 what stands before `data`'s text in shape 1; 6 what stands after it; 7 the signer's
//! namespace (UTF-8), in a signed head alone.
//!
//! # What a signature is over
//! `PLsg`, 1 (1 byte), length of the key (4 bytes), the key, then the head up to the 64 bytes, its namespace, algorithm and key id
//! included, with codec, payload length and head check zero: a payload may take another form, its artifact not become another. Of a
//! key that ends in `#v` and 16 hex digits, where a variant is kept, what stands before that is signed: see [`crate::trust`].
//!
//! Who stores a signed entry leaves its head as it is, but for those three: also when it was made stays the signer's word.

mod codec;
mod head;
mod packed;
pub mod recast;
pub(crate) mod signature;
pub(crate) mod squeeze;

use bytes::Bytes;

pub use self::codec::Codec;
use self::head::Head;
pub(crate) use self::packed::Packed;
use self::recast::Frame;
use crate::{Artifact, Details, Digest, Entry, Error, Metadata, Result, Verified};

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
    /// `Corrupt` for bytes that do not begin with a head; [`read`] checks the rest.
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
    pub fn of(entry: &Entry<Verified>) -> Self {
        let (artifact, frame) = match recast::split(&entry.artifact) {
            Some((artifact, frame)) => (Verified::rebuilt(artifact.into()), Some(frame)),
            None => (entry.artifact.clone(), None),
        };
        Self { artifact, frame, metadata: entry.metadata.clone() }
    }

    /// The entry as stock clients see it.
    #[must_use]
    pub fn into_entry(self) -> Entry<Verified> {
        let artifact = match self.frame {
            None => self.artifact,
            Some(frame) => Verified::rebuilt(recast::join(&self.artifact, &frame)),
        };
        Entry { artifact, metadata: self.metadata }
    }
}

/// Puts an entry into its envelope: PyTorch's JSON becomes the artifact inside it, and what compresses is compressed. What
/// is packed already is neither packed nor checked again.
///
/// # Errors
/// `TooLarge` above [`ARTIFACT_LEN_MAX`].
pub fn seal(entry: &Entry) -> Result<Sealed> {
    check_len(entry.artifact.len())?;
    if let Some(packed) = entry.artifact.packed() {
        return packed.seal(&entry.metadata);
    }
    let entry = entry.clone().verify()?;
    // Of something short the frame costs more than it saves.
    if entry.artifact.len() < recast::WORTH_IT_LEN_MIN {
        let Entry { artifact, metadata } = entry;
        return seal_bare(&Bare { artifact, frame: None, metadata });
    }
    seal_bare(&Bare::of(&entry))
}

/// The same for an entry whose JSON is off already.
///
/// # Errors
/// `TooLarge` above [`ARTIFACT_LEN_MAX`].
pub fn seal_bare(bare: &Bare) -> Result<Sealed> {
    check_len(bare.artifact.len() as u64)?;
    Packed::new(&bare.artifact, bare.frame.clone()).seal(&bare.metadata)
}

fn check_len(size_bytes: u64) -> Result<()> {
    let too_large = || Error::TooLarge { what: "artifact", size_bytes, max_bytes: ARTIFACT_LEN_MAX };
    if size_bytes > ARTIFACT_LEN_MAX { Err(too_large()) } else { Ok(()) }
}

/// Takes an entry out of its envelope and leaves its artifact packed: the head, the limit, and every length are checked here,
/// the artifact by [`Artifact::verify`]. So the envelope can be kept and passed on at the price of its head.
///
/// # Errors
/// `Corrupt` for what is no envelope, `Unsupported` for one of a later version, `TooLarge` for an artifact that its head
/// says is above `artifact_len_max` bytes. Nothing was allocated for it then.
pub fn read(sealed: &Sealed, artifact_len_max: u64) -> Result<Entry> {
    let (packed, metadata) = take_apart(sealed, None, artifact_len_max)?;
    Ok(Entry { artifact: Artifact::of_packed(packed), metadata })
}

/// As [`read`], for an entry out of our own store, which may be stored against another one's envelope.
pub(crate) fn read_stored(sealed: &Sealed, base: Option<&Sealed>) -> Result<Entry> {
    let base = base.map(|base| take_apart(base, None, ARTIFACT_LEN_MAX)).transpose()?;
    let (packed, metadata) = take_apart(sealed, base.map(|(packed, _)| packed), ARTIFACT_LEN_MAX)?;
    Ok(Entry { artifact: Artifact::of_packed(packed), metadata })
}

/// Takes an entry out of its envelope, checking the head, every length and the artifact's digest, and leaves PyTorch's
/// JSON off.
///
/// # Errors
/// As [`read`], and `Corrupt` for an artifact that is not what its digest says.
pub fn open_bare(sealed: &Sealed, artifact_len_max: u64) -> Result<Bare> {
    let (packed, metadata) = take_apart(sealed, None, artifact_len_max)?;
    Ok(Bare { artifact: packed.artifact()?, frame: packed.into_frame(), metadata })
}

fn take_apart(sealed: &Sealed, base: Option<Packed>, artifact_len_max: u64) -> Result<(Packed, Metadata)> {
    let head = Head::decode(&sealed.head)?;
    if (head.codec == Codec::Delta) != base.is_some() {
        return Err(Error::Corrupt { what: format!("{:?} payload with or without a base", head.codec) });
    }
    if head.payload_len != sealed.payload.len() as u64 {
        return Err(Error::Corrupt {
            what: format!("payload of {} bytes, expected {}", sealed.payload.len(), head.payload_len),
        });
    }
    if head.artifact_len > artifact_len_max {
        let (size_bytes, max_bytes) = (head.artifact_len, artifact_len_max);
        return Err(Error::TooLarge { what: "artifact", size_bytes, max_bytes });
    }
    codec::check_len(head.codec, &sealed.payload, head.artifact_len)?;
    let Head { codec, artifact_len, digest, frame, created_ms, compile_ms, details, signed_for, .. } = head;
    let signed = signed_for.is_some().then(|| sealed.head.clone());
    let packed =
        Packed::received(codec, sealed.payload.clone(), artifact_len, digest, frame).upon(base).under(signed);
    let details = (details != Details::default()).then(|| details.into());
    Ok((packed, Metadata { created_ms, expires_ms: None, compile_ms, details }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(is_torch_json: bool) -> Entry {
        let artifact = Verified::from_producer(b"artifact ".repeat(1000).into());
        let frame = is_torch_json.then(|| Frame::torch(12));
        Bare { artifact, frame, metadata: Metadata::default() }.into_entry().into()
    }

    #[test]
    fn what_was_read_is_sealed_again_without_being_unpacked() {
        for is_torch_json in [false, true] {
            let entry = entry(is_torch_json);
            let sealed = seal(&entry).unwrap();
            let mut read = read(&Sealed::from_whole(sealed.to_whole()).unwrap(), u64::MAX).unwrap();
            assert_eq!(read.artifact.len(), entry.artifact.len());
            read.metadata.created_ms = 7;
            let again = seal(&read).unwrap();
            assert!(!read.artifact.is_verified());
            assert_eq!(again.payload, sealed.payload);
            assert_ne!(again.head, sealed.head, "what was changed since is in it");
            let bare = open_bare(&again, u64::MAX).unwrap();
            assert_eq!((bare.metadata.created_ms, bare.frame.is_some()), (7, is_torch_json));
            assert_eq!(bare.artifact[..], b"artifact ".repeat(1000)[..]);
            assert_eq!(read.artifact.verify().unwrap(), entry.artifact.verify().unwrap());
            assert!(read.artifact.clone().is_verified());
        }
    }

    #[test]
    fn a_damaged_payload_is_read_and_never_verified_and_vouches_for_no_digest() {
        for artifact in [b"artifact ".repeat(1000), vec![7; 100]] {
            let sealed = seal(&Entry::new(artifact)).unwrap();
            let mut payload = sealed.payload.to_vec();
            *payload.last_mut().unwrap() ^= 1;
            let damaged = Sealed { payload: payload.into(), payload_digest: None, ..sealed };
            let read = read(&damaged, u64::MAX).unwrap();
            for _ in 0..2 {
                assert!(matches!(read.artifact.verify(), Err(Error::Corrupt { .. })));
            }
            assert_eq!(seal(&read).unwrap().payload_digest, None);
            assert!(open_bare(&damaged, u64::MAX).is_err());
        }
    }

    #[test]
    fn an_artifact_above_the_callers_limit_is_refused_before_it_is_unpacked() {
        let sealed = seal(&entry(false)).unwrap();
        for len_max in [0, 8999] {
            assert!(matches!(open_bare(&sealed, len_max), Err(Error::TooLarge { .. })));
            assert!(matches!(read(&sealed, len_max), Err(Error::TooLarge { .. })));
        }
        assert!(open_bare(&sealed, 9000).is_ok());
    }

    #[test]
    fn a_head_that_declares_more_than_its_payload_holds_is_refused_before_anything_is_allocated() {
        for artifact in [vec![0; 9000], vec![7; 100]] {
            let sealed = seal(&Entry::new(artifact)).unwrap();
            for artifact_len in [1 << 40, u64::MAX] {
                let head = Head { artifact_len, ..Head::decode(&sealed.head).unwrap() };
                let lying = Sealed { head: head.encode().into(), ..sealed.clone() };
                assert!(matches!(read(&lying, 1 << 30), Err(Error::TooLarge { .. })));
                assert!(matches!(read(&lying, u64::MAX), Err(Error::Corrupt { .. })));
            }
        }
    }

    #[test]
    fn any_cut_of_an_envelope_is_refused() {
        let whole = seal(&entry(true)).unwrap().to_whole();
        for len in 0..whole.len() {
            let read = Sealed::from_whole(whole.slice(..len)).and_then(|sealed| read(&sealed, u64::MAX));
            assert!(read.is_err(), "{len} of {} bytes", whole.len());
        }
    }
}
