//! Accepts connections and ends them.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower_service::Service;

use super::auth::Peer;
use super::router::{self, Front};
use super::stall::Stall;
use crate::Server;

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
/// How long to wait after an accept failed, as it does without file descriptors: a retry at once would spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves HTTP until `shutdown` is true, then lets running requests finish for as long as
/// [`crate::Config::drain_timeout`]. Blocks the calling thread.
///
/// # Errors
/// When the runtime cannot be started or a listener cannot be used.
pub(crate) fn serve(
    server: Arc<Server>,
    listeners: Vec<TcpListener>,
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
    listeners: Vec<TcpListener>,
    shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let drain_timeout = server.config.drain_timeout;
    let connections = Arc::new(Connections {
        permits: Arc::new(Semaphore::new(server.config.connections_max.min(Semaphore::MAX_PERMITS))),
        builder: builder(),
        router: router::router(Arc::new(Front::new(server, shutdown.clone()))),
        graceful: GracefulShutdown::new(),
    });
    let mut accepting = JoinSet::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        accepting.spawn(accept(listener, Arc::clone(&connections), shutdown.clone()));
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
    builder: auto::Builder<TokioExecutor>,
    router: axum::Router,
    graceful: GracefulShutdown,
}

/// Accepts until shutdown. At the connection limit it stops accepting: clients wait in the backlog.
async fn accept(
    listener: tokio::net::TcpListener,
    connections: Arc<Connections>,
    mut shutdown: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            // An error means that the sender is gone: nobody is left to serve for.
            _ = shutdown.wait_for(|is_down| *is_down) => return,
            accepted = async {
                let permit = Arc::clone(&connections.permits).acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>((listener.accept().await?.0, permit))
            } => accepted,
        };
        match accepted {
            Ok((stream, permit)) => connections.spawn(stream, permit),
            Err(error) => {
                tracing::warn!(%error, "could not accept an HTTP connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

impl Connections {
    fn spawn(&self, stream: TcpStream, permit: tokio::sync::OwnedSemaphorePermit) {
        // Nagle's delay would hold back the end of every small answer. A failure costs speed, nothing else.
        let _ = stream.set_nodelay(true);
        let peer = Peer { address: stream.peer_addr().ok().map(|address| address.ip()) };
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
    peer: Peer,
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
        request.extensions_mut().insert(self.peer);
        self.router.call(request)
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADERS_BYTES_MAX);
    builder
}
