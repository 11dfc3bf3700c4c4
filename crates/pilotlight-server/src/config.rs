//! What a server is told. Where the values come from (flags, environment, file) is the binary's business.

use std::time::Duration;

/// Settings of the front-ends. Every field is a resolved value with its unit in its name or type.
#[derive(Debug, Clone)]
pub struct Config {
    /// Threads that serve RESP, each with its own runtime; connections stay on theirs.
    pub cores: usize,
    /// Longest a command may take before its connection is told so (a miss or nil for compile-cache kinds).
    pub request_timeout: Duration,
    /// Largest artifact a client may put, in bytes.
    pub entry_bytes_max: u64,
    /// Most RESP connections at a time; beyond it the listener stops accepting until one closes.
    pub connections_max: usize,
    /// A connection idle for longer is closed; never when `None`.
    pub idle_timeout: Option<Duration>,
    /// Longest to wait for running requests at shutdown.
    pub drain_timeout: Duration,
    /// The password of user `default`, who has all rights then; without one, and without a users file, clients need none.
    pub password: Option<String>,
    /// Answer every error as Redis would, also for compile-cache kinds.
    pub is_strict: bool,
    /// Longest a stock client's `GET` waits for another client that compiles what it misses; not at all when zero.
    pub lease_wait: Duration,
    /// Entries that nobody used for as long are recompressed; none when `None`.
    pub recompress_after: Option<Duration>,
    /// Databases that `SELECT` knows.
    pub databases: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            request_timeout: Duration::from_secs(4),
            entry_bytes_max: 512 << 20,
            connections_max: 20_000,
            idle_timeout: None,
            drain_timeout: Duration::from_secs(10),
            password: None,
            is_strict: false,
            lease_wait: Duration::from_secs(3),
            recompress_after: Some(Duration::from_secs(600)),
            databases: 16,
        }
    }
}
