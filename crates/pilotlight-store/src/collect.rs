//! Collecting what nobody needs, when an operator asks: expired entries, orphans, dead bytes of the log.
//!
//! No entry that is alive leaves: of what is alive in a segment a copy is synced before the segment goes, and what cannot be read
//! or written stays as it is.

use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use crate::evict::{KEEP_OR_FAIL, Step};
use crate::format::SEGMENT_HEADER_LEN;
use crate::log::Segment;
use crate::media::Media;
use crate::space::{BLOCK, blocks};
use crate::store::{Inner, Store};
use crate::{Result, StoreError};

/// The log is cleaned until less than one part in so many of it is dead: to gain the rest costs more than it is worth.
const DEAD_SHARE: u64 = 16;

/// What a collection shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collect {
    /// Only say what there is to collect.
    Plan,
    /// Collect it.
    Run,
}

/// What a collection found, so far or in the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// What the directory took before, in bytes, as `du` counts.
    pub before_bytes: u64,
    /// What it takes now; of a plan, about what it would take.
    pub after_bytes: u64,
    /// Entries whose time had come.
    pub expired: u64,
    /// Payload files that no entry holds.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Bytes of the log that spoke for no entry.
    pub dead_bytes: u64,
    /// Segments of the log that were cleaned, or would be.
    pub segments: u64,
    /// Of so many.
    pub segments_total: u64,
}

impl Store {
    /// Removes what nobody needs and gives the space back, or says what there is of it. Calls `progress` now and then; `Break` ends
    /// the run early with what it did so far.
    ///
    /// # Errors
    /// `Io` or `DiskFull` when the medium fails, `ReadOnly` on one that nobody may write to. Everything that is alive is there
    /// then as before.
    pub fn collect(
        &self,
        what: Collect,
        progress: &mut dyn FnMut(&Collected) -> ControlFlow<()>,
    ) -> Result<Collected> {
        match what {
            Collect::Plan => self.inner.plan_collection(),
            Collect::Run => self.inner.collect(progress),
        }
    }
}

impl Store {
    /// Rewrites the log up to the segment `id`; gives how many segments that were.
    ///
    /// # Errors
    /// As [`Store::collect`].
    pub fn rewrite_through(&self, id: u32) -> Result<u64> {
        self.inner.rewrite_through(id)
    }
}

impl Inner {
    fn plan_collection(&self) -> Result<Collected> {
        let mut found = self.begin_collection()?;
        let now_ms = self.options.clock.now_ms();
        let mut expired_bytes = 0;
        for shard in self.index.shards_from(0) {
            for slot in shard.iter().filter(|slot| slot.is_expired(now_ms)) {
                found.expired += 1;
                expired_bytes += slot.stored_bytes();
            }
        }
        let failed = || StoreError::io("list the payload files", 0);
        for orphan in self.blobs.orphans().map_err(failed())? {
            let (_, len) = orphan.map_err(failed())?;
            found.orphans += 1;
            found.orphan_bytes += blocks(len);
        }
        let all = self.log.all();
        found.dead_bytes = dead_in(&all);
        let is_worth_it = is_worth_it(&all);
        found.segments = if is_worth_it { found.segments_total } else { 0 };
        let log_bytes = if is_worth_it { found.dead_bytes } else { 0 };
        found.after_bytes = found.before_bytes.saturating_sub(found.orphan_bytes + log_bytes + expired_bytes);
        Ok(found)
    }

    fn begin_collection(&self) -> Result<Collected> {
        let before_bytes = self.disk_bytes()?;
        let segments_total = self.log.all().len() as u64;
        Ok(Collected { before_bytes, after_bytes: before_bytes, segments_total, ..Collected::default() })
    }

    fn collect(&self, progress: &mut dyn FnMut(&Collected) -> ControlFlow<()>) -> Result<Collected> {
        self.check_writable()?;
        self.tidy();
        let mut found = self.begin_collection()?;
        let mut flow = self.collect_expired(&mut found, progress);
        if flow.is_continue() {
            flow = self.collect_orphans(&mut found, progress)?;
        }
        if flow.is_continue() {
            self.compact(&mut found, progress)?;
        }
        self.blobs.drain_pool().map_err(StoreError::io("remove an empty file", 0))?;
        self.sync_all().map_err(StoreError::io("sync", 0))?;
        found.after_bytes = self.disk_bytes()?;
        Ok(found)
    }

    fn collect_expired(
        &self,
        found: &mut Collected,
        progress: &mut dyn FnMut(&Collected) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        loop {
            let before = self.counters.expired.load(Relaxed);
            self.expire();
            // The background may have its share in them.
            let expired = self.counters.expired.load(Relaxed) - before;
            found.expired += expired;
            progress(found)?;
            if expired == 0 {
                return ControlFlow::Continue(());
            }
        }
    }

    fn collect_orphans(
        &self,
        found: &mut Collected,
        progress: &mut dyn FnMut(&Collected) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        self.sweep_again(&mut |len| {
            found.orphans += 1;
            found.orphan_bytes += blocks(len);
            progress(found)
        })
    }

    /// Writes everything alive in the segments up to `id` again and removes them: what is damaged in there goes with them. Entries
    /// whose record is damaged should be set aside before.
    fn rewrite_through(&self, id: u32) -> Result<u64> {
        self.check_writable()?;
        self.flush().map_err(StoreError::io("append to the log", 0))?;
        let all = self.log.all();
        if all.last().is_some_and(|last| last.id <= id) {
            self.log.rotate();
        }
        let mut rewritten = 0;
        // One whose cleaning did not go through is tried once more.
        for _ in 0..2 * all.len() {
            let _room = self.room.lock();
            let oldest = self.log.sealed().into_iter().next();
            let Some(oldest) = oldest.filter(|segment| segment.id <= id) else { break };
            self.clean(&oldest, KEEP_OR_FAIL)?;
            rewritten += 1;
        }
        self.sync_all().map_err(StoreError::io("sync", 0))?;
        Ok(rewritten)
    }

    /// Goes once around the log, while there is enough dead in what it has still to go around.
    fn compact(
        &self,
        found: &mut Collected,
        progress: &mut dyn FnMut(&Collected) -> ControlFlow<()>,
    ) -> Result<()> {
        self.flush().map_err(StoreError::io("append to the log", 0))?;
        let all = self.log.all();
        found.dead_bytes = dead_in(&all);
        let Some(last) = all.last().filter(|_| is_worth_it(&all)) else { return Ok(()) };
        if is_worth_it(std::slice::from_ref(last)) {
            self.log.rotate();
        }
        // A segment whose cleaning did not go through is tried once more.
        for _ in 0..2 * all.len() {
            let room = self.room.lock();
            let left: Vec<_> =
                self.log.sealed().into_iter().filter(|segment| segment.id <= last.id).collect();
            let Some(oldest) = left.first().filter(|_| is_worth_it(&left)) else { break };
            let step = self.clean(oldest, KEEP_OR_FAIL)?;
            drop(room);
            found.segments += u64::from(matches!(step, Step::Freed | Step::Turned));
            if progress(found).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64> {
        disk_bytes(&*self.options.media, &self.options.dir).map_err(StoreError::io("list the directory", 0))
    }
}

fn dead_in(segments: &[std::sync::Arc<Segment>]) -> u64 {
    let dead = |segment: &Segment| {
        let records = segment.end.load(Relaxed).saturating_sub(SEGMENT_HEADER_LEN as u64);
        records.saturating_sub(segment.live.load(Relaxed))
    };
    segments.iter().map(|segment| dead(segment)).sum()
}

fn is_worth_it(segments: &[std::sync::Arc<Segment>]) -> bool {
    let total: u64 = segments.iter().map(|segment| segment.end.load(Relaxed)).sum();
    dead_in(segments) > total / DEAD_SHARE
}

/// What the files in a store's directory take, about as `du` counts.
pub(crate) fn disk_bytes(media: &dyn Media, dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for (name, len) in media.list(dir)? {
        let Some(len) = len else {
            bytes += BLOCK;
            let dir = dir.join(name);
            for name in media.names(&dir)? {
                bytes += match media.length(&dir.join(name?)) {
                    Err(error) if error.kind() == ErrorKind::NotFound => 0,
                    len => len?.map_or(0, blocks),
                };
            }
            continue;
        };
        bytes += blocks(len);
    }
    Ok(bytes)
}
