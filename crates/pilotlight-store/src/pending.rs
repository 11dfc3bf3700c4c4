//! What was appended to the log and is not in its file yet.
//!
//! An entry is *staged* when its record is appended and the index names it; it is *settled* when the record is in its
//! file, and acknowledged only then. The records of many puts go into the file with one system call, which for a small
//! entry costs more than all the rest of its put. Readers find what is staged in memory, so nobody waits for the call.
//!
//! When the call fails, every record that is not in a file yet is taken back, newest first: the index names again what it
//! named before, and whoever staged one of them is told when settling.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::batch::{Batch, Chunk};
use crate::holds::Hold;
use crate::index::{Place, Slot};
use crate::log::{Log, Segment, lock_soon};
use crate::store::Inner;
use crate::{Result, StoreError};

/// Whoever stages with this much waiting settles it first.
const STAGED_BYTES_MAX: usize = 1 << 20;
/// A longer buffer is given back after use.
const KEPT_BYTES_MAX: usize = 256 << 10;
/// As many undos are kept room for.
const KEPT_UNDOS_MAX: usize = 1024;
/// Ranges of refused sequence numbers that are remembered: far more failures than can lie between staging and settling.
const REFUSED_MAX: usize = 4096;

/// How the index changes with a record.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// The slot that goes.
    pub(crate) old: Option<Slot>,
    /// Whether one comes.
    pub(crate) names_record: bool,
    /// The payload files that the old slot holds: let go when the record is in its file.
    pub(crate) old_files: Vec<Hold>,
    /// The payload files that the new slot holds: let go if the record is taken back.
    pub(crate) new_files: Vec<Hold>,
    /// Both slots are of one put.
    pub(crate) is_rewrite: bool,
}

/// What is taken back if a record never reaches its file.
#[derive(Debug)]
pub(crate) struct Undo {
    pub(crate) hash: u128,
    pub(crate) seq: u64,
    pub(crate) place: Place,
    pub(crate) change: Change,
}

/// A payload file that nobody needs any longer.
#[derive(Debug)]
enum Freed {
    AtOnce(Hold),
    /// Its entry was replaced: should a power cut take the new record, the old one speaks again, and needs it. Of an entry
    /// that was removed nobody expects that much.
    WhenSynced(Hold),
    /// The same, in a `relaxed` store too: its entry was rewritten, and may be as old as the store.
    NotBeforeSync(Hold),
}

impl Freed {
    /// What the record whose undo this is frees.
    fn by(undo: Undo) -> impl Iterator<Item = Self> {
        let Change { names_record, old_files, is_rewrite, .. } = undo.change;
        let freed = match (names_record, is_rewrite) {
            (_, true) => Self::NotBeforeSync,
            (true, false) => Self::WhenSynced,
            (false, false) => Self::AtOnce,
        };
        old_files.into_iter().map(freed)
    }
}

/// What the log has not written yet. Locked with the end of the log.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) batch: Batch,
    undos: Vec<Undo>,
    /// Being written. It stays readable here until it is.
    writing: Option<Arc<Batch>>,
    /// A write failed, and what it should have written is being taken back.
    is_failing: bool,
    /// Segments that refused bytes may follow the end of, with that end: the medium would not have them cut off. While
    /// there is one nothing is appended, for an open would find what was refused, and newer than what was not.
    uncut: Vec<(Arc<Segment>, u64)>,
    /// Payload files that those bytes may name: held until they are cut off.
    named_by_uncut: Vec<Hold>,
    /// Reused from batch to batch.
    spare_undos: Vec<Undo>,
}

impl Pending {
    /// # Errors
    /// While a failed write is taken back: nothing may be built upon what goes. And until what it left is cut off.
    pub(crate) fn check_sound(&mut self) -> io::Result<()> {
        if self.is_failing {
            return Err(io::Error::other("a write before it failed"));
        }
        while let Some((segment, end)) = self.uncut.last() {
            segment.file.set_len(*end)?;
            self.uncut.pop();
        }
        Ok(())
    }

    /// Payload files that nobody names any longer.
    fn freed(&mut self) -> Vec<Hold> {
        if self.uncut.is_empty() { mem::take(&mut self.named_by_uncut) } else { Vec::new() }
    }

    pub(crate) fn note_undo(&mut self, undo: Undo) {
        self.undos.push(undo);
    }

    fn read(&self, segment: u32, offset: u64, len: usize) -> Option<Vec<u8>> {
        let in_writing = || self.writing.as_ref().and_then(|batch| batch.read(segment, offset, len));
        self.batch.read(segment, offset, len).or_else(in_writing)
    }
}

/// The sequence numbers of records that were taken back.
#[derive(Debug, Default)]
pub(crate) struct Refused(Vec<(u64, u64, io::ErrorKind)>);

impl Refused {
    fn add(&mut self, first: u64, last: u64, kind: io::ErrorKind) {
        match self.0.last_mut() {
            Some((_, end, old_kind)) if *end + 1 >= first && *old_kind == kind => *end = last,
            _ => self.0.push((first, last, kind)),
        }
        if self.0.len() > REFUSED_MAX {
            self.0.remove(0);
        }
    }

    fn find(&self, seq: u64) -> Option<io::ErrorKind> {
        self.0.iter().rev().find(|(first, last, _)| (*first..=*last).contains(&seq)).map(|(.., kind)| *kind)
    }
}

impl Log {
    /// Bytes of `segment`, which may not be in its file yet. `None` when `read_file` gives that.
    pub(crate) fn read(
        &self,
        segment: &Segment,
        offset: u64,
        len: usize,
        read_file: impl FnOnce() -> io::Result<Option<Vec<u8>>>,
    ) -> io::Result<Option<Vec<u8>>> {
        if offset + len as u64 > segment.written.load(Acquire)
            && let Some(bytes) = self.active.lock().pending.read(segment.id, offset, len)
        {
            return Ok(Some(bytes));
        }
        read_file()
    }

    /// How often a write failed so far.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Acquire)
    }

    fn has_too_much_pending(&self) -> bool {
        self.pending_len.load(Relaxed) > STAGED_BYTES_MAX
    }

    /// What is to be written now; it stays readable.
    fn begin_write(&self) -> Option<(Arc<Batch>, Vec<Undo>)> {
        let mut active = self.lock_active();
        let pending = &mut active.pending;
        if pending.batch.chunks.is_empty() {
            return None;
        }
        let batch = Arc::new(mem::take(&mut pending.batch));
        pending.writing = Some(batch.clone());
        let spare = mem::take(&mut pending.spare_undos);
        self.pending_len.store(0, Relaxed);
        Some((batch, mem::replace(&mut pending.undos, spare)))
    }

    /// Notes that the batch is in its files, and gives the payload files that nobody needs any longer.
    fn end_write(&self, batch: Arc<Batch>, mut undos: Vec<Undo>) -> Vec<Freed> {
        let mut files: Vec<Freed> = undos.drain(..).flat_map(Freed::by).collect();
        for chunk in &batch.chunks {
            chunk.segment.written.store(chunk.from + chunk.bytes.len() as u64, Release);
        }
        self.written_seq.fetch_max(batch.last_seq, Release);
        let mut active = self.lock_active();
        self.note_written(&active, batch.chunks.iter().map(|chunk| &chunk.segment));
        files.extend(active.pending.freed().into_iter().map(Freed::AtOnce));
        active.pending.writing = None;
        let chunk = Arc::into_inner(batch).and_then(|mut batch| batch.chunks.pop());
        if let Some(mut bytes) =
            chunk.map(|chunk| chunk.bytes).filter(|bytes| bytes.capacity() <= KEPT_BYTES_MAX)
        {
            bytes.clear();
            active.pending.batch.spare_bytes = bytes;
        }
        if undos.capacity() <= KEPT_UNDOS_MAX {
            active.pending.spare_undos = undos;
        }
        files
    }

    /// Refuses further records, and adds to `undos` those of records that came meanwhile.
    fn begin_undo(&self, undos: &mut Vec<Undo>) {
        let mut active = self.lock_active();
        active.pending.is_failing = true;
        undos.append(&mut active.pending.undos);
    }

    /// Cuts what was not written off the log, and goes on. `files` are the payload files it names; those that nobody
    /// names any longer come back.
    fn end_undo(&self, kind: io::ErrorKind, mut files: Vec<Hold>) -> Vec<Hold> {
        let mut active = self.lock_active();
        let late = mem::take(&mut active.pending.batch);
        let failed = active.pending.writing.take();
        let first_seq = failed.as_ref().map_or(0, |batch| batch.first_seq);
        let first_seq = if first_seq == 0 { late.first_seq } else { first_seq };
        let failed = failed.as_deref().into_iter().flat_map(|batch| &batch.chunks);
        let chunks: Vec<&Chunk> = failed.chain(&late.chunks).collect();
        // The last first: of two chunks of one segment the first has the last word.
        for chunk in chunks.iter().rev() {
            // Some of it may be whole: it was refused, so no open may find it.
            if chunk.segment.file.set_len(chunk.from).is_err() {
                active.pending.uncut.push((chunk.segment.clone(), chunk.from));
            }
            chunk.segment.end.store(chunk.from, Relaxed);
            chunk.segment.written.store(chunk.from, Release);
            self.cut(&mut active, &chunk.segment, chunk.rows);
        }
        // The cut must survive a power cut as a record would.
        self.note_written(&active, chunks.iter().map(|chunk| &chunk.segment));
        active.pending.named_by_uncut.append(&mut files);
        let last_seq = active.next_seq - 1;
        if first_seq != 0 {
            self.refused.lock().add(first_seq, last_seq, kind);
        }
        self.failures.fetch_add(1, Release);
        self.written_seq.fetch_max(last_seq, Release);
        self.pending_len.store(0, Relaxed);
        active.pending.is_failing = false;
        active.pending.freed()
    }
}

impl Inner {
    /// Waits until the record numbered `seq` is in its file; writes it, and all that wait with it, if nobody does.
    ///
    /// No shard may be locked: a write that fails is taken back there.
    ///
    /// # Errors
    /// When it could not be written. It is taken back then.
    pub(crate) fn settle(&self, seq: u64) -> Result<()> {
        let settled = self.settle_untidied(seq);
        self.tidy();
        settled
    }

    /// The same, for whoever waits for nothing else: the payload files that are free now are left to [`Inner::tidy`].
    ///
    /// # Errors
    /// As [`Inner::settle`].
    pub(crate) fn settle_untidied(&self, seq: u64) -> Result<()> {
        if self.log.written_seq.load(Acquire) < seq {
            let turn = lock_soon(&self.log.turn);
            // Whoever had the turn may have written it.
            if self.log.written_seq.load(Acquire) < seq {
                // Its outcome stands among the refused.
                let _ = self.write_pending(turn);
            }
        }
        if self.log.failures() == 0 {
            return Ok(());
        }
        match self.log.refused.lock().find(seq) {
            Some(kind) => Err(StoreError::io("append to the log", 0)(kind.into())),
            None => Ok(()),
        }
    }

    /// Settles everything that is staged.
    ///
    /// # Errors
    /// When some of it could not be written.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let written = self.write_pending(lock_soon(&self.log.turn));
        self.tidy();
        written
    }

    /// Frees the payload files that nobody needs any longer, and says whether there were any. To cut a file off costs as much
    /// as the rest of a put: who waits for the answer to one need not wait for that.
    pub(crate) fn tidy(&self) -> bool {
        // What another has taken in hand is not free before that one is through.
        self.tidy_holding(self.tidying.lock())
    }

    /// The same, unless another is at it: for whoever needs no room.
    pub(crate) fn try_tidy(&self) -> bool {
        self.tidying.try_lock().is_some_and(|tidying| self.tidy_holding(tidying))
    }

    fn tidy_holding(&self, _tidying: parking_lot::MutexGuard<'_, ()>) -> bool {
        let files = mem::take(&mut *self.untidied.lock());
        files.iter().for_each(|file| self.blobs.release(file));
        !files.is_empty()
    }

    /// Settles what is staged if it is much.
    pub(crate) fn relieve(&self) {
        if self.log.has_too_much_pending() {
            // Whoever staged what is refused here learns it when settling.
            let _ = self.flush();
        }
    }

    fn write_pending(&self, turn: parking_lot::MutexGuard<'_, ()>) -> io::Result<()> {
        let Some((batch, mut undos)) = self.log.begin_write() else { return Ok(()) };
        let result = batch.write(self.options.durability);
        let files = match &result {
            Ok(()) => self.log.end_write(batch, undos),
            Err(error) => {
                self.log.begin_undo(&mut undos);
                let mut gone = Vec::new();
                let named = undos.into_iter().rev().flat_map(|undo| self.undo(undo, &mut gone)).collect();
                gone.append(&mut self.log.end_undo(error.kind(), named));
                tracing::warn!(%error, "cannot append to the log: what was not in it yet is taken back");
                gone.into_iter().map(Freed::AtOnce).collect()
            }
        };
        drop(turn);
        for file in files {
            match file {
                Freed::NotBeforeSync(file) => self.replaced.lock().push(file),
                Freed::WhenSynced(file) if !self.is_relaxed() => self.replaced.lock().push(file),
                Freed::WhenSynced(file) | Freed::AtOnce(file) => self.untidied.lock().push(file),
            }
        }
        result
    }

    /// Makes the index what it was before the record, and says which payload files the record held. An old entry that was
    /// cleared meanwhile, or whose segment was, does not come back: its payload files are `gone`.
    fn undo(&self, undo: Undo, gone: &mut Vec<Hold>) -> Vec<Hold> {
        let Undo { hash, seq, place, mut change } = undo;
        if change.old.is_some_and(|old| self.is_gone(&old)) {
            change.old = None;
            gone.append(&mut change.old_files);
        }
        let mut shard = self.index.shard(hash);
        let current = shard.get(hash).copied();
        if change.names_record {
            self.log.note_dead(&place);
        }
        let is_ours =
            current.map(|slot| (slot.seq, slot.place)) == change.names_record.then_some((seq, place));
        if is_ours {
            match change.old {
                Some(old) => {
                    shard.insert(old);
                    self.log.note_alive(&old.place);
                    // Its time may have come while the other stood in its place.
                    self.index.note_expiry(old.expires_ms, hash);
                }
                None => {
                    shard.remove(hash);
                }
            }
            self.count(current.as_ref(), change.old.as_ref());
        }
        change.new_files
    }

    fn is_gone(&self, old: &Slot) -> bool {
        let tallies = self.tallies.read();
        let cleared_seq =
            tallies.get(usize::from(old.space)).map_or(0, |tally| tally.cleared_seq.load(Relaxed));
        let left_seq = old.group().map_or(0, |group| self.groups.left_seq(group));
        old.seq < cleared_seq.max(left_seq) || self.log.segment(old.place.segment).is_none()
    }
}
