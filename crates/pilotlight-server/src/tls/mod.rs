//! TLS on the sockets of both front-ends: by rustls, with ring, versions 1.2 and 1.3.
//!
//! It reads no file: whoever has the files gives their bytes, and gives new ones when they change ([`Tls::replace`]).
//! Connections that stand keep what they began with.
//!
//! # Invariants
//! 1. A handshake happens in its connection's own task and ends at a deadline: nobody else waits for it.
//! 2. A pair that cannot be used replaces none.
//! 3. Nothing of a key is in an error, a log or a `Debug`.

mod error;
mod identity;
mod pem;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use self::error::TlsError;
pub use self::identity::PeerIdentity;
use crate::Server;

/// What a client may take from the first byte of a handshake to its last, both of them included. A slow link needs two round
/// trips; what takes longer holds a connection for nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Failed handshakes are all counted, and logged no more often than this: whoever can connect can fail.
const LOG_INTERVAL_MS: u64 = 1000;

/// What to prove ourselves with, and whom to believe: the contents of PEM files.
#[derive(Clone, Copy)]
pub struct TlsFiles<'a> {
    /// The server's certificate, then the intermediate ones.
    pub certificates: &'a [u8],
    /// Its private key.
    pub key: &'a [u8],
    /// Whether clients prove themselves as well.
    pub clients: ClientCertificates<'a>,
}

/// Whether clients show certificates, and who signs those: the contents of a PEM file of authorities.
#[derive(Clone, Copy)]
pub enum ClientCertificates<'a> {
    /// They are not asked.
    Ignored,
    /// Asked for; who has none is let in, and is nobody in particular.
    Optional(&'a [u8]),
    /// Without one the handshake fails.
    Required(&'a [u8]),
}

/// The TLS of a server. Shared by its front-ends.
pub struct Tls {
    current: RwLock<Configs>,
    started: Instant,
    logged_ms: AtomicU64,
}

/// What new connections begin with.
#[derive(Clone)]
struct Configs {
    resp: TlsAcceptor,
    http: TlsAcceptor,
    not_after: SystemTime,
}

/// Which front-end a connection is for: HTTP agrees on its version inside the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    Resp,
    Http,
}

/// A connection whose handshake is done.
pub(crate) struct Secured {
    pub(crate) stream: Box<TlsStream<TcpStream>>,
    /// Who the client proved to be.
    pub(crate) identity: Option<Arc<PeerIdentity>>,
}

impl Tls {
    /// TLS with these certificates.
    ///
    /// # Errors
    /// When the certificates, the key or the authorities cannot be used, with the cause and a hint.
    pub fn new(files: &TlsFiles<'_>) -> Result<Self, TlsError> {
        let current = RwLock::new(Configs::new(files)?);
        Ok(Self { current, started: Instant::now(), logged_ms: AtomicU64::new(0) })
    }

    /// Has new connections begin with these instead.
    ///
    /// # Errors
    /// As [`Tls::new`]; then what there was stays.
    pub fn replace(&self, files: &TlsFiles<'_>) -> Result<(), TlsError> {
        let configs = Configs::new(files)?;
        *self.current.write() = configs;
        Ok(())
    }

    /// When the certificate that is in use expires.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.current.read().not_after
    }

    /// Shakes hands with a client. A failure is counted, and logged with its cause.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        front: Front,
        server: &Server,
    ) -> io::Result<Secured> {
        let stats = &server.stats;
        let limit = HANDSHAKE_TIMEOUT.min(server.config.client_grace);
        let peer = stream.peer_addr().ok();
        let acceptor = {
            let current = self.current.read();
            match front {
                Front::Resp => current.resp.clone(),
                Front::Http => current.http.clone(),
            }
        };
        stats.tls_handshakes_total.fetch_add(1, Relaxed);
        let accepted = match tokio::time::timeout(limit, acceptor.accept(stream)).await {
            Ok(accepted) => accepted,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let stream = accepted.inspect_err(|error| {
            stats.tls_failures_total.fetch_add(1, Relaxed);
            self.log(peer, error);
        })?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        // The chain is verified; one that this parser cannot read names nobody.
        let identity = leaf.and_then(|leaf| PeerIdentity::of(leaf)).map(Arc::new);
        Ok(Secured { stream: Box::new(stream), identity })
    }

    fn log(&self, peer: Option<std::net::SocketAddr>, error: &io::Error) {
        if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) {
            // Who looks whether a port is open connects and leaves.
            tracing::debug!(?peer, %error, "a client left during its TLS handshake");
            return;
        }
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX) + LOG_INTERVAL_MS;
        let logged_ms = self.logged_ms.load(Relaxed);
        if now_ms - logged_ms.min(now_ms) >= LOG_INTERVAL_MS
            && self.logged_ms.compare_exchange(logged_ms, now_ms, Relaxed, Relaxed).is_ok()
        {
            tracing::warn!(?peer, %error, "a TLS handshake failed");
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("not_after", &self.not_after()).finish_non_exhaustive()
    }
}

impl Configs {
    fn new(files: &TlsFiles<'_>) -> Result<Self, TlsError> {
        let chain = pem::certificates(files.certificates, "certificate")?;
        let key = pem::key(files.key)?;
        let not_after = chain.first().map_or(Ok(UNIX_EPOCH), |leaf| identity::check_dates(leaf))?;
        // Named, since the process' default depends on what else is linked into it.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match files.clients {
            ClientCertificates::Ignored => builder.with_no_client_auth(),
            ClientCertificates::Optional(authorities) | ClientCertificates::Required(authorities) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots(authorities)?.into(), provider);
                let verifier = match files.clients {
                    ClientCertificates::Optional(_) => verifier.allow_unauthenticated(),
                    _ => verifier,
                };
                builder.with_client_cert_verifier(verifier.build().map_err(|_| TlsError::NoAuthority)?)
            }
        };
        let mut resp = builder.with_single_cert(chain, key)?;
        // A client that closes right after its handshake needs no ticket, and one is enough for the others.
        resp.send_tls13_tickets = 1;
        let mut http = resp.clone();
        http.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            resp: TlsAcceptor::from(Arc::new(resp)),
            http: TlsAcceptor::from(Arc::new(http)),
            not_after,
        })
    }
}

fn roots(authorities: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in pem::certificates(authorities, "authority")? {
        roots.add(authority).map_err(|_| TlsError::BadCertificate { what: "authority" })?;
    }
    Ok(roots)
}
