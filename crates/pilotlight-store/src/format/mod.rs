//! The bytes on disk, as FORMAT.md draws them. Nothing else in this crate knows an offset.
//!
//! All numbers are little-endian. Checks are XXH3-64 seeded with the store's secret, so that bytes which a client put
//! can never pass for a record of the store's own.

mod footer;

use std::num::NonZeroU32;

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed, xxh3_128_with_seed};

pub(crate) use self::footer::{ROW_LEN, Row, TRAILER_LEN, decode_footer, encode_footer, footer_len};

/// The format a store is made in, and has for as long as nothing in it was rewritten.
pub(crate) const FORMAT_FIRST: u32 = 1;
/// The format of a store in which something was rewritten, and the newest that this build reads.
pub(crate) const FORMAT_REWRITTEN: u32 = 2;
/// What a segment's header says. Of a rewritten record only its flags tell.
const SEGMENT_VERSION: u32 = 1;
/// Records start at multiples of this, so that a 32-bit number reaches 32 GiB into a segment.
pub(crate) const ALIGN: u64 = 8;
/// Length of the header of a record, in bytes.
pub(crate) const HEADER_LEN: usize = 64;
/// Length of a check, in bytes. A record's is the last field of its header.
const CHECK_LEN: usize = 8;
/// Length of the header of a segment, in bytes.
pub(crate) const SEGMENT_HEADER_LEN: usize = 32;
/// Length of a reference to a payload that lives in a file of its own, in bytes.
pub(crate) const REF_LEN: usize = 32;
/// Longest head (the envelope before its payload), in bytes.
pub(crate) const HEAD_LEN_MAX: usize = 256 << 10;
/// Longest key with its space, in bytes.
pub(crate) const KEY_LEN_MAX: usize = 32 << 10;

/// Length of a group's number, in bytes.
pub(crate) const GROUP_LEN: usize = 4;

/// Flags of records and rows. Unknown ones are passed over.
const EXTERNAL: u8 = 1;
const PINNED: u8 = 2;
/// Of records: the head ends in the group's number.
const GROUPED: u8 = 4;
/// Of records: the head ends in a reference to the payload's base, in front of the group's number. Of rows: one follows the
/// rows.
const BASED: u8 = 8;
const REWRITTEN: u8 = 16;

const RECORD_MAGIC: [u8; 4] = *b"PLrc";
const SEGMENT_MAGIC: [u8; 8] = *b"PLsegmnt";

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordType {
    /// An entry was put. The key field holds space and key.
    Put,
    /// The entry with this key hash is gone. The key field holds the 16-byte hash.
    Tombstone,
    /// Every entry of this space is gone. The key field holds the space.
    Clear,
    /// Every entry of this group is gone. The key field holds the group's number and its space.
    Leave,
}

impl RecordType {
    fn number(self) -> u8 {
        match self {
            Self::Put => 1,
            Self::Tombstone => 2,
            Self::Clear => 3,
            Self::Leave => 4,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Put),
            2 => Some(Self::Tombstone),
            3 => Some(Self::Clear),
            4 => Some(Self::Leave),
            _ => None,
        }
    }
}

/// The fixed part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) record_type: RecordType,
    /// The payload lives in a file, and a [`Ref`] stands in its place.
    pub(crate) is_external: bool,
    /// The entry does not leave for want of space.
    pub(crate) is_pinned: bool,
    /// The entry leaves with its group. Counts in `head_len`, and is not in the fixed part.
    pub(crate) group: Option<NonZeroU32>,
    /// The payload can be read with this one only. Counts in `head_len` too.
    pub(crate) base: Option<BaseRef>,
    /// The entry was rewritten, and need not be again.
    pub(crate) is_rewritten: bool,
    pub(crate) key_len: u16,
    pub(crate) head_len: u32,
    pub(crate) payload_len: u32,
    pub(crate) seq: u64,
    /// 0 when it never expires.
    pub(crate) expires_ms: u64,
    pub(crate) logical_len: u32,
    pub(crate) cost_ms: u32,
    pub(crate) created_ms: u64,
    /// Of the payload.
    pub(crate) payload_check: u64,
}

impl Header {
    /// Bytes of the whole record in a segment, alignment included.
    pub(crate) fn record_len(&self) -> u64 {
        let body = if self.is_external { REF_LEN } else { self.payload_len as usize };
        ((HEADER_LEN + usize::from(self.key_len) + self.head_len as usize + body) as u64)
            .next_multiple_of(ALIGN)
    }

    /// Offset of the payload, or of the reference to it, in the record.
    pub(crate) fn body_offset(&self) -> usize {
        HEADER_LEN + usize::from(self.key_len) + self.head_len as usize
    }

    /// Changes the group.
    pub(crate) fn join(&mut self, group: Option<NonZeroU32>) {
        let len = |group: Option<NonZeroU32>| group.map_or(0, |_| GROUP_LEN as u32);
        self.head_len = self.head_len - len(self.group) + len(group);
        self.group = group;
    }
}

/// Where an external payload lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ref {
    /// The first half of the payload's BLAKE3.
    pub(crate) digest: u128,
    /// Tells this file from earlier ones of the same digest: a name is never used twice.
    pub(crate) generation: u64,
    /// Where in the file the payload starts.
    pub(crate) payload_offset: u32,
}

impl Ref {
    pub(crate) fn encode(&self) -> [u8; REF_LEN] {
        let mut bytes = [0; REF_LEN];
        let mut writer = Writer(&mut bytes);
        writer.put(&self.digest.to_le_bytes());
        writer.put(&self.generation.to_le_bytes());
        writer.put(&self.payload_offset.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        Some(Self { digest: reader.u128()?, generation: reader.u64()?, payload_offset: reader.u32()? })
    }
}

/// Which payload another was stored against: one that lives in a file, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BaseRef {
    pub(crate) reference: Ref,
    /// Length of the base's payload.
    pub(crate) payload_len: u32,
}

impl BaseRef {
    fn encode(&self) -> [u8; REF_LEN] {
        let mut bytes = self.reference.encode();
        let (_, rest) = bytes.split_at_mut(REF_LEN - size_of::<u32>());
        rest.copy_from_slice(&self.payload_len.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (reference, rest) = bytes.split_at_checked(REF_LEN - size_of::<u32>())?;
        Some(Self { reference: Ref::decode(reference)?, payload_len: Reader(rest).u32()? })
    }
}

/// Makes `bytes` the record's bytes before its body: header, key and head, checked. The key comes in parts, which are
/// written one behind the other.
pub(crate) fn encode_prefix(
    bytes: &mut Vec<u8>,
    header: &Header,
    key: &[&[u8]],
    head: &[u8],
    body_ref: Option<&Ref>,
    seed: u64,
) {
    bytes.clear();
    bytes.reserve(CHECK_LEN + header.body_offset() + REF_LEN);
    // First with the check's room in front, so that what it covers lies together.
    bytes.extend_from_slice(&[0; CHECK_LEN]);
    bytes.extend_from_slice(&RECORD_MAGIC);
    bytes.push(header.record_type.number());
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    bytes.push(
        flag(header.is_external, EXTERNAL)
            | flag(header.is_pinned, PINNED)
            | flag(header.group.is_some(), GROUPED)
            | flag(header.base.is_some(), BASED)
            | flag(header.is_rewritten, REWRITTEN),
    );
    bytes.extend_from_slice(&header.key_len.to_le_bytes());
    bytes.extend_from_slice(&header.head_len.to_le_bytes());
    bytes.extend_from_slice(&header.payload_len.to_le_bytes());
    bytes.extend_from_slice(&header.seq.to_le_bytes());
    bytes.extend_from_slice(&header.expires_ms.to_le_bytes());
    bytes.extend_from_slice(&header.logical_len.to_le_bytes());
    bytes.extend_from_slice(&header.cost_ms.to_le_bytes());
    bytes.extend_from_slice(&header.created_ms.to_le_bytes());
    bytes.extend_from_slice(&header.payload_check.to_le_bytes());
    key.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes.extend_from_slice(head);
    if let Some(base) = &header.base {
        bytes.extend_from_slice(&base.encode());
    }
    if let Some(group) = header.group {
        bytes.extend_from_slice(&group.get().to_le_bytes());
    }
    if let Some(reference) = body_ref {
        bytes.extend_from_slice(&reference.encode());
    }
    let (_, covered) = bytes.split_at(CHECK_LEN);
    let check = xxh3_64_with_seed(covered, seed).to_le_bytes();
    bytes.copy_within(CHECK_LEN..HEADER_LEN, 0);
    if let Some(place) = bytes.get_mut(HEADER_LEN - CHECK_LEN..HEADER_LEN) {
        place.copy_from_slice(&check);
    }
}

fn record_check(fixed: &[u8], key: &[u8], head: &[u8], reference: Option<&[u8]>, seed: u64) -> u64 {
    let mut hasher = Xxh3::with_seed(seed);
    hasher.update(fixed);
    hasher.update(key);
    hasher.update(head);
    hasher.update(reference.unwrap_or_default());
    hasher.digest()
}

/// A record found in bytes: the parts before the payload, checked. The payload is the caller's to check.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) header: Header,
    pub(crate) key: &'a [u8],
    pub(crate) head: &'a [u8],
    pub(crate) reference: Option<Ref>,
}

/// The fixed part alone, unchecked but for its magic: enough to know how much to read. Of a group or a base it knows nothing.
pub(crate) fn decode_header(bytes: &[u8]) -> Option<Header> {
    let mut reader = Reader(bytes);
    if reader.take(4)? != RECORD_MAGIC {
        return None;
    }
    let record_type = RecordType::from_number(reader.u8()?)?;
    let flags = reader.u8()?;
    Some(Header {
        record_type,
        is_external: flags & EXTERNAL != 0,
        is_pinned: flags & PINNED != 0,
        group: None,
        base: None,
        is_rewritten: flags & REWRITTEN != 0,
        key_len: reader.u16()?,
        head_len: reader.u32()?,
        payload_len: reader.u32()?,
        seq: reader.u64()?,
        expires_ms: reader.u64()?,
        logical_len: reader.u32()?,
        cost_ms: reader.u32()?,
        created_ms: reader.u64()?,
        payload_check: reader.u64()?,
    })
}

/// The record at the start of `bytes`, if there is a whole prefix that passes its check.
pub(crate) fn decode_record(bytes: &[u8], seed: u64) -> Option<Record<'_>> {
    let mut header = decode_header(bytes)?;
    let (fixed, rest) = bytes.split_at_checked(HEADER_LEN - CHECK_LEN)?;
    let mut reader = Reader(rest);
    let expected = reader.u64()?;
    let key = reader.take(usize::from(header.key_len))?;
    let mut head = reader.take(header.head_len as usize)?;
    let reference = if header.is_external { Some(reader.take(REF_LEN)?) } else { None };
    if record_check(fixed, key, head, reference, seed) != expected {
        return None;
    }
    let flags = bytes.get(5)?;
    if flags & GROUPED != 0 {
        let (own, group) = head.split_at_checked(head.len().checked_sub(GROUP_LEN)?)?;
        head = own;
        header.group = NonZeroU32::new(Reader(group).u32()?);
    }
    if flags & BASED != 0 {
        let (own, base) = head.split_at_checked(head.len().checked_sub(REF_LEN)?)?;
        head = own;
        header.base = Some(BaseRef::decode(base)?);
    }
    Some(Record { header, key, head, reference: reference.and_then(Ref::decode) })
}

/// The check over a payload.
pub(crate) fn payload_check(payload: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(payload, seed)
}

/// What the index knows a key by. Seeded, so that a client cannot choose two keys that collide.
pub(crate) fn key_hash(space: &[u8], key: &[u8], seed: u64) -> u128 {
    if space.is_empty() {
        return xxh3_128_with_seed(key, seed);
    }
    let mut hasher = Xxh3::with_seed(seed);
    hasher.update(space);
    // A byte no UTF-8 text holds, so that ("a", "bc") and ("ab", "c") differ.
    hasher.update(&[0xff]);
    hasher.update(key);
    hasher.digest128()
}

/// The first bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The store's next sequence number when the segment was begun: numbers go on from there if all records are lost.
    pub(crate) created_seq: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self, seed: u64) -> [u8; SEGMENT_HEADER_LEN] {
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        let mut writer = Writer(&mut bytes);
        writer.put(&SEGMENT_MAGIC);
        writer.put(&SEGMENT_VERSION.to_le_bytes());
        writer.put(&[0; 4]);
        writer.put(&self.created_seq.to_le_bytes());
        let check = xxh3_64_with_seed(&bytes[..24], seed);
        bytes[24..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Whether the bytes are those of a segment header, whatever else is wrong with it.
    pub(crate) fn is_marked(bytes: &[u8]) -> bool {
        bytes.starts_with(&SEGMENT_MAGIC)
    }

    pub(crate) fn decode(bytes: &[u8], seed: u64) -> Option<Self> {
        let mut reader = Reader(bytes);
        if reader.take(8)? != SEGMENT_MAGIC || reader.u32()? > SEGMENT_VERSION {
            return None;
        }
        reader.take(4)?;
        let created_seq = reader.u64()?;
        (reader.u64()? == xxh3_64_with_seed(bytes.get(..24)?, seed)).then_some(Self { created_seq })
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }
}

/// Fills a fixed array from the front.
struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let (into, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        into.copy_from_slice(bytes);
        self.0 = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            record_type: RecordType::Put,
            is_external: false,
            is_pinned: false,
            group: None,
            base: None,
            is_rewritten: false,
            key_len: 3,
            head_len: 4,
            payload_len: 5,
            seq: 6,
            expires_ms: 7,
            logical_len: 8,
            cost_ms: 9,
            created_ms: 10,
            payload_check: 11,
        }
    }

    #[test]
    fn a_record_decodes_to_what_was_encoded_and_any_flipped_bit_is_noticed() {
        let reference = Ref { digest: 1, generation: 2, payload_offset: 3 };
        let grouped =
            Header { is_pinned: true, group: NonZeroU32::new(7), head_len: 4 + GROUP_LEN as u32, ..header() };
        let base =
            Some(BaseRef { reference: Ref { digest: 4, generation: 5, payload_offset: 6 }, payload_len: 7 });
        let based = Header { base, is_rewritten: true, head_len: 4 + REF_LEN as u32, ..header() };
        let both = Header { base, head_len: grouped.head_len + REF_LEN as u32, is_external: true, ..grouped };
        for (header, reference) in [
            (based, None),
            (both, Some(reference)),
            (header(), None),
            (Header { is_external: true, ..header() }, Some(reference)),
            (grouped, None),
            (Header { is_external: true, ..grouped }, Some(reference)),
        ] {
            let mut bytes = b"what was there before".to_vec();
            encode_prefix(&mut bytes, &header, &[b"k", b"ey"], b"head", reference.as_ref(), 42);
            let record = decode_record(&bytes, 42).unwrap();
            assert_eq!((record.header, record.key, record.head), (header, &b"key"[..], &b"head"[..]));
            assert_eq!(record.reference, reference);
            assert!(decode_record(&bytes, 43).is_none(), "another store's record");
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(decode_record(&damaged, 42).is_none(), "bit {bit}");
            }
            for len in 0..bytes.len() {
                assert!(decode_record(&bytes[..len], 42).is_none(), "cut to {len}");
            }
        }
    }

    #[test]
    fn key_hashes_tell_spaces_apart() {
        assert_ne!(key_hash(b"a", b"bc", 1), key_hash(b"ab", b"c", 1));
        assert_ne!(key_hash(b"", b"key", 1), key_hash(b"key", b"", 1));
    }
}
