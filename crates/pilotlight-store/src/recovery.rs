//! What an open finds: which records are the newest of their keys, and where appending goes on.
//!
//! Sealed segments tell by their footers. A segment without a whole footer is read record by record, as after a crash.
//! Rules, each also true after `kill -9` at any point:
//! 1. Of all records of a key the one with the highest sequence number speaks; a tombstone says that the key is absent.
//! 2. A clear speaks for every put of its space with a lower number.
//! 3. A group that left does for every put of the group with a lower number.
//! 4. A record or payload that fails its check was never there.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::directory::Access;
use crate::format::{
    ROW_LEN, RecordType, Row, SEGMENT_HEADER_LEN, SegmentHeader, TRAILER_LEN, decode_footer, footer_len,
    key_hash, payload_check,
};
use crate::index::Index;
use crate::log::{Segment, Tail, segment_path};
use crate::media::{Media, MediaFile, files};
use crate::newest::{Named, Newest};
use crate::records::{Records, split_key};

/// Everything the log says.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) segments: BTreeMap<u32, Arc<Segment>>,
    pub(crate) tail: Tail,
    /// Names of spaces by number; number 0 is the empty one.
    pub(crate) spaces: Vec<Vec<u8>>,
    /// The payload files that live puts name.
    pub(crate) named: Vec<Named>,
    /// There are segments, and none of them fits the seed.
    pub(crate) is_foreign: bool,
}

/// Reads the log in `dir` into `index`, and clears away what a crash left of it, where the medium lets it.
///
/// Segment by segment: of a million entries nothing but their slots is ever in memory.
pub(crate) fn recover(
    dir: &Path,
    media: &dyn Media,
    seed: u64,
    access: Access,
    index: &Index,
) -> io::Result<Recovered> {
    let is_writable = access == Access::Full;
    let mut recovered = Recovered { spaces: vec![Vec::new()], ..Recovered::default() };
    let ids = segment_ids(dir, media)?;
    index.reserve(rows_at_most(dir, media, seed, &ids)?);
    let mut newest = Newest::new(index, seed);
    let mut next_seq = 1;
    let (mut known, mut unknown) = (0, 0);
    for &id in &ids {
        let file = media.open(&segment_path(dir, id), is_writable)?;
        let Some(read) = read_segment(&file, seed, &mut recovered.spaces)? else {
            // Nothing was written: nothing in it was ever acknowledged.
            if is_writable {
                media.remove(&segment_path(dir, id))?;
            }
            continue;
        };
        next_seq = read.rows.iter().map(|row| row.seq + 1).fold(next_seq.max(read.created_seq), u64::max);
        known += u32::from(read.is_headed || !read.rows.is_empty());
        unknown += u32::from(!read.is_headed && read.is_marked && read.len > SEGMENT_HEADER_LEN as u64);
        // A damaged one is kept as it is, for a person to look at, until it is its turn to be cleaned.
        let is_active = is_writable && !read.is_sealed && read.is_headed && ids.last() == Some(&id);
        if is_active {
            // What a torn append left beyond the end would be in the way of later scans.
            file.set_len(read.end)?;
        }
        let segment = Segment {
            id,
            file,
            // The padding of the last record may be missing.
            end: AtomicU64::new(if is_active { read.end } else { read.end.min(read.len) }),
            written: AtomicU64::new(if is_active { read.end } else { read.end.min(read.len) }),
            len: AtomicU64::new(if is_active { read.end } else { read.len }),
            live: AtomicU64::new(0),
        };
        newest.add(&segment, &read.rows)?;
        recovered.segments.insert(id, Arc::new(segment));
        if is_active {
            recovered.tail.active = Some((id, read.rows));
        }
    }
    recovered.tail.next_id = ids.last().map_or(0, |id| id.saturating_add(1));
    recovered.tail.next_seq = next_seq;
    recovered.is_foreign = known == 0 && unknown > 0;
    recovered.named = newest.finish(&recovered.segments);
    Ok(recovered)
}

/// The numbers of the segments in `dir`, in order.
pub(crate) fn segment_ids(dir: &Path, media: &dyn Media) -> io::Result<Vec<u32>> {
    let id_of = |name: String| {
        let id = name.strip_suffix(".seg")?.parse().ok()?;
        // Not what merely looks like a segment's name.
        (segment_path(dir, id).file_name()? == &*name).then_some(id)
    };
    let mut ids: Vec<u32> = files(media, dir)?.filter_map(|(name, _)| id_of(name)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// How many rows the footers hold; more than there are entries by what is dead.
fn rows_at_most(dir: &Path, media: &dyn Media, seed: u64, ids: &[u32]) -> io::Result<usize> {
    let mut bytes = 0;
    for &id in ids {
        let file = media.open(&segment_path(dir, id), false)?;
        bytes += read_trailer(&*file, file.length()?, seed)?.map_or(0, |(_, footer_len)| footer_len);
    }
    Ok(usize::try_from(bytes).map_err(io::Error::other)? / ROW_LEN)
}

pub(crate) struct ReadSegment {
    pub(crate) created_seq: u64,
    pub(crate) rows: Vec<Row>,
    pub(crate) end: u64,
    len: u64,
    pub(crate) is_sealed: bool,
    /// Its header passes its check.
    pub(crate) is_headed: bool,
    /// It begins as a segment of any store does: not as a power cut leaves one that was begun just before.
    is_marked: bool,
}

pub(crate) fn read_segment(
    file: &Arc<dyn MediaFile>,
    seed: u64,
    spaces: &mut Vec<Vec<u8>>,
) -> io::Result<Option<ReadSegment>> {
    let len = file.length()?;
    if len < SEGMENT_HEADER_LEN as u64 {
        return Ok(None);
    }
    let mut bytes = [0; SEGMENT_HEADER_LEN];
    file.read_at(&mut bytes, 0)?;
    let header = SegmentHeader::decode(&bytes, seed);
    let is_headed = header.is_some();
    let is_marked = SegmentHeader::is_marked(&bytes);
    let created_seq = header.map_or(0, |header| header.created_seq);
    if let Some((rows, end)) = read_footer(file, len, seed, spaces)? {
        return Ok(Some(ReadSegment { created_seq, rows, end, len, is_sealed: true, is_headed, is_marked }));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_at(&mut bytes, 0)?;
    // As a power cut leaves it. One with a damaged header is something else: what it holds was acknowledged.
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let (rows, end) = scan(&bytes, seed, spaces);
    Ok(Some(ReadSegment { created_seq, rows, end, len, is_sealed: false, is_headed, is_marked }))
}

pub(crate) fn read_footer(
    file: &Arc<dyn MediaFile>,
    len: u64,
    seed: u64,
    spaces: &mut Vec<Vec<u8>>,
) -> io::Result<Option<(Vec<Row>, u64)>> {
    let Some((footer_at, _)) = read_trailer(&**file, len, seed)? else { return Ok(None) };
    let mut footer = vec![0; usize::try_from(len - footer_at).map_err(io::Error::other)?];
    file.read_at(&mut footer, footer_at)?;
    let Some((mut rows, names)) = decode_footer(&footer, seed) else { return Ok(None) };
    let numbers: Vec<u16> = names.iter().map(|name| intern(spaces, name)).collect();
    for row in &mut rows {
        row.space = numbers.get(usize::from(row.space)).copied().unwrap_or(0);
    }
    Ok(Some((rows, footer_at)))
}

/// Where the footer begins and how long it is, if the file ends in one.
fn read_trailer(file: &dyn MediaFile, len: u64, seed: u64) -> io::Result<Option<(u64, u64)>> {
    let Some(trailer_at) = len.checked_sub(TRAILER_LEN as u64) else { return Ok(None) };
    let mut trailer = [0; TRAILER_LEN];
    file.read_at(&mut trailer, trailer_at)?;
    Ok(footer_len(&trailer, seed)
        .and_then(|footer_len| len.checked_sub(footer_len).map(|footer_at| (footer_at, footer_len))))
}

/// The rows of a segment that was not sealed, and the end of its last whole record.
fn scan(bytes: &[u8], seed: u64, spaces: &mut Vec<Vec<u8>>) -> (Vec<Row>, u64) {
    let mut rows = Vec::new();
    let mut end = SEGMENT_HEADER_LEN as u64;
    for (offset, record, payload) in Records::from(bytes, end, seed) {
        let header = &record.header;
        end = offset + header.record_len();
        if !header.is_external && payload_check(payload, seed) != header.payload_check {
            continue;
        }
        let (hash, space) = match header.record_type {
            RecordType::Put => {
                let Some((space, key)) = split_key(record.key) else { continue };
                (key_hash(space, key, seed), intern(spaces, space))
            }
            RecordType::Tombstone => {
                let Ok(hash) = record.key.try_into() else { continue };
                (u128::from_le_bytes(hash), 0)
            }
            RecordType::Clear => (0, intern(spaces, record.key)),
            RecordType::Leave => {
                let Some((group, space)) = record.key.split_first_chunk() else { continue };
                (u128::from(u32::from_le_bytes(*group)), intern(spaces, space))
            }
        };
        rows.push(Row {
            record_type: header.record_type,
            hash,
            seq: header.seq,
            expires_ms: header.expires_ms,
            offset,
            record_len: header.record_len() as u32,
            payload_len: header.payload_len,
            logical_len: header.logical_len,
            cost_ms: header.cost_ms,
            created_ms: header.created_ms,
            space,
            is_pinned: header.is_pinned,
            group: header.group,
            reference: record.reference,
            base: header.base,
            is_rewritten: header.is_rewritten,
        });
    }
    (rows, end)
}

/// The number of a space, given one if it has none.
pub(crate) fn intern(spaces: &mut Vec<Vec<u8>>, name: &[u8]) -> u16 {
    let number = spaces.iter().position(|space| space == name).unwrap_or_else(|| {
        spaces.push(name.to_vec());
        spaces.len() - 1
    });
    u16::try_from(number).unwrap_or(u16::MAX)
}
