//! What an open finds: which records are the newest of their keys, and where appending goes on.
//!
//! Sealed segments tell by their footers. A segment without a whole footer is read record by record, as after a crash.
//! Rules, each also true after `kill -9` at any point:
//! 1. Of all records of a key the one with the highest sequence number speaks; a tombstone says that the key is absent.
//! 2. A clear speaks for every put of its space with a lower number.
//! 3. A record or payload that fails its check was never there.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::format::{
    RecordType, Row, SEGMENT_HEADER_LEN, SegmentHeader, TRAILER_LEN, decode_footer, footer_len, key_hash,
    payload_check,
};
use crate::log::{Segment, Tail, segment_path};
use crate::media::{Media, MediaFile};
use crate::records::{Records, split_key};

/// Everything the log says.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) segments: BTreeMap<u32, Arc<Segment>>,
    pub(crate) tail: Tail,
    /// Names of spaces by number; number 0 is the empty one.
    pub(crate) spaces: Vec<Vec<u8>>,
    /// The live puts, with the segment each lies in.
    pub(crate) live: Vec<(u32, Row)>,
}

/// Reads the log in `dir`.
pub(crate) fn recover(dir: &Path, media: &dyn Media, seed: u64) -> io::Result<Recovered> {
    let mut recovered = Recovered { spaces: vec![Vec::new()], ..Recovered::default() };
    let mut ids: Vec<u32> = media
        .list(dir)?
        .into_iter()
        .filter_map(|(name, _)| name.strip_suffix(".seg").and_then(|id| id.parse().ok()))
        .collect();
    ids.sort_unstable();
    let mut rows = Vec::new();
    let mut next_seq = 1;
    for &id in &ids {
        let file = media.open(&segment_path(dir, id), true)?;
        let Some(read) = read_segment(&file, seed, &mut recovered.spaces)? else {
            // Not even its header was written: nothing in it was ever acknowledged.
            media.remove(&segment_path(dir, id))?;
            continue;
        };
        next_seq = read.rows.iter().map(|row| row.seq + 1).fold(next_seq.max(read.created_seq), u64::max);
        let is_active = !read.is_sealed && ids.last() == Some(&id);
        if is_active {
            // What a torn append left beyond the end would be in the way of later scans.
            file.set_len(read.end)?;
        }
        let segment = Segment {
            id,
            file,
            end: AtomicU64::new(read.end),
            len: AtomicU64::new(if is_active { read.end } else { read.len }),
            live: AtomicU64::new(0),
        };
        recovered.segments.insert(id, Arc::new(segment));
        if is_active {
            recovered.tail.active = Some((id, read.rows.clone()));
        }
        rows.extend(read.rows.into_iter().map(|row| (id, row)));
    }
    recovered.tail.next_id = ids.last().map_or(0, |id| id + 1);
    recovered.tail.next_seq = next_seq;
    recovered.live = newest(rows, &recovered.segments);
    Ok(recovered)
}

/// The rows that speak for their keys.
fn newest(rows: Vec<(u32, Row)>, segments: &BTreeMap<u32, Arc<Segment>>) -> Vec<(u32, Row)> {
    use std::sync::atomic::Ordering::Relaxed;
    let mut cleared: HashMap<u16, u64> = HashMap::new();
    let mut newest: HashMap<u128, u64> = HashMap::with_capacity(rows.len());
    for (_, row) in &rows {
        let seq = match row.record_type {
            RecordType::Clear => cleared.entry(row.space).or_default(),
            RecordType::Put | RecordType::Tombstone => newest.entry(row.hash).or_default(),
        };
        *seq = row.seq.max(*seq);
    }
    let mut live = Vec::with_capacity(newest.len());
    for (id, row) in rows {
        let is_cleared = cleared.get(&row.space).is_some_and(|seq| *seq > row.seq);
        // A record that was being moved when the process died is there twice; the entry is taken once.
        if row.record_type == RecordType::Put && !is_cleared && newest.get(&row.hash) == Some(&row.seq) {
            newest.remove(&row.hash);
            if let Some(segment) = segments.get(&id) {
                segment.live.fetch_add(u64::from(row.record_len), Relaxed);
            }
            live.push((id, row));
        }
    }
    live
}

struct ReadSegment {
    created_seq: u64,
    rows: Vec<Row>,
    end: u64,
    len: u64,
    is_sealed: bool,
}

fn read_segment(
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
    let Some(SegmentHeader { created_seq }) = SegmentHeader::decode(&bytes, seed) else { return Ok(None) };
    if let Some((rows, end)) = read_footer(file, len, seed, spaces)? {
        return Ok(Some(ReadSegment { created_seq, rows, end, len, is_sealed: true }));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_at(&mut bytes, 0)?;
    let (rows, end) = scan(&bytes, seed, spaces);
    Ok(Some(ReadSegment { created_seq, rows, end, len, is_sealed: false }))
}

fn read_footer(
    file: &Arc<dyn MediaFile>,
    len: u64,
    seed: u64,
    spaces: &mut Vec<Vec<u8>>,
) -> io::Result<Option<(Vec<Row>, u64)>> {
    let Some(trailer_at) = len.checked_sub(TRAILER_LEN as u64) else { return Ok(None) };
    let mut trailer = [0; TRAILER_LEN];
    file.read_at(&mut trailer, trailer_at)?;
    let Some(footer_at) = footer_len(&trailer, seed).and_then(|footer_len| len.checked_sub(footer_len))
    else {
        return Ok(None);
    };
    let mut footer = vec![0; usize::try_from(len - footer_at).map_err(io::Error::other)?];
    file.read_at(&mut footer, footer_at)?;
    let Some((mut rows, names)) = decode_footer(&footer, seed) else { return Ok(None) };
    let numbers: Vec<u16> = names.iter().map(|name| intern(spaces, name)).collect();
    for row in &mut rows {
        row.space = numbers.get(usize::from(row.space)).copied().unwrap_or(0);
    }
    Ok(Some((rows, footer_at)))
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
            reference: record.reference,
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
