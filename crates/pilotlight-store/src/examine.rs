//! What is wrong with a store's directory, as far as its structure tells. Nothing is changed.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use crate::blobs;
use crate::directory::{self, Access};
use crate::format::{
    HEAD_LEN_MAX, HEADER_LEN, Header, KEY_LEN_MAX, RecordType, Row, SEGMENT_HEADER_LEN, decode_record,
    key_hash, payload_check,
};
use crate::holds::Hold;
use crate::index::{Index, Slot};
use crate::log::{self, segment_path};
use crate::media::{Media, files};
use crate::newest::Named;
use crate::orphans::parse;
use crate::quarantine::Quarantine;
use crate::records::{Records, split_key};
use crate::recovery::{self, ReadSegment};
use crate::space::blocks;
use crate::{OpenError, Result};

/// What an examination found. Every number but those of entries and segments counts something that is not as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examination {
    /// Entries.
    pub entries: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Segments that cannot be read at all, by number.
    pub unreadable_segments: Vec<u32>,
    /// Segments whose header fails its check, by number.
    pub damaged_segments: Vec<u32>,
    /// Segments before which others are missing, with records of which nothing is known.
    pub lost_before: Vec<u32>,
    /// Places in the log where a record should be, and none is whole.
    pub damaged_records: u64,
    /// Of these, the ones whose entry can be rebuilt from its payload file.
    pub mendable_records: u64,
    /// Entries whose payload file is not there, or too short.
    pub lost_files: u64,
    /// Payload files that no entry holds.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Of these, the ones whose entry can be rebuilt: the log knows nothing of its key, nor of anybody who held the file.
    pub rebuildable: u64,
    /// Payload files that an interrupted repair left to be looked at.
    pub waiting: u64,
    /// Names in the directory that are not the store's.
    pub foreign: Vec<String>,
}

/// What a repair goes by.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) found: Examination,
    pub(crate) seed: u64,
    /// Hashes of keys of which the log says something.
    pub(crate) known: HashSet<u128>,
    /// Spaces that were cleared.
    cleared: HashSet<Vec<u8>>,
    /// Groups that left.
    left: HashSet<(Vec<u8>, u32)>,
    /// Names of payload files that any record names, whether it speaks for an entry or not.
    named: HashSet<String>,
    /// Names of orphans whose entry can be rebuilt.
    pub(crate) rebuildable: Vec<String>,
    /// Rows of damaged records whose payload file has what they said, with the name of it.
    pub(crate) mendable: Vec<(Row, String)>,
}

/// A payload file's entry, as far as the beginning of the file tells.
#[derive(Debug)]
pub(crate) struct Inscription {
    pub(crate) header: Header,
    pub(crate) space: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) head: Vec<u8>,
    pub(crate) hash: u128,
}

/// Looks at all of a directory that no process has open as a store.
///
/// # Errors
/// For a directory that is no store, or one whose FORMAT is lost, and when it cannot be read.
pub fn examine(media: &dyn Media, dir: &Path) -> Result<Examination, OpenError> {
    Ok(plan(media, dir)?.found)
}

pub(crate) fn plan(media: &dyn Media, dir: &Path) -> Result<Plan, OpenError> {
    let seed = directory::look_at_format(media, dir)?;
    let mut plan = Plan { seed, ..Plan::default() };
    plan.look(media, dir).map_err(OpenError::io("read", dir))?;
    Ok(plan)
}

impl Plan {
    fn look(&mut self, media: &dyn Media, dir: &Path) -> io::Result<()> {
        self.found.foreign = directory::foreign_names(media, dir)?;
        let (log_dir, blob_dir) = (dir.join(log::DIR), dir.join(blobs::DIR));
        let list = |dir: &Path| match files(media, dir) {
            Ok(files) => Ok(files.collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HashMap::new()),
            Err(error) => Err(error),
        };
        let payloads: HashMap<String, u64> = list(&blob_dir)?;
        let mut damaged: Vec<(u32, Row)> = Vec::new();
        if media.list(&log_dir).is_ok() {
            self.look_at_log(media, &log_dir, &mut damaged)?;
        }
        let mut held = HashSet::new();
        if self.found.unreadable_segments.is_empty() && media.list(&log_dir).is_ok() {
            let index = Index::new();
            let recovered = recovery::recover(&log_dir, media, self.seed, Access::ReadOnly, &index)?;
            for Named { hold: Hold { reference, .. }, payload_len, .. } in &recovered.named {
                let name = blobs::name(reference);
                let least = u64::from(reference.payload_offset) + u64::from(*payload_len);
                self.found.lost_files += u64::from(payloads.get(&name).is_none_or(|len| *len < least));
                held.insert(name);
            }
            self.found.entries = index.shards_from(0).map(|shard| shard.len() as u64).sum();
            // By place: of an entry that was rewritten there are two records of one number.
            damaged.retain(|(segment, row)| {
                let speaks = |slot: &Slot| (slot.place.segment, slot.place.offset) == (*segment, row.offset);
                index.shard(row.hash).get(row.hash).is_some_and(speaks)
            });
        } else {
            damaged.clear();
        }
        for (_, row) in damaged {
            self.look_at_damaged(media, &blob_dir, row)?;
        }
        if self.found.unreadable_segments.is_empty() {
            for (name, len) in payloads.into_iter().filter(|(name, _)| !held.contains(name)) {
                self.found.orphans += 1;
                self.found.orphan_bytes += blocks(len);
                if self.is_rebuildable(media, &blob_dir.join(&name), &name, len)? {
                    self.rebuildable.push(name);
                }
            }
        }
        self.found.rebuildable = self.rebuildable.len() as u64;
        self.found.waiting = Quarantine::waiting(dir, media)?.len() as u64;
        Ok(())
    }

    fn look_at_log(
        &mut self,
        media: &dyn Media,
        dir: &Path,
        damaged: &mut Vec<(u32, Row)>,
    ) -> io::Result<()> {
        let mut last: Option<u32> = None;
        let mut next_seq = 1;
        for id in recovery::segment_ids(dir, media)? {
            let mut spaces = vec![Vec::new()];
            let path = segment_path(dir, id);
            let read = media.open(&path, false).and_then(|file| {
                let read = recovery::read_segment(&file, self.seed, &mut spaces)?;
                let mut bytes = vec![0; file.length()? as usize];
                file.read_at(&mut bytes, 0)?;
                Ok(read.map(|read| (read, bytes)))
            });
            match read {
                Err(_) => self.found.unreadable_segments.push(id),
                // As a power cut leaves one that was begun just before.
                Ok(None) => {}
                Ok(Some((read, bytes))) => {
                    self.found.segments += 1;
                    let is_gap = last.is_some_and(|last| last + 1 < id);
                    if is_gap && read.is_headed && read.created_seq > next_seq {
                        self.found.lost_before.push(id);
                    }
                    let seqs = read.rows.iter().map(|row| row.seq + 1);
                    next_seq = seqs.fold(next_seq.max(read.created_seq), u64::max);
                    self.look_at_segment(id, read, &bytes, &spaces, damaged);
                }
            }
            last = Some(id);
        }
        Ok(())
    }

    fn look_at_segment(
        &mut self,
        id: u32,
        read: ReadSegment,
        bytes: &[u8],
        spaces: &[Vec<u8>],
        damaged: &mut Vec<(u32, Row)>,
    ) {
        if !read.is_headed {
            self.found.damaged_segments.push(id);
        }
        if !read.is_sealed {
            self.found.damaged_records += gaps(bytes, read.end, self.seed);
        }
        for row in read.rows {
            let references = row.reference.iter().chain(row.base.iter().map(|base| &base.reference));
            self.named.extend(references.map(blobs::name));
            let space = spaces.get(usize::from(row.space)).cloned().unwrap_or_default();
            match row.record_type {
                RecordType::Put | RecordType::Tombstone => _ = self.known.insert(row.hash),
                RecordType::Clear => _ = self.cleared.insert(space),
                RecordType::Leave => _ = self.left.insert((space, row.hash as u32)),
            }
            if read.is_sealed && row.record_type == RecordType::Put && !is_whole(bytes, &row, self.seed) {
                self.found.damaged_records += 1;
                damaged.push((id, row));
            }
        }
    }

    /// A live entry whose record is damaged: its payload file may have all of it.
    fn look_at_damaged(&mut self, media: &dyn Media, dir: &Path, row: Row) -> io::Result<()> {
        let Some(reference) = &row.reference else { return Ok(()) };
        let name = blobs::name(reference);
        let inscription = inscription(media, &dir.join(&name), self.seed)?;
        if inscription.is_some_and(|inscription| inscription.hash == row.hash) {
            self.found.mendable_records += 1;
            self.mendable.push((row, name));
        }
        Ok(())
    }

    /// Whether an orphan is all that is left of an entry, and not one that was deleted, replaced or evicted. One that others
    /// shared or needed as a base may have outlived the last word on its own entry.
    fn is_rebuildable(&self, media: &dyn Media, path: &Path, name: &str, len: u64) -> io::Result<bool> {
        let Some(Inscription { header, space, hash, .. }) = inscription(media, path, self.seed)? else {
            return Ok(false);
        };
        let least = header.body_offset() as u64 + u64::from(header.payload_len);
        let has_left = header.group.is_some_and(|group| self.left.contains(&(space.clone(), group.get())));
        let is_known = self.known.contains(&hash)
            || self.named.contains(name)
            || self.cleared.contains(&space)
            || has_left;
        Ok(parse(name).is_some() && len >= least && !is_known)
    }
}

/// What a payload file says that it is of, if that much of it is whole and it takes no other file to read it. One that the medium does not give now may be whole.
pub(crate) fn inscription(media: &dyn Media, path: &Path, seed: u64) -> io::Result<Option<Inscription>> {
    let file = match media.open(path, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let most = (HEADER_LEN + KEY_LEN_MAX + HEAD_LEN_MAX) as u64;
    let mut bytes = vec![0; file.length()?.min(most) as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(decode_inscription(&bytes, seed))
}

fn decode_inscription(bytes: &[u8], seed: u64) -> Option<Inscription> {
    let record = decode_record(bytes, seed)?;
    let is_put = record.header.record_type == RecordType::Put && !record.header.is_external;
    let (space, key) = split_key(record.key).filter(|_| is_put && record.header.base.is_none())?;
    Some(Inscription {
        header: record.header,
        space: space.to_vec(),
        key: key.to_vec(),
        head: record.head.to_vec(),
        hash: key_hash(space, key, seed),
    })
}

/// Places between the records of a segment, up to the end of the last, where no whole one is.
fn gaps(bytes: &[u8], end: u64, seed: u64) -> u64 {
    let (mut gaps, mut at) = (0, SEGMENT_HEADER_LEN as u64);
    for (offset, record, payload) in Records::from(bytes, at, seed).take_while(|(offset, ..)| *offset < end) {
        let is_damaged =
            !record.header.is_external && payload_check(payload, seed) != record.header.payload_check;
        gaps += u64::from(offset > at) + u64::from(is_damaged);
        at = offset + record.header.record_len();
    }
    gaps
}

fn is_whole(bytes: &[u8], row: &Row, seed: u64) -> bool {
    let from = row.offset as usize;
    let Some(rest) = bytes.get(from..from + row.record_len as usize) else { return false };
    Records::from(rest, 0, seed).next().is_some_and(|(at, record, payload)| {
        at == 0
            && record.header.seq == row.seq
            && (record.header.is_external || payload_check(payload, seed) == record.header.payload_check)
    })
}
