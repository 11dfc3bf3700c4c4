//! The bytes of a frame, and of what stands before the first.

use std::io::{self, Write};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

/// What a file begins with.
pub(super) const FILE_MAGIC: [u8; 8] = *b"PLexport";
/// Version 1 knows no groups.
pub(super) const VERSION: u32 = 2;
pub(super) const PREAMBLE_LEN: usize = 16;
pub(super) const HEAD_LEN: usize = 64;
const MAGIC: [u8; 4] = *b"PLxf";
/// Where the head's own check is, and the frame's digest behind it.
const CHECK_AT: usize = 24;
const DIGEST_AT: usize = 32;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameType {
    /// What was exported, and from where: JSON. The first frame.
    About = 1,
    /// An entry.
    Entry = 2,
    /// How far the export was: it can go on from here.
    Mark = 3,
    /// What all of it comes to. The last frame.
    End = 4,
}

impl FrameType {
    fn of_number(number: u8) -> Option<Self> {
        [Self::About, Self::Entry, Self::Mark, Self::End].into_iter().find(|known| *known as u8 == number)
    }
}

/// A frame that passed its check, or was made here.
#[derive(Debug, Clone)]
pub struct Frame {
    head: [u8; HEAD_LEN],
    frame_type: FrameType,
    /// Of each type its own.
    pub fields: Vec<u8>,
    /// An entry's envelope.
    pub payload: Bytes,
}

/// What a frame's head says.
pub(super) struct FrameHead {
    pub(super) frame_type: FrameType,
    pub(super) fields_len: u32,
    pub(super) payload_len: u64,
}

/// What stands before the first frame of a file.
#[must_use]
pub fn preamble() -> [u8; PREAMBLE_LEN] {
    let mut bytes = [0; PREAMBLE_LEN];
    let (magic, rest) = bytes.split_at_mut(FILE_MAGIC.len());
    magic.copy_from_slice(&FILE_MAGIC);
    rest.split_at_mut(4).0.copy_from_slice(&VERSION.to_le_bytes());
    bytes
}

impl Frame {
    /// A frame with this in it.
    #[must_use]
    pub fn new(frame_type: FrameType, fields: Vec<u8>, payload: Bytes) -> Self {
        let mut head = Vec::with_capacity(HEAD_LEN);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&[frame_type as u8, 0, 0, 0]);
        head.extend_from_slice(&u32::try_from(fields.len()).unwrap_or(u32::MAX).to_le_bytes());
        head.extend_from_slice(&[0; 4]);
        head.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        head.extend_from_slice(&xxh3_64(&head).to_le_bytes());
        let digest = digest(&head, &fields, &payload);
        head.extend_from_slice(&digest);
        Self { head: head.try_into().unwrap_or([0; HEAD_LEN]), frame_type, fields, payload }
    }

    /// The frame that came with this head, if that is what was written.
    pub(super) fn received(
        head: [u8; HEAD_LEN],
        frame_type: FrameType,
        fields: Vec<u8>,
        payload: Bytes,
    ) -> Option<Self> {
        let is_whole = head.get(DIGEST_AT..)? == digest(head.get(..DIGEST_AT)?, &fields, &payload);
        is_whole.then_some(Self { head, frame_type, fields, payload })
    }

    /// The frame that these bytes are, if they are one and nothing else. The payload shares them.
    #[cfg(feature = "origin")]
    pub(crate) fn of_bytes(bytes: &Bytes) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_LEN>()?;
        let FrameHead { frame_type, fields_len, payload_len } = decode_head(head)?;
        let fields_len = fields_len as usize;
        if (fields_len as u64).checked_add(payload_len) != Some(rest.len() as u64) {
            return None;
        }
        let fields = rest.get(..fields_len)?.to_vec();
        Self::received(*head, frame_type, fields, bytes.slice(HEAD_LEN + fields_len..))
    }

    /// Its bytes, in pieces: what is short, and the payload.
    #[cfg(feature = "origin")]
    pub(crate) fn into_pieces(self) -> Vec<Bytes> {
        vec![[&self.head[..], &self.fields].concat().into(), self.payload]
    }

    /// What it holds.
    #[must_use]
    pub fn frame_type(&self) -> FrameType {
        self.frame_type
    }

    /// BLAKE3-256 of the head up to it, the fields and the payload.
    #[must_use]
    pub fn digest(&self) -> &[u8] {
        self.head.get(DIGEST_AT..).unwrap_or_default()
    }

    /// How long it is, in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a frame has a head, always")]
    pub fn len(&self) -> u64 {
        (HEAD_LEN + self.fields.len() + self.payload.len()) as u64
    }

    /// What [`Self::write`] writes, in two parts: the payload is last, and not copied.
    #[must_use]
    pub fn into_parts(self) -> [Bytes; 2] {
        [[self.head.as_slice(), &self.fields].concat().into(), self.payload]
    }

    /// Writes it.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&self, into: &mut dyn Write) -> io::Result<()> {
        into.write_all(&self.head)?;
        into.write_all(&self.fields)?;
        into.write_all(&self.payload)
    }
}

/// The head in these bytes, if they are one.
pub(super) fn decode_head(bytes: &[u8; HEAD_LEN]) -> Option<FrameHead> {
    let (checked, rest) = bytes.split_at(CHECK_AT);
    let (magic, fixed) = checked.split_first_chunk()?;
    if *magic != MAGIC || rest.first_chunk() != Some(&xxh3_64(checked).to_le_bytes()) {
        return None;
    }
    let (kind, fixed) = fixed.split_first_chunk::<4>()?;
    let (fields_len, fixed) = fixed.split_first_chunk()?;
    let (zeros, payload_len) = fixed.split_first_chunk::<4>()?;
    if *zeros != [0; 4] || !kind.ends_with(&[0; 3]) {
        return None;
    }
    Some(FrameHead {
        frame_type: FrameType::of_number(*kind.first()?)?,
        fields_len: u32::from_le_bytes(*fields_len),
        payload_len: u64::from_le_bytes(*payload_len.first_chunk()?),
    })
}

fn digest(head: &[u8], fields: &[u8], payload: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head);
    hasher.update(fields);
    hasher.update(payload);
    *hasher.finalize().as_bytes()
}
