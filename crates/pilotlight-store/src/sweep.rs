//! What a crash left: payload files that no entry holds, which are removed while the store is in use.
//!
//! An open does not look for them, since that is a walk through all names in a directory of any size. A thread does, a while
//! later and at half speed, and an interrupted one begins anew with the next open. Nothing is to be kept of the walk: a file is
//! nobody's when it is come by, or it stays. See [`crate::orphans`] for why that holds.
//!
//! Until it is through nobody knows what these files take. It can be as much as the bound leaves: a space was cleared, say, and
//! the process killed before its files were gone. So the store may not grow by more than [`Space`](crate::space::Space) keeps
//! free for that, and a put that needs more room finishes the sweep first, at full speed.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::store::{Inner, Store};
use crate::{Result, StoreError};

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
    /// Somebody waits for it.
    is_urgent: AtomicBool,
    is_done: AtomicBool,
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

    /// Removes every payload file that no entry holds, whether a crash left it or not, and tells `found` of its length in bytes.
    pub(crate) fn sweep_again(
        &self,
        found: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        self.sweep.is_urgent.store(true, Relaxed);
        let _turn = self.sweep.turn.lock();
        self.sweep_names(&mut |orphan| orphan.map_or(ControlFlow::Continue(()), &mut *found))
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
            if each(removed).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.space.lift_ceiling();
        self.sweep.is_done.store(true, Relaxed);
        match failure {
            Some(error) => Err(StoreError::io("remove a payload file", 0)(error)),
            None => Ok(ControlFlow::Continue(())),
        }
    }
}
