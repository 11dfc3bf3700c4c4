//! Entries in one file that any store can take in: for backups, and to carry a cache from one place to another.
//!
//! docs/reference/export.md draws every byte. A file is a preamble and frames; each frame has a digest of its own, and the last
//! one counts and digests them all, so that a flipped byte anywhere is found, and told by its place. Entries stand in their
//! envelopes, as they go over the wire; what an envelope has no place for stands beside it.

mod frame;
mod reader;

use std::num::NonZeroU32;

use bytes::Bytes;

pub use self::frame::{Frame, FrameType, preamble};
pub use self::reader::{Reader, Trouble};
use crate::envelope::Sealed;
use crate::{Cursor, Error, KEY_LEN_MAX, Key, Namespace, Result};

/// One entry as it stands in a file.
#[derive(Debug, Clone)]
pub struct Portable {
    /// Its key.
    pub key: Key,
    /// When it expires, milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
    /// Whether it is kept from eviction.
    pub is_pinned: bool,
    /// The group that it is evicted with, where its key does not tell.
    pub group: Option<NonZeroU32>,
    /// All else.
    pub sealed: Sealed,
}

/// How far an export is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// In this namespace.
    pub namespace: Namespace,
    /// Where it goes on there; [`Cursor::START`] at the end of the namespace.
    pub next: Cursor,
    /// Entries since the mark before that were damaged, and are not in the file.
    pub damaged: u32,
}

/// What is in a file up to some place.
#[derive(Debug, Clone)]
pub struct Totals {
    /// Entries.
    pub entries: u64,
    /// Bytes of their envelopes.
    pub bytes: u64,
    digests: blake3::Hasher,
}

impl Default for Totals {
    fn default() -> Self {
        Self { entries: 0, bytes: 0, digests: blake3::Hasher::new() }
    }
}

impl Totals {
    /// Counts a frame, if it is an entry's.
    pub fn count(&mut self, frame: &Frame) {
        if frame.frame_type() == FrameType::Entry {
            self.entries += 1;
            self.bytes += frame.payload.len() as u64;
            self.digests.update(frame.digest());
        }
    }

    /// The frame that a file with these entries ends in.
    #[must_use]
    pub fn end(&self) -> Frame {
        let mut fields = Vec::with_capacity(48);
        fields.extend_from_slice(&self.entries.to_le_bytes());
        fields.extend_from_slice(&self.bytes.to_le_bytes());
        fields.extend_from_slice(self.digests.finalize().as_bytes());
        Frame::new(FrameType::End, fields, Bytes::new())
    }
}

const PINNED: u8 = 1;
const GROUPED: u8 = 2;

impl Portable {
    /// Its frame.
    #[must_use]
    pub fn to_frame(&self) -> Frame {
        let (namespace, key) = (self.key.namespace().as_str().as_bytes(), self.key.bytes());
        let mut fields = Vec::with_capacity(14 + namespace.len() + key.len());
        fields.push(if self.is_pinned { PINNED } else { 0 } | self.group.map_or(0, |_| GROUPED));
        fields.extend_from_slice(&self.expires_ms.unwrap_or(0).to_le_bytes());
        if let Some(group) = self.group {
            fields.extend_from_slice(&group.get().to_le_bytes());
        }
        fields.push(u8::try_from(namespace.len()).unwrap_or(u8::MAX));
        fields.extend_from_slice(namespace);
        fields.extend_from_slice(key);
        Frame::new(FrameType::Entry, fields, self.sealed.to_whole())
    }

    /// The entry in a frame whose check passed. What is in its envelope is unchecked still.
    ///
    /// # Errors
    /// `Corrupt` for what is no entry.
    pub fn of_frame(frame: &Frame) -> Result<Self> {
        let sealed = Sealed::from_whole(frame.payload.clone())?;
        let parse = || {
            let (flags, rest) = frame.fields.split_first()?;
            let (expires_ms, rest) = rest.split_first_chunk()?;
            let expires_ms = u64::from_le_bytes(*expires_ms);
            let (group, rest) = match flags & GROUPED {
                0 => (None, rest),
                _ => rest.split_first_chunk().map(|(group, rest)| (Some(*group), rest))?,
            };
            let (namespace, key) = take_namespace(rest)?;
            (!key.is_empty() && key.len() <= KEY_LEN_MAX).then(|| Self {
                key: Key::in_namespace(namespace, key.to_vec()),
                expires_ms: (expires_ms != 0).then_some(expires_ms),
                is_pinned: flags & PINNED != 0,
                group: group.and_then(|group| NonZeroU32::new(u32::from_le_bytes(group))),
                sealed,
            })
        };
        parse().ok_or_else(|| Error::Corrupt { what: "the fields of an entry make no sense".to_owned() })
    }
}

impl Mark {
    /// Its frame.
    #[must_use]
    pub fn to_frame(&self) -> Frame {
        let mut fields = Vec::new();
        fields.extend_from_slice(&self.next.0.to_le_bytes());
        fields.extend_from_slice(&self.damaged.to_le_bytes());
        let name = self.namespace.as_str().as_bytes();
        fields.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        fields.extend_from_slice(name);
        Frame::new(FrameType::Mark, fields, Bytes::new())
    }

    /// The mark in a frame whose check passed.
    ///
    /// # Errors
    /// `Corrupt` for what is no mark.
    pub fn of_frame(frame: &Frame) -> Result<Self> {
        let parse = || {
            let (next, rest) = frame.fields.split_first_chunk()?;
            let (damaged, rest) = rest.split_first_chunk()?;
            let (namespace, _) = take_namespace(rest)?;
            let (next, damaged) = (Cursor(u64::from_le_bytes(*next)), u32::from_le_bytes(*damaged));
            Some(Self { namespace, next, damaged })
        };
        parse().ok_or_else(|| Error::Corrupt { what: "the fields of a mark make no sense".to_owned() })
    }
}

fn take_namespace(bytes: &[u8]) -> Option<(Namespace, &[u8])> {
    let (len, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*len))?;
    Some((Namespace::new(std::str::from_utf8(name).ok()?).ok()?, rest))
}
