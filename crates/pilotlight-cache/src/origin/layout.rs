//! What objects are called, and what is in them. docs/reference/origin.md says it for people.
//!
//! An entry's object is the frame that `pilotlight export` writes of it: its key, namespace and expiry in front of its envelope,
//! and a digest over all of it. So an object says itself what it is, whatever it is called.

use std::fmt::{self, Write};

use bytes::Bytes;

use crate::envelope;
use crate::portable::{Frame, FrameType, Portable};
use crate::{Entry, Error, Key, Kind, Namespace, Result};

/// Objects of other versions live beside, and are not seen.
const VERSION: &str = "v1";
/// Where damaged objects are moved to.
const QUARANTINE: &str = "quarantine";
/// What stands for the namespace without a name. No other name comes to it: see [`segment`].
const DEFAULT_NAMESPACE: &str = "_";
/// Names that would be longer, escaped, are hashed: file systems that stand behind origins end at 255 bytes.
const SEGMENT_LEN_MAX: usize = 128;
/// What an object holds besides its envelope, at most: the frame's head, flags, expiry, group, namespace and key.
const AROUND_LEN_MAX: u64 = 64 + 14 + 255 + crate::KEY_LEN_MAX as u64;

/// The name of an object, below what the origin was told to stay below.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// The name of the object that holds the entry under `key`.
    #[must_use]
    pub fn of(key: &Key) -> Self {
        let hash = blake3::hash(key.bytes()).to_hex();
        let shard = hash.get(..2).unwrap_or_default();
        let (namespace, kind) = (namespace_prefix(key.namespace()), key.kind().name());
        Self(format!("{namespace}{kind}/{shard}/{hash}"))
    }

    /// A name that an origin gave.
    #[must_use]
    pub fn given(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Where the object is moved to when it fails its check.
    #[must_use]
    pub fn quarantined(&self) -> Self {
        Self(format!("{QUARANTINE}/{}", self.0))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the names of all objects of a namespace begin with.
#[must_use]
pub fn namespace_prefix(namespace: &Namespace) -> String {
    format!("{VERSION}/{}/", segment(namespace.as_str()))
}

/// What the names of all objects of a kind begin with.
#[must_use]
pub fn kind_prefix(namespace: &Namespace, kind: Kind) -> String {
    format!("{}{}/", namespace_prefix(namespace), kind.name())
}

/// A namespace's name as a part of a path: letters, digits and `-` stand for themselves, other bytes are `=` and two hex digits.
fn segment(name: &str) -> String {
    if name.is_empty() {
        return DEFAULT_NAMESPACE.to_owned();
    }
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            escaped.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(escaped, "={byte:02X}");
        }
    }
    if escaped.len() <= SEGMENT_LEN_MAX {
        return escaped;
    }
    // `==` is no escape, so no other name comes to this.
    format!("=={}", blake3::hash(name.as_bytes()).to_hex())
}

/// The most that the object of an entry with an artifact of `artifact_bytes_max` may take: what compresses badly grows a little.
pub(crate) fn object_bytes_max(artifact_bytes_max: u64) -> u64 {
    let envelope_max = artifact_bytes_max.saturating_add(artifact_bytes_max / 64).saturating_add(1 << 20);
    envelope_max.saturating_add(AROUND_LEN_MAX)
}

/// The object that holds `entry`: pieces to be sent one after the other, the payload not copied.
///
/// # Errors
/// As [`envelope::seal`].
pub fn object(key: &Key, entry: &Entry) -> Result<Vec<Bytes>> {
    let sealed = envelope::seal(entry)?;
    let expires_ms = entry.metadata.expires_ms;
    let portable = Portable { key: key.clone(), expires_ms, is_pinned: false, group: None, sealed };
    Ok(portable.to_frame().into_pieces())
}

/// The entry that an object holds, and its key: lengths and the object's digest checked, the artifact not yet.
///
/// # Errors
/// `Corrupt` for what is not, byte for byte, what [`object`] made; `TooLarge` for an artifact above `artifact_bytes_max`;
/// `Unsupported` for an envelope of a later version.
pub fn read(object: &Bytes, artifact_bytes_max: u64) -> Result<(Key, Entry)> {
    let damaged = |what: &str| Error::Corrupt { what: format!("object of {} bytes: {what}", object.len()) };
    let frame = Frame::of_bytes(object).ok_or_else(|| damaged("no whole frame, or its digest is another"))?;
    if frame.frame_type() != FrameType::Entry {
        return Err(damaged("it holds no entry"));
    }
    let Portable { key, expires_ms, sealed, .. } = Portable::of_frame(&frame)?;
    let entry = envelope::read(&sealed, artifact_bytes_max)?.expiring_at(expires_ms);
    Ok((key, entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, bytes: &'static str) -> Key {
        Key::in_namespace(Namespace::new(namespace).unwrap(), bytes)
    }

    #[test]
    fn names_are_as_the_page_draws_them() {
        let hash = blake3::hash(b"pt2:fx-graph-v1::fabc:c1").to_hex();
        for (namespace, expected) in
            [("", "_"), ("db1", "db1"), ("a/b", "a=2Fb"), ("_", "=5F"), ("..", "=2E=2E")]
        {
            let name = ObjectName::of(&key(namespace, "pt2:fx-graph-v1::fabc:c1"));
            assert_eq!(name.as_str(), format!("v1/{expected}/fx-graph/{}/{hash}", &hash[..2]));
            assert_eq!(name.quarantined().as_str(), format!("quarantine/{name}"));
        }
    }

    #[test]
    fn no_two_namespaces_come_to_one_name() {
        let long = "é".repeat(100);
        let names = ["", "_", "=5F", "=", "a", "A", "a/", "a=2F", &long, &"é".repeat(101)];
        let mut segments: Vec<_> = names.iter().map(|name| segment(name)).collect();
        segments.sort();
        segments.dedup();
        assert_eq!(segments.len(), names.len(), "{segments:?}");
        assert!(segments.iter().all(|segment| segment.len() <= SEGMENT_LEN_MAX));
    }

    #[test]
    fn an_object_tells_its_key_and_gives_its_entry_back() {
        let key = key("team", "k");
        let entry = Entry::new(b"artifact ".repeat(999)).expiring_at(Some(77));
        let object = object(&key, &entry).unwrap().concat().into();
        let (named, read) = super::read(&object, 1 << 20).unwrap();
        assert_eq!((named, read.metadata.expires_ms), (key, Some(77)));
        assert_eq!(read.artifact.verify().unwrap(), entry.artifact.verify().unwrap());
        assert!(matches!(super::read(&object, 100), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn any_cut_and_any_flipped_byte_of_an_object_is_found() {
        let object: Bytes = object(&key("", "key"), &Entry::new(vec![7; 300])).unwrap().concat().into();
        for len in 0..object.len() {
            assert!(
                matches!(read(&object.slice(..len), 1 << 20), Err(Error::Corrupt { .. })),
                "cut at {len}"
            );
            let mut flipped = object.to_vec();
            flipped[len] ^= 0x10;
            assert!(matches!(read(&flipped.into(), 1 << 20), Err(Error::Corrupt { .. })), "flipped at {len}");
        }
        let longer: Bytes = [&object[..], &[0]].concat().into();
        assert!(read(&longer, 1 << 20).is_err());
    }
}
