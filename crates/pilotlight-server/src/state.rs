//! What every connection shares.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use pilotlight_cache::{Cache, Clock, Maintenance, Tiered};

use crate::Config;
use crate::Tls;
use crate::access::Access;
use crate::memory::Memory;
use crate::resp::Shared;

/// One server: a cache, its settings and its counters. Shared by every front-end.
#[derive(Debug)]
pub struct Server {
    /// The cache all front-ends serve.
    pub cache: Arc<Cache>,
    /// What an operator can ask of the disk tier; none where there is no disk.
    pub maintenance: Option<Arc<dyn Maintenance>>,
    /// The tiers with the origin, where there is one: for its counters.
    pub tiers: Option<Arc<Tiered>>,
    /// Who may do what. Of a server with a users file, set it to [`Access::of_file`].
    pub access: Arc<Access>,
    /// The settings.
    pub config: Config,
    /// Counters of the front-ends; the cache has its own.
    pub stats: ServerStats,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// When the server started.
    pub started: Instant,
    /// Where it answers HTTP, for whoever knows where it answers RESP.
    pub http: Vec<SocketAddr>,
    /// Where it answers HTTP over TLS.
    pub https: Vec<SocketAddr>,
    /// What TLS connections begin with, where there are any.
    pub tls: Option<Arc<Tls>>,
    /// What requests and replies in flight hold.
    pub(crate) memory: Arc<Memory>,
    /// What RESP connections share.
    pub(crate) resp: Shared,
}

/// Counters of the front-ends.
#[derive(Debug, Default)]
pub struct ServerStats {
    /// RESP connections accepted since start.
    pub connections_total: AtomicU64,
    /// RESP connections open now.
    pub connections_open: AtomicU64,
    /// RESP commands executed since start.
    pub commands_total: AtomicU64,
    /// Connections closed over a protocol error since start.
    pub protocol_errors_total: AtomicU64,
    /// Commands that ran into the request timeout since start.
    pub timeouts_total: AtomicU64,
    /// HTTP requests since start.
    pub http_requests_total: AtomicU64,
    /// Connections closed at once since start, as their address had as many as it may.
    pub refused_connections_total: AtomicU64,
    /// Connections closed since start because a request came, or a reply was taken, too slowly.
    pub slow_connections_total: AtomicU64,
    /// TLS handshakes begun since start, by clients of both front-ends.
    pub tls_handshakes_total: AtomicU64,
    /// Those that failed.
    pub tls_failures_total: AtomicU64,
    /// Logins that failed since start.
    pub logins_failed_total: AtomicU64,
    /// Logins that had to wait, or were not looked at, since others from there had failed, since start.
    pub logins_delayed_total: AtomicU64,
    /// Commands and requests that were refused for want of a right since start.
    pub denied_total: AtomicU64,
    /// Commands and requests that waited or were refused because their user asked too often, since start.
    pub throttled_total: AtomicU64,
}

impl Server {
    /// What large requests and replies in flight hold in memory now.
    pub fn in_flight_bytes(&self) -> u64 {
        self.memory.held_bytes()
    }

    /// A server over `cache`.
    pub fn new(cache: Arc<Cache>, config: Config, clock: Arc<dyn Clock>) -> Self {
        let resp = Shared::new(config.cores, clock.now_ms());
        // With less, one of the largest entries could be put or fetched, and nobody else served meanwhile.
        let memory =
            Memory::new(config.connection_memory_bytes.max(config.entry_bytes_max.saturating_mul(2)));
        let access = Arc::new(Access::of_password(config.password.as_deref()));
        Self {
            cache,
            maintenance: None,
            tiers: None,
            access,
            config,
            stats: ServerStats::default(),
            clock,
            started: Instant::now(),
            http: Vec::new(),
            https: Vec::new(),
            tls: None,
            memory: Arc::new(memory),
            resp,
        }
    }
}
