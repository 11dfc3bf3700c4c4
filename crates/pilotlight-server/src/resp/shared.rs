//! What all RESP connections of a server share.

use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use super::clients::Clients;
use super::commands::info::COUNTERS;
use super::gate::Gate;
use super::settings::Settings;

/// Kept in [`crate::Server`]; of no interest to other front-ends.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) gate: Gate,
    pub(crate) clients: Clients,
    pub(crate) settings: Settings,
    /// What `INFO` counted when its counters were last set back.
    pub(crate) counted_before: Mutex<[u64; COUNTERS]>,
    /// When `SAVE` last succeeded, or the server was made: milliseconds since the Unix epoch.
    pub(crate) saved_ms: AtomicU64,
    /// Tells this server's life from others, in `INFO`.
    pub(crate) run_id: u64,
}

impl Shared {
    pub(crate) fn new(cores: usize, now_ms: u64) -> Self {
        Self {
            gate: Gate::new(cores),
            clients: Clients::default(),
            settings: Settings::default(),
            counted_before: Mutex::default(),
            saved_ms: AtomicU64::new(now_ms),
            run_id: random_u64(),
        }
    }
}

/// For things that must differ, not for secrets: the standard library's per-process hash keys, stirred by a counter.
pub(crate) fn random_u64() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    thread_local!(static STATE: RandomState = RandomState::new());
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    STATE.with(|state| state.hash_one(count))
}
