//! Accepts connections and ends them.

use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tower_service::Service;

use super::auth;
use super::router::{self, Front};
use super::stall::Stall;
use crate::Server;
use crate::peers::{Peer, Peers};
use crate::tls::{self, Secured, Tls};

/// How long a client may take to send a request's head; an idle connection is closed after it as well.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may stand still, with neither a byte read nor a byte written.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Requests in flight on one HTTP/2 connection: what a busy Bazel uses; each may hold an artifact.
const STREAMS_MAX: u32 = 128;
/// HTTP/2 windows: 1 MiB a stream fills a gigabit at 8 ms, and bounds what one connection can park here unread.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// The longest key percent-encoded (48 KiB) with room for other headers.
const HEADERS_BYTES_MAX: u32 = 64 << 10;
/// Headers of one request over HTTP/1.1.
const HEADERS_MAX: usize = 100;
/// What a connection over HTTP/1.1 reads ahead, its head included, and gathers of small answers.
const BUFFER_BYTES_MAX: usize = 128 << 10;
const RESETS_PENDING_MAX: usize = 20;
const RESETS_MAX: usize = 128;
/// How long to wait after an accept failed, as it does without file descriptors: a retry at once would spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves HTTP until `shutdown` is true, then lets running requests finish for as long as
/// [`crate::Config::drain_timeout`]. Blocks the calling thread.
///
/// # Errors
/// When the runtime cannot be started or a listener cannot be used.
pub(crate) fn serve(
    server: Arc<Server>,
    listeners: Vec<(TcpListener, Option<Arc<Tls>>)>,
    shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(serve_on(server, listeners, shutdown));
    // A verification may still be reading the disk; it sees that its client is gone, and nobody waits for that.
    runtime.shutdown_background();
    served
}

async fn serve_on(
    server: Arc<Server>,
    listeners: Vec<(TcpListener, Option<Arc<Tls>>)>,
    shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let drain_timeout = server.config.drain_timeout;
    let connections = Arc::new(Connections {
        permits: Arc::new(Semaphore::new(server.config.connections_max.min(Semaphore::MAX_PERMITS))),
        peers: Peers::new(server.config.connections_per_address_max),
        builder: builder(),
        router: router::router(Arc::new(Front::new(Arc::clone(&server), shutdown.clone()))),
        graceful: GracefulShutdown::new(),
        server,
    });
    let mut accepting = JoinSet::new();
    for (listener, tls) in listeners {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        accepting.spawn(accept(listener, tls, Arc::clone(&connections), shutdown.clone()));
    }
    while accepting.join_next().await.is_some() {}
    drop(accepting);
    // Every acceptor has returned its share, so this is the last one.
    let Some(connections) = Arc::into_inner(connections) else { return Ok(()) };
    let open = connections.graceful.count();
    if tokio::time::timeout(drain_timeout, connections.graceful.shutdown()).await.is_err() {
        tracing::warn!(open, "HTTP connections were cut off: they outlasted the drain timeout");
    }
    Ok(())
}

struct Connections {
    permits: Arc<Semaphore>,
    peers: Option<Arc<Peers>>,
    builder: auto::Builder<TokioExecutor>,
    router: axum::Router,
    graceful: GracefulShutdown,
    server: Arc<Server>,
}

/// Accepts until shutdown. At the connection limit it stops accepting: clients wait in the backlog.
async fn accept(
    listener: tokio::net::TcpListener,
    tls: Option<Arc<Tls>>,
    connections: Arc<Connections>,
    mut shutdown: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            // An error means that the sender is gone: nobody is left to serve for.
            _ = shutdown.wait_for(|is_down| *is_down) => return,
            accepted = async {
                let permit = Arc::clone(&connections.permits).acquire_owned().await.map_err(io::Error::other)?;
                let (stream, address) = listener.accept().await?;
                Ok::<_, io::Error>((stream, address.ip(), permit))
            } => accepted,
        };
        match accepted {
            Ok((stream, address, permit)) => {
                let Some(permit) = connections.admit(address, permit) else { continue };
                // Nagle's delay would hold back the end of every small answer. A failure costs speed, nothing else.
                let _ = stream.set_nodelay(true);
                match &tls {
                    None => {
                        let peer = auth::Peer { address: Some(address), identity: None };
                        connections.serve(stream, peer, permit);
                    }
                    Some(tls) => connections.shake_hands(stream, tls, address, permit, shutdown.clone()),
                }
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept an HTTP connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// The right to be open.
type Permit = (OwnedSemaphorePermit, Option<Peer>);

impl Connections {
    /// Counts a connection where they are counted by address.
    fn admit(&self, address: IpAddr, permit: OwnedSemaphorePermit) -> Option<Permit> {
        let Some(peers) = &self.peers else { return Some((permit, None)) };
        let peer = peers.admit(address);
        if peer.is_none() {
            self.server.stats.refused_connections_total.fetch_add(1, Relaxed);
        }
        Some((permit, Some(peer?)))
    }

    /// Serves a client once its handshake is done. Until then nothing of it is waited for at shutdown.
    fn shake_hands(
        self: &Arc<Self>,
        stream: TcpStream,
        tls: &Arc<Tls>,
        address: IpAddr,
        permit: Permit,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let (tls, connections) = (Arc::clone(tls), Arc::downgrade(self));
        let server = Arc::clone(&self.server);
        tokio::spawn(async move {
            let secured = tokio::select! {
                secured = tls.accept(stream, tls::Front::Http, &server) => secured,
                _ = shutdown.wait_for(|is_down| *is_down) => return,
            };
            // Why it failed is counted and logged there.
            let Ok(Secured { stream, identity }) = secured else { return };
            // Gone when the shutdown has begun meanwhile.
            if let Some(connections) = connections.upgrade() {
                connections.serve(stream, auth::Peer { address: Some(address), identity }, permit);
            }
        });
    }

    fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: auth::Peer,
        permit: Permit,
    ) {
        let io = TokioIo::new(Stall::new(stream, STALL_TIMEOUT));
        let service = TowerToHyperService::new(OfPeer { router: self.router.clone(), peer });
        let connection = self.builder.serve_connection(io, service).into_owned();
        let connection = self.graceful.watch(connection);
        tokio::spawn(async move {
            // How a client left is its own business; what it asked was answered and counted before.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP connection ended early");
            }
            drop(permit);
        });
    }
}

/// The router, for requests of one connection: each says where it came from.
#[derive(Clone)]
struct OfPeer {
    router: axum::Router,
    peer: auth::Peer,
}

impl<B> Service<Request<B>> for OfPeer
where
    axum::Router: Service<Request<B>>,
{
    type Response = <axum::Router as Service<Request<B>>>::Response;
    type Error = <axum::Router as Service<Request<B>>>::Error;
    type Future = <axum::Router as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Request<B>>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        self.router.call(request)
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADERS_BYTES_MAX)
        // A client that opens streams and resets them at once has its connection closed after this many that were not
        // served yet, and after that many that it made us reset.
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_local_error_reset_streams(RESETS_MAX);
    builder
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    /// For how many seconds a connection stays open on which this was sent and then nothing, and what was answered.
    fn stays_open_s(sent: &[u8]) -> (u64, String) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (near, mut far) = tokio::io::duplex(64 << 10);
            let service = TowerToHyperService::new(axum::Router::new());
            let connection = builder()
                .serve_connection(TokioIo::new(Stall::new(near, STALL_TIMEOUT)), service)
                .into_owned();
            let began = Instant::now();
            tokio::spawn(async move { connection.await.map_err(|error| error.to_string()) });
            far.write_all(sent).await.unwrap();
            let mut answer = Vec::new();
            far.read_to_end(&mut answer).await.unwrap();
            (began.elapsed().as_secs(), String::from_utf8_lossy(&answer).into_owned())
        })
    }

    #[test]
    fn idle_connections_and_heads_that_do_not_come_end() {
        let (seconds, answer) = stays_open_s(b"");
        assert_eq!((seconds, answer.as_str()), (60, ""));
        let (seconds, answer) = stays_open_s(b"GET / HTTP/1.1\r\nhost: ");
        assert_eq!((seconds, answer.as_str()), (30, ""), "a head that stops");
        let (seconds, answer) = stays_open_s(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        assert_eq!(seconds, 30, "idle between two requests");
        let (seconds, _) = stays_open_s(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        assert_eq!(seconds, 60, "idle over HTTP/2");
    }
}
