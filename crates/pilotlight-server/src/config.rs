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
    /// Most connections from one address at a time, for RESP and for HTTP each; others are closed at once. As many as there
    /// are when `None`.
    pub connections_per_address_max: Option<usize>,
    /// What requests and replies in flight may hold in memory, of all connections together, in bytes; two of the largest entries
    /// if that is more. Beyond it gets are misses and puts are refused.
    pub connection_memory_bytes: u64,
    /// A connection idle for longer is closed; never when `None`.
    pub idle_timeout: Option<Duration>,
    /// What a client may take to shake hands, to say who it is, to send a request and to read a reply, on top of what the bytes
    /// take at 64 KiB a second; slower ones are gone, stuck, or hold a connection for nothing.
    pub client_grace: Duration,
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
            connections_per_address_max: None,
            connection_memory_bytes: 1 << 30,
            idle_timeout: None,
            client_grace: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            password: None,
            is_strict: false,
            lease_wait: Duration::from_secs(3),
            recompress_after: Some(Duration::from_secs(600)),
            databases: 16,
        }
    }
}
