//! Starts the front-ends and ends them.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use tokio::sync::watch;

use crate::Server;
use crate::Tls;
use crate::access::Watch;
use crate::cores::{Cores, Listener};
use crate::http;
use crate::recompress::Recompression;

/// Sockets to serve on, already bound, so that a test can bind port 0 and a supervisor can pass its own.
#[derive(Debug, Default)]
pub struct Listeners {
    /// RESP over TCP.
    pub resp: Vec<TcpListener>,
    /// RESP over Unix sockets.
    pub resp_unix: Vec<UnixListener>,
    /// HTTP over TCP.
    pub http: Vec<TcpListener>,
    /// Both over TLS.
    pub secure: Option<SecureListeners>,
}

/// Sockets to serve on with TLS.
#[derive(Debug)]
pub struct SecureListeners {
    /// What connections begin with; it may be replaced while they come.
    pub tls: Arc<Tls>,
    /// RESP over TLS.
    pub resp: Vec<TcpListener>,
    /// HTTP over TLS.
    pub http: Vec<TcpListener>,
}

/// Serves until `shutdown` is ready, then stops accepting, lets running requests finish for as long as
/// [`crate::Config::drain_timeout`], syncs the cache and returns. Blocks the calling thread.
///
/// RESP is served by [`crate::Config::cores`] threads, HTTP by one of its own, so that neither delays the other; the
/// calling thread accepts. One more recompresses what nobody uses, when it is given the processor, and one looks after the
/// users file, where there is one.
///
/// # Errors
/// When a thread or a runtime cannot be started, or when the sync fails: what was acknowledged last may then not
/// survive a power cut.
pub fn run(
    server: Arc<Server>,
    listeners: Listeners,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Dropping the sender is as good as sending: an early return ends the threads too.
    let (over, is_over) = watch::channel(false);
    let cores = Cores::start(&server, &is_over)?;
    let recompression = Recompression::start(&server)?;
    let (secure_resp, secure_http): (Vec<_>, Vec<_>) = match listeners.secure {
        None => Default::default(),
        Some(SecureListeners { tls, resp, http }) => (
            resp.into_iter().map(|listener| (listener, Arc::clone(&tls))).collect(),
            http.into_iter().map(|listener| (listener, Some(Arc::clone(&tls)))).collect(),
        ),
    };
    let watch = Watch::start(&server)?;
    let http = {
        let plain = listeners.http.into_iter().map(|listener| (listener, None));
        let (server, listeners) = (Arc::clone(&server), plain.chain(secure_http).collect());
        let spawned = std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || http::serve(server, listeners, is_over));
        spawned?
    };
    runtime.block_on(async {
        let tcp = listeners.resp.into_iter().map(Listener::tcp);
        let unix = listeners.resp_unix.into_iter().map(Listener::unix);
        let tls = secure_resp.into_iter().map(|(listener, tls)| Listener::tls(listener, tls));
        let listeners: Vec<Listener> = tcp.chain(unix).chain(tls).collect::<io::Result<_>>()?;
        tokio::select! {
            () = shutdown => {}
            () = cores.accept(&listeners) => {}
        }
        Ok::<_, io::Error>(())
    })?;
    over.send_replace(true);
    drop((recompression, watch));
    cores.join()?;
    http.join().map_err(|_| io::Error::other("the HTTP thread panicked"))??;
    server.access.audit.close();
    runtime.block_on(server.cache.backend().sync()).map_err(io::Error::other)
}
