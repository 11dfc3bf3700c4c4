//! A blocking client for compilers: entries from a Pilotlight, a Redis or a directory, checked, and never in the way.
//!
//! It is not a [`crate::Backend`]: it starts no runtime, sees envelopes and variants, and turns every failure into a miss
//! or a dropped put, counted by reason. What it may cost is bounded: each wait, each operation, and all failures together.
//!
//! # What it may cost
//! - A wait for the next byte, and waits that bytes interrupt at less than 256 KiB a second: [`Settings::stall_timeout`]. A byte
//!   buys only the time it takes at that rate, so a drip fails like a stall. A link with 1 MB/s never comes near it.
//! - An operation: [`Settings::total_timeout`], and for what it waits without bytes, what is left of the budget.
//! - All failures, refused puts, and of an answer what it took beyond half a stall and the time of its bytes at 256 KiB a second:
//!   [`Settings::trouble_budget`], then the client stays quiet. Over it can go, once, only the time of bytes that came at that
//!   rate or a better one for an operation that failed in the end.
//!
//! # Invariants
//! 1. Nothing panics or returns an error for a reason outside this process.
//! 2. No lock is held over I/O, and none is waited for without an end: a fork may have left it locked.
//! 3. A connection is used by the process that made it, and by no other.
//! 4. What was not checked against its digest is not handed out, and what the policy on signatures refuses is not even unpacked:
//!    only a [`crate::trust::Vetted`] envelope is opened. A refusal deletes nothing.
//! 5. Nothing is allocated on a server's word alone.
//! 6. No thread is started, but to look up a host's name, since the system's look-up has no limit of its own, and to renew leases
//!    while there are any.

mod address;
mod candidates;
mod core;
mod counters;
mod directory;
mod engine;
mod guarded;
mod leases;
mod operations;
mod pace;
mod patience;
mod resp;
mod signing;
#[cfg(test)]
mod simulation;
mod socket;
mod stream;
mod sweep;
mod tls;
mod trouble;
mod variants;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::address::{Address, AddressError, Login, Place};
pub use self::candidates::Candidates;
use self::core::Core;
pub use self::directory::ROOT as DIRECTORY_ROOT;
pub use self::leases::{Lease, Part};
pub use self::signing::{Signing, SigningNames};
pub use self::tls::{TlsFiles, TlsFilesError};
use crate::Details;

/// A remote cache. Cheap to clone; clones share connections, counters and breakers. Connects on the first operation.
#[derive(Debug, Clone)]
pub struct Client {
    core: Arc<Core>,
}

/// The client's limits, and what it needs for TLS.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What making a connection may take.
    pub connect_timeout: Duration,
    /// What a wait may take in which no byte moves, or fewer than 256 KiB a second do.
    pub stall_timeout: Duration,
    /// What one operation may take, however steadily it comes.
    pub total_timeout: Duration,
    /// What all failures and slow answers may cost together; then the client stays quiet for good.
    pub trouble_budget: Duration,
    /// The bound of a directory, in bytes.
    pub max_bytes: u64,
    /// Files for TLS. They are read by the first connection.
    pub tls: TlsFiles,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            stall_timeout: Duration::from_secs(1),
            total_timeout: Duration::from_secs(10),
            trouble_budget: Duration::from_secs(2),
            max_bytes: 10 << 30,
            tls: TlsFiles::default(),
        }
    }
}

/// What is put besides the artifact.
#[derive(Debug, Clone, Default)]
pub struct Label {
    /// Whether stock clients shall see PyTorch's JSON around the artifact.
    pub is_torch_json: bool,
    /// What the compile took, in milliseconds; 0 when unknown.
    pub compile_ms: u32,
    /// Producer, fingerprint, components. The variant is an argument where there is one.
    pub details: Details,
}

impl Client {
    /// A client for the cache at `url`; connects on the first operation.
    ///
    /// # Errors
    /// For a URL that cannot be understood, with a hint, and without quoting it.
    pub fn new(url: &str, settings: Settings) -> Result<Self, AddressError> {
        Self::signing(url, settings, Signing::default())
    }

    /// The same, with what is put signed and what is got checked as `signing` says.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn signing(url: &str, settings: Settings, signing: Signing) -> Result<Self, AddressError> {
        let address = Address::parse(url)?;
        let problems = signing.problems.clone();
        let core = Core::new(address, settings, signing);
        problems.into_iter().for_each(|problem| core.trouble.tell(problem));
        Ok(Self { core: Arc::new(core) })
    }

    /// The URL without secrets.
    #[must_use]
    pub fn url(&self) -> &str {
        self.core.shown()
    }

    /// A sentence for the user, each once: at the first failure, at the recovery, when the budget is spent.
    #[must_use]
    pub fn notice(&self) -> Option<String> {
        self.core.notice()
    }

    /// Every counter by name, since this process began.
    #[must_use]
    pub fn stats(&self) -> Vec<(&'static str, u64)> {
        self.core.stats()
    }

    /// Failures and misfits by name, of the calling thread's operations, whichever client did them. With what it said before an
    /// operation it tells why that went without result, whatever other threads do meanwhile.
    #[must_use]
    pub fn thread_stats(&self) -> Vec<(&'static str, u64)> {
        counters::Counters::of_thread()
    }

    /// Closes idle connections. The client may be used again.
    pub fn close(&self) {
        self.core.close();
    }

    /// What a round trip takes, the connection included if there was none; `None` if it failed.
    #[must_use]
    pub fn ping(&self) -> Option<Duration> {
        self.core.ping()
    }

    /// Which of `keys` something stands under, without fetching it, in one round trip; `None` if that could not be found out.
    #[must_use]
    pub fn has(&self, keys: &[&[u8]]) -> Option<Vec<bool>> {
        self.core.has(keys)
    }

    /// Deletes what stands under `key`; whether something did.
    #[must_use]
    pub fn delete(&self, key: &[u8]) -> bool {
        self.core.delete(key)
    }

    /// Has what stands under `leader` and `keys` evicted together or not at all, and says of how many that is true now: of up to
    /// [`crate::GROUP_ENTRIES_MAX`], and of none where there are no groups (a plain Redis, a directory, an earlier server), which
    /// is no failure. Variants but the newest are not in it.
    pub fn group(&self, leader: &[u8], keys: &[&[u8]]) -> usize {
        let keys: Vec<&[u8]> = std::iter::once(leader).chain(keys.iter().copied()).collect();
        self.core.group(&keys)
    }

    /// Counts an entry that was of no use although its digest was right, and deletes it.
    pub fn quarantine(&self, key: &[u8]) {
        self.core.quarantine(key);
    }

    /// The value under `key` as a stock client would get it: PyTorch's JSON rebuilt.
    #[must_use]
    pub fn get_raw(&self, key: &[u8]) -> Option<Bytes> {
        self.core.get_raw(key)
    }

    /// Stores a value as a stock client would; whether it was stored.
    #[must_use]
    pub fn put_raw(&self, key: &[u8], value: Bytes, compile_ms: u32) -> bool {
        self.core.put_raw(key, value, compile_ms)
    }
}
