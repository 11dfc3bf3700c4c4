//! The threads that serve RESP, and who hands them their connections.
//!
//! Each core is a thread with its own runtime; a connection stays on the one it was given to. Nothing is stolen or
//! migrated, so a connection's state needs no lock and its data stays in one processor's cache.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

use crate::Server;
use crate::Tls;
use crate::peers::{Peer, Peers};
use crate::resp::{Accepted, Core, SCRATCH_LEN, connection};

/// Before accepting is tried again after the system refused (out of file descriptors or memory): to retry at once
/// would only burn a processor.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// A socket on its way to a core, with the right to be open.
type HandOff = (Accepted, OwnedSemaphorePermit, Option<Peer>);

/// The serving threads.
#[derive(Debug)]
pub(crate) struct Cores {
    handles: Vec<CoreHandle>,
    permits: Arc<Semaphore>,
    peers: Option<Arc<Peers>>,
    server: Arc<Server>,
}

#[derive(Debug)]
struct CoreHandle {
    sockets: mpsc::UnboundedSender<HandOff>,
    open: Arc<AtomicUsize>,
    thread: JoinHandle<io::Result<()>>,
}

impl Cores {
    /// Starts `config.cores` threads, which end after `shutdown` turns true.
    pub(crate) fn start(server: &Arc<Server>, shutdown: &watch::Receiver<bool>) -> io::Result<Self> {
        let permits = server.config.connections_max.clamp(1, Semaphore::MAX_PERMITS);
        let handles = (0..server.config.cores.max(1))
            .map(|index| CoreHandle::start(index, Arc::clone(server), shutdown.clone()))
            .collect::<io::Result<_>>()?;
        let permits = Arc::new(Semaphore::new(permits));
        let peers = Peers::new(server.config.connections_per_address_max);
        Ok(Self { handles, permits, peers, server: Arc::clone(server) })
    }

    /// Accepts on `listeners` for ever. At the connection limit it stops accepting: clients wait in the listen queue,
    /// which costs them time. An error would cost stock PyTorch its cache.
    pub(crate) async fn accept(&self, listeners: &[Listener]) {
        loop {
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return };
            match accept_any(listeners).await {
                Ok(socket) => match self.admit(&socket) {
                    Ok(peer) => self.hand_off(socket, permit, peer),
                    // Closed without a word: any that Redis has for it would cost stock PyTorch its cache for good.
                    Err(Refused) => {
                        self.server.stats.refused_connections_total.fetch_add(1, Relaxed);
                    }
                },
                // The client left before its turn: nothing is wrong here.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    /// Gives the socket to the core with the fewest connections, of those that still run: one that ended has none.
    fn hand_off(&self, socket: Accepted, permit: OwnedSemaphorePermit, peer: Option<Peer>) {
        let Some(core) = self
            .handles
            .iter()
            .filter(|core| !core.sockets.is_closed())
            .min_by_key(|core| core.open.load(Relaxed))
        else {
            return;
        };
        core.open.fetch_add(1, Relaxed);
        if core.sockets.send((socket, permit, peer)).is_err() {
            core.open.fetch_sub(1, Relaxed);
        }
    }

    /// Counts a connection where they are counted by address. Unix sockets have none.
    fn admit(&self, socket: &Accepted) -> Result<Option<Peer>, Refused> {
        match self.peers.as_ref().zip(socket.peer()) {
            Some((peers, address)) => peers.admit(address).map(Some).ok_or(Refused),
            None => Ok(None),
        }
    }

    /// Waits for the threads to end.
    pub(crate) fn join(self) -> io::Result<()> {
        for CoreHandle { sockets, thread, .. } in self.handles {
            drop(sockets);
            thread.join().map_err(|_| io::Error::other("a serving thread panicked"))??;
        }
        Ok(())
    }
}

impl CoreHandle {
    fn start(index: usize, server: Arc<Server>, shutdown: watch::Receiver<bool>) -> io::Result<Self> {
        let (sockets, receiver) = mpsc::unbounded_channel();
        let open = Arc::new(AtomicUsize::new(0));
        let core_open = Arc::clone(&open);
        let thread = std::thread::Builder::new()
            .name(format!("resp-{index}"))
            .spawn(move || serve(index, server, receiver, &core_open, shutdown))?;
        Ok(Self { sockets, open, thread })
    }
}

/// A core's thread.
fn serve(
    index: usize,
    server: Arc<Server>,
    mut sockets: mpsc::UnboundedReceiver<HandOff>,
    open: &Arc<AtomicUsize>,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let drain_timeout = server.config.drain_timeout;
    let for_connections = shutdown.clone();
    let scratch = RefCell::new(vec![0; SCRATCH_LEN]);
    let core = Rc::new(Core { server, index, scratch, open: Arc::clone(open) });
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|is_over| *is_over) => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                socket = sockets.recv() => match socket {
                    Some((socket, permit, peer)) => {
                        let guard = OpenGuard { open: Arc::clone(open), _permit: permit, _peer: peer };
                        let (core, shutdown) = (Rc::clone(&core), for_connections.clone());
                        connections.spawn_local(async move {
                            let _guard = guard;
                            connection::serve(core, socket, shutdown).await;
                        });
                    }
                    None => break,
                },
            }
        }
        let drain = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(drain_timeout, drain).await.is_err() {
            tracing::warn!(core = index, "connections were cut at the end of the drain timeout");
        }
    });
    Ok(())
}

/// Counts a connection as open for as long as it lives.
struct OpenGuard {
    open: Arc<AtomicUsize>,
    _permit: OwnedSemaphorePermit,
    _peer: Option<Peer>,
}

/// Its address has as many connections as it may.
struct Refused;

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

/// A bound socket on the accepting thread's runtime.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Tls(TcpListener, Arc<Tls>),
    Unix(UnixListener),
}

impl Listener {
    /// Ties a listener to the current runtime.
    pub(crate) fn tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Self::Tcp)
    }

    /// Ties a listener to the current runtime.
    pub(crate) fn tls(listener: std::net::TcpListener, tls: Arc<Tls>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(|listener| Self::Tls(listener, tls))
    }

    /// Ties a listener to the current runtime.
    pub(crate) fn unix(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener).map(Self::Unix)
    }

    /// The accepted socket is freed from this runtime again: another serves it.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        Poll::Ready(match self {
            Self::Tcp(listener) => ready!(listener.poll_accept(cx)?).0.into_std().map(Accepted::Tcp),
            Self::Tls(listener, tls) => {
                let socket = ready!(listener.poll_accept(cx)?).0.into_std();
                socket.map(|socket| Accepted::Tls(socket, Arc::clone(tls)))
            }
            Self::Unix(listener) => ready!(listener.poll_accept(cx)?).0.into_std().map(Accepted::Unix),
        })
    }
}

async fn accept_any(listeners: &[Listener]) -> io::Result<Accepted> {
    std::future::poll_fn(|cx| {
        for listener in listeners {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}
