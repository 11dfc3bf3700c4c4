//! What a crash left: payload files that no entry holds, which are removed while the store is in use.
//!
//! An open does not look for them, since that is a walk through all names in a directory of any size. A thread does, a while
//! later and at half speed, and an interrupted one begins anew with the next open. Nothing is to be kept of the walk: a file is
//! nobody's when it is come by, or it stays. See [`crate::orphans`] for why that holds.
//!
//! Until it is through nobody knows what these files take. It can be as much as the bound leaves: a space was cleared, say, and
//! the process killed before its files were gone. So the store may not grow by more than [`Space`](crate::space::Space) keeps
//! free for that. Who needs more room and may wait finishes the sweep first, at full speed; who may not is refused, and the thread
//! is told to hurry, as it is when half of that room is taken.
//!
//! Nor may it grow by as much once more with each process that dies before its sweep is through. So there is a mark in the
//! directory for as long as a sweep is not; an open that finds it sweeps before it returns. Not synced: a mark that a power cut
//! takes back is one death that is not counted.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::store::{Inner, Store};
use crate::{Result, StoreError};

/// The mark's name.
pub(crate) const MARK: &str = "UNSWEPT";
/// Ticks after the open: a command that only looks into a store is gone by then.
const AFTER_TICKS: u32 = 10;
/// How long after one that failed the next begins.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Names between two rests: some milliseconds' worth.
const NAMES_AT_ONCE: u32 = 1024;

/// How far it is.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// One at a time.
    turn: Mutex<()>,
    /// Files that it has come by.
    pub(crate) looked_at: AtomicU64,
    /// Somebody waits for it.
    is_urgent: AtomicBool,
    is_done: AtomicBool,
    /// Sweeps in the background.
    pub(crate) thread: OnceLock<Thread>,
    /// What was used at the open, in bytes, if the store may grow from there on.
    grows_from: OnceLock<u64>,
}

impl Store {
    /// Removes the payload files that a crash left, to the last one, if that is not done yet. In a bounded store it is done in
    /// the background as well, some time after the open.
    ///
    /// # Errors
    /// `Io` when the medium fails.
    pub fn sweep(&self) -> Result<()> {
        self.inner.check_writable()?;
        self.inner.finish_sweep()
    }
}

/// Sweeps in the background.
pub(crate) fn run(inner: &Inner) {
    thread::park_timeout(inner.options.tick.saturating_mul(AFTER_TICKS));
    while !inner.is_closing.load(Relaxed) && !inner.is_swept() {
        if let Err(error) = inner.sweep_slowly() {
            tracing::warn!(%error, "cannot remove what a crash left");
            thread::park_timeout(AGAIN_AFTER);
        }
    }
}

impl Inner {
    /// Bounds how much the store may grow before it is swept; where that is nothing, sweeps.
    pub(crate) fn begin_sweep(&self, is_new: bool) {
        if is_new {
            return self.note_swept();
        }
        // One that cannot be made would not be found either.
        if self.options.media.create(&self.mark()).is_ok() && self.space.set_ceiling() {
            _ = self.sweep.grows_from.set(self.space.used());
            return;
        }
        self.space.forbid_growth();
        if let Err(error) = self.finish_sweep() {
            tracing::warn!(%error, "cannot remove what a crash left");
        }
    }

    /// At the close: whoever did not grow leaves what it may grow by to the next.
    pub(crate) fn end_sweep(&self) {
        if !self.is_swept() && self.sweep.grows_from.get().is_some_and(|from| self.space.used() <= *from) {
            self.remove_mark();
        }
    }

    fn mark(&self) -> PathBuf {
        self.options.dir.join(MARK)
    }

    fn remove_mark(&self) {
        match self.options.media.remove(&self.mark()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "cannot remove the mark of an unfinished sweep: the next start takes longer");
            }
            _ => {}
        }
    }

    /// Whether nothing is left that a crash left.
    pub(crate) fn is_swept(&self) -> bool {
        self.sweep.is_done.load(Relaxed)
    }

    /// For whoever must know what is free, before anything else is done for room.
    pub(crate) fn finish_sweep(&self) -> Result<()> {
        self.sweep.is_urgent.store(true, Relaxed);
        let _turn = self.sweep.turn.lock();
        if self.is_swept() {
            return Ok(());
        }
        let swept = self.sweep_names(&mut |_| ControlFlow::Continue(()));
        match swept {
            // What cannot be removed is counted.
            Err(error) if self.is_swept() => tracing::warn!(%error, "cannot remove what a crash left"),
            swept => _ = swept?,
        }
        Ok(())
    }

    /// For whoever may not wait: whether it takes but a moment to see that a crash left nothing. If not, the background hurries.
    pub(crate) fn is_swept_soon(&self) -> bool {
        if self.is_swept() {
            return true;
        }
        let Some(turn) = self.sweep.turn.try_lock() else {
            self.hurry_sweep();
            return self.is_swept();
        };
        if self.is_nothing_left() {
            self.note_swept();
            return true;
        }
        drop(turn);
        self.hurry_sweep();
        false
    }

    /// Whether there are few files, and an entry for each.
    fn is_nothing_left(&self) -> bool {
        let Ok(names) = self.blobs.names() else { return false };
        names.enumerate().all(|(number, name)| {
            number < NAMES_AT_ONCE as usize
                && name.is_ok_and(|name| matches!(self.blobs.orphan(&name), Ok(None)))
        })
    }

    /// Has the background begin at once, and not rest.
    pub(crate) fn hurry_sweep(&self) {
        if !self.sweep.is_urgent.swap(true, Relaxed)
            && let Some(thread) = self.sweep.thread.get()
        {
            thread.unpark();
        }
    }

    /// Removes every payload file that no entry holds, whether a crash left it or not, and tells `found` of its length in bytes.
    pub(crate) fn sweep_again(
        &self,
        found: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        self.sweep.is_urgent.store(true, Relaxed);
        let _turn = self.sweep.turn.lock();
        self.sweep_names(&mut |orphan| orphan.map_or(ControlFlow::Continue(()), &mut *found))
    }

    fn note_swept(&self) {
        self.space.lift_ceiling();
        if !self.sweep.is_done.swap(true, Relaxed) {
            self.remove_mark();
        }
    }

    fn sweep_slowly(&self) -> Result<()> {
        let _turn = self.sweep.turn.lock();
        if self.is_swept() {
            return Ok(());
        }
        let (mut names, mut since) = (0, Instant::now());
        let swept = self.sweep_names(&mut |_| {
            names += 1;
            if names == NAMES_AT_ONCE && !self.sweep.is_urgent.load(Relaxed) {
                thread::park_timeout(since.elapsed());
                (names, since) = (0, Instant::now());
            }
            if self.is_closing.load(Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let orphans = self.counters.orphans.load(Relaxed);
        if swept.is_continue() && orphans > 0 {
            tracing::info!(orphans, "removed what a crash left");
        }
        Ok(())
    }

    /// Goes through the names of all payload files, removes those that nobody holds, and tells `each` how long that was. Whoever
    /// calls has the turn.
    fn sweep_names(&self, each: &mut dyn FnMut(Option<u64>) -> ControlFlow<()>) -> Result<ControlFlow<()>> {
        let list_failed = || StoreError::io("list the payload files", 0);
        let mut failure = None;
        self.sweep.looked_at.store(0, Relaxed);
        for name in self.blobs.names().map_err(list_failed())? {
            let orphan = self.blobs.orphan(&name.map_err(list_failed())?).map_err(list_failed())?;
            let mut removed = None;
            if let Some((path, len)) = orphan {
                // Of a rewritten entry the record that named it may be the only one that is down.
                self.sync_earlier().map_err(StoreError::io("sync", 0))?;
                match self.blobs.remove_orphan(&path, len) {
                    Ok(()) => {
                        self.counters.orphans.fetch_add(1, Relaxed);
                        removed = Some(len);
                    }
                    Err(error) => _ = failure.get_or_insert(error),
                }
            }
            self.sweep.looked_at.fetch_add(1, Relaxed);
            if each(removed).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.note_swept();
        match failure {
            Some(error) => Err(StoreError::io("remove a payload file", 0)(error)),
            None => Ok(ControlFlow::Continue(())),
        }
    }
}
