//! A lock that a fork cannot leave locked.

use parking_lot::{Mutex, MutexGuard};

/// State behind a lock that is held for nanoseconds only, never over I/O.
///
/// A thread that holds it while another forks leaves it locked in the child, for ever. So nobody waits for one without an
/// end: whoever does not get it does without.
#[derive(Debug, Default)]
pub(super) struct Guarded<T>(Mutex<T>);

/// Holders are done within a microsecond unless the system put them aside; a thousand yields outlast that.
const TRIES: usize = 1000;

impl<T> Guarded<T> {
    pub(super) fn new(state: T) -> Self {
        Self(Mutex::new(state))
    }

    pub(super) fn lock(&self) -> Option<MutexGuard<'_, T>> {
        for _ in 0..TRIES {
            if let Some(guard) = self.0.try_lock() {
                return Some(guard);
            }
            std::thread::yield_now();
        }
        None
    }
}
