//! What happens without being asked: expiry, room ahead of need, syncs, and [`crate::sweep`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::store::Inner;
use crate::{Durability, sweep};

/// How long `batch` lets others join a sync; the sync itself takes up the rest of the promised 5 ms on a good disk.
const GATHER: Duration = Duration::from_millis(1);
/// How often `relaxed` syncs.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Expired entries removed at a time.
const EXPIRE_AT_ONCE: usize = 4096;

pub(crate) fn start(inner: &Arc<Inner>) -> io::Result<Vec<JoinHandle<()>>> {
    let spawn = |name: &str, run: fn(&Inner)| {
        let inner = inner.clone();
        thread::Builder::new().name(format!("store-{name}")).spawn(move || run(&inner))
    };
    let mut threads = vec![spawn("tick", tick)?, spawn("sync", sync)?];
    if inner.is_bounded() {
        let sweeper = spawn("sweep", sweep::run)?;
        _ = inner.sweep.thread.set(sweeper.thread().clone());
        threads.push(sweeper);
    }
    Ok(threads)
}

fn tick(inner: &Inner) {
    loop {
        // First: an open has made room already, and what a tick of an hour's length shall leave alone it leaves alone.
        thread::park_timeout(inner.options.tick);
        if inner.is_closing.load(Relaxed) {
            return;
        }
        inner.expire();
        inner.index.trim_expiries(inner.entries());
        // A twentieth ahead of need.
        let spare = inner.space.spare();
        if inner.space.excess(spare) > 0 {
            inner.make_room(2 * spare);
        }
    }
}

fn sync(inner: &Inner) {
    // A put may share a payload file that was there at the open.
    let sync_both = || inner.sync_earlier().and_then(|()| inner.sync_all());
    match inner.options.durability {
        Durability::Batch => inner.committer.run(GATHER, sync_both),
        Durability::Always => inner.committer.run(Duration::ZERO, sync_both),
        Durability::Relaxed => sync_now_and_then(inner),
    }
}

fn sync_now_and_then(inner: &Inner) {
    let mut synced_seq = inner.log.last_seq();
    let mut started = Instant::now();
    while !inner.is_closing.load(Relaxed) {
        thread::park_timeout(SYNC_EVERY.saturating_sub(started.elapsed()));
        started = Instant::now();
        // Not at once, and not at the end: a command that only looks into a store is gone by now, and need not wait.
        let is_closing = inner.is_closing.load(Relaxed);
        let earlier = if is_closing { Ok(()) } else { inner.sync_earlier() };
        if let Err(error) = earlier.and_then(|()| sync_what_came(inner, &mut synced_seq)) {
            tracing::warn!(%error, "cannot sync the store");
        }
    }
}

fn sync_what_came(inner: &Inner, synced_seq: &mut u64) -> io::Result<()> {
    // What was rewritten has no number of its own, and what it frees waits for a sync.
    if inner.log.last_seq() != *synced_seq || !inner.replaced.lock().is_empty() {
        *synced_seq = inner.sync_all()?;
    }
    Ok(())
}

impl Inner {
    /// Removes entries whose time has come.
    pub(crate) fn expire(&self) {
        let now_ms = self.options.clock.now_ms();
        for _ in 0..EXPIRE_AT_ONCE {
            let Some(hash) = self.index.pop_expired(now_ms) else { return };
            match self.remove(hash, |slot| slot.is_expired(now_ms)) {
                Ok(true) => {
                    self.counters.expired.fetch_add(1, Relaxed);
                }
                Ok(false) => {}
                Err(error) => {
                    // It stays invisible: every look-up checks the time itself. The next tick tries again.
                    self.index.note_expiry(now_ms, hash);
                    tracing::warn!(%error, "cannot remove an expired entry");
                    return;
                }
            }
        }
    }
}
