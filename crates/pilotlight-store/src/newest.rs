//! Which of all records speaks for its key: the rules of [`crate::recovery`], applied one segment after the other.
//!
//! The index is filled on the way, and holds at any time what the segments so far say. Besides it there are the tombstones, which
//! the cleaner lets live for one turn of the log, and the payload files that records named.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::format::{RecordType, Row, payload_check};
use crate::holds::{Hold, Role};
use crate::index::{Index, Place, Slot};
use crate::log::Segment;
use crate::policy::Standing;
use crate::records::Records;

/// What the segments so far say.
#[derive(Debug)]
pub(crate) struct Newest<'a> {
    index: &'a Index,
    seed: u64,
    /// By key hash, the highest number of a tombstone.
    removed: HashMap<u128, u64>,
    /// By space, that of a clear.
    cleared: HashMap<u16, u64>,
    /// By space and group, that of a record that the group left.
    left: HashMap<(u16, u32), u64>,
    named: Vec<Named>,
}

/// A payload file that an entry's record names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named {
    pub(crate) hash: u128,
    pub(crate) seq: u64,
    place: Place,
    pub(crate) hold: Hold,
    pub(crate) payload_len: u32,
    pub(crate) space: u16,
}

impl<'a> Newest<'a> {
    pub(crate) fn new(index: &'a Index, seed: u64) -> Self {
        let (removed, cleared, left, named) = Default::default();
        Self { index, seed, removed, cleared, left, named }
    }

    /// Adds what a segment says. They come in the order of their numbers.
    pub(crate) fn add(&mut self, segment: &Segment, rows: &[Row]) -> io::Result<()> {
        for row in rows {
            let seq = match row.record_type {
                RecordType::Clear => self.cleared.entry(row.space).or_default(),
                RecordType::Leave => self.left.entry((row.space, row.hash as u32)).or_default(),
                RecordType::Tombstone => {
                    let mut shard = self.index.shard(row.hash);
                    if shard.get(row.hash).is_some_and(|slot| slot.seq < row.seq) {
                        shard.remove(row.hash);
                    }
                    self.removed.entry(row.hash).or_default()
                }
                RecordType::Put => {
                    self.put(segment, row)?;
                    continue;
                }
            };
            *seq = row.seq.max(*seq);
        }
        Ok(())
    }

    fn put(&mut self, segment: &Segment, row: &Row) -> io::Result<()> {
        if self.removed.get(&row.hash).is_some_and(|seq| *seq > row.seq) {
            return Ok(());
        }
        let slot = slot(segment.id, row);
        let mut shard = self.index.shard(row.hash);
        match shard.get_mut(row.hash) {
            None => {
                shard.insert(slot);
            }
            Some(other) if other.seq > row.seq => return Ok(()),
            // A record that was being moved when the process died is there twice, and one that was rewritten until the
            // cleaner comes by. The copy is taken, if it is whole: the cleaner drops originals without a tombstone, and an
            // untaken copy would come back at a later open. One that cannot be read now may be whole: files that only it
            // names must not go.
            Some(other) if other.seq == row.seq && !is_whole(segment, row, self.seed)? => return Ok(()),
            Some(other) => *other = slot,
        }
        let Slot { hash, seq, place, space, .. } = slot;
        let payload = row.reference.map(|reference| (Role::Payload, reference, row.payload_len));
        let base = row.base.map(|base| (Role::Base, base.reference, base.payload_len));
        for (role, reference, payload_len) in payload.into_iter().chain(base) {
            self.named.push(Named { hash, seq, place, hold: Hold { reference, role }, payload_len, space });
        }
        Ok(())
    }

    /// Takes out what a clear or a leave speaks for, counts what is alive in which segment, and says which payload files are named.
    pub(crate) fn finish(mut self, segments: &BTreeMap<u32, Arc<Segment>>) -> Vec<Named> {
        if !self.cleared.is_empty() || !self.left.is_empty() {
            for mut shard in self.index.shards_from(0) {
                let gone: Vec<u128> =
                    shard.iter().filter(|slot| self.is_gone(slot)).map(|slot| slot.hash).collect();
                for hash in gone {
                    shard.remove(hash);
                }
            }
        }
        for shard in self.index.shards_from(0) {
            for slot in shard.iter() {
                if let Some(segment) = segments.get(&slot.place.segment) {
                    segment.live.fetch_add(u64::from(slot.place.record_len), Relaxed);
                }
            }
        }
        let index = self.index;
        self.named.retain(|named| {
            let is_it = |slot: &Slot| (slot.seq, slot.place) == (named.seq, named.place);
            index.shard(named.hash).get(named.hash).is_some_and(is_it)
        });
        self.named
    }

    fn is_gone(&self, slot: &Slot) -> bool {
        let left = slot.group_number.and_then(|group| self.left.get(&(slot.space, group.get())));
        self.cleared.get(&slot.space).into_iter().chain(left).any(|seq| *seq > slot.seq)
    }
}

/// The slot of a record; what it is worth is not known yet.
fn slot(segment: u32, row: &Row) -> Slot {
    Slot {
        hash: row.hash,
        seq: row.seq,
        expires_ms: row.expires_ms,
        created_ms: row.created_ms,
        place: Place { segment, offset: row.offset, record_len: row.record_len },
        payload_len: row.payload_len,
        logical_len: row.logical_len,
        cost_ms: row.cost_ms,
        accessed_s: (row.created_ms / 1000) as u32,
        standing: Standing::default(),
        hits: 0,
        space: row.space,
        group_number: row.group,
        is_external: row.reference.is_some(),
        is_pinned: row.is_pinned,
        is_base: false,
        is_rewritten: row.is_rewritten,
        base_len: row.base.map_or(0, |base| base.payload_len),
    }
}

/// Whether the row's record passes its checks.
fn is_whole(segment: &Segment, row: &Row, seed: u64) -> io::Result<bool> {
    let mut bytes = vec![0; row.record_len as usize];
    match segment.file.read_at(&mut bytes, row.offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read?,
    }
    Ok(Records::from(&bytes, 0, seed).next().is_some_and(|(at, record, payload)| {
        at == 0
            && record.header.seq == row.seq
            && (record.header.is_external || payload_check(payload, seed) == record.header.payload_check)
    }))
}
