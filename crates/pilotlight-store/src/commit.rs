//! Group commit: writers wait for one sync together.

use std::io;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Who waits for which sequence number, and how far the medium is.
#[derive(Debug, Default)]
pub(crate) struct Committer {
    state: Mutex<State>,
    /// Somebody waits, or it is over.
    work: Condvar,
    /// A sync ended.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    wanted: u64,
    waiting: usize,
    synced: u64,
    /// Syncs tried so far, and the error of the last one if it failed: a waiter must not wait for one that works.
    tries: u64,
    failure: Option<String>,
    is_stopped: bool,
}

impl Committer {
    /// Waits until everything up to `seq` has survived a sync.
    ///
    /// # Errors
    /// When the sync that should have covered it failed.
    pub(crate) fn wait(&self, seq: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.wanted = state.wanted.max(seq);
        state.waiting += 1;
        self.work.notify_one();
        // The sync under way may have begun before our record was written: its failure or success says nothing of us.
        let tries = state.tries;
        while state.synced < seq && state.tries < tries + 2 && !state.is_stopped {
            self.done.wait(&mut state);
        }
        state.waiting -= 1;
        if state.synced >= seq {
            return Ok(());
        }
        Err(io::Error::other(state.failure.clone().unwrap_or_else(|| "the store is closing".to_owned())))
    }

    /// Runs `sync` whenever somebody waits, after `gather` has let others join, until stopped. `sync` says how far it
    /// came.
    pub(crate) fn run(&self, gather: Duration, sync: impl Fn() -> io::Result<u64>) {
        loop {
            let mut state = self.state.lock();
            while (state.waiting == 0 || state.wanted <= state.synced) && !state.is_stopped {
                self.work.wait(&mut state);
            }
            if state.is_stopped {
                return;
            }
            if !gather.is_zero() {
                let _ = self.work.wait_for(&mut state, gather);
            }
            drop(state);
            let result = sync();
            let mut state = self.state.lock();
            state.tries += 1;
            match result {
                Ok(seq) => {
                    state.synced = state.synced.max(seq);
                    state.failure = None;
                }
                Err(error) => state.failure = Some(error.to_string()),
            }
            self.done.notify_all();
        }
    }

    pub(crate) fn stop(&self) {
        self.state.lock().is_stopped = true;
        self.work.notify_all();
        self.done.notify_all();
    }
}
