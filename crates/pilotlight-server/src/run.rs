//! Starts the front-ends and ends them.

use std::future::Future;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use crate::Server;

/// Sockets to serve on, already bound, so that a test can bind port 0 and a supervisor can pass its own.
#[derive(Debug, Default)]
pub struct Listeners {
    /// RESP over TCP.
    pub resp: Vec<TcpListener>,
    /// RESP over Unix sockets.
    pub resp_unix: Vec<UnixListener>,
    /// HTTP over TCP.
    pub http: Vec<TcpListener>,
}

/// Serves until `shutdown` is ready, then stops accepting, lets running requests finish for as long as
/// [`crate::Config::drain_timeout`], syncs the cache and returns. Blocks the calling thread.
///
/// # Errors
/// When a thread or a runtime cannot be started.
pub fn run(
    server: Arc<Server>,
    listeners: Listeners,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let (down, is_down) = tokio::sync::watch::channel(false);
    let front = Arc::clone(&server);
    let http = std::thread::Builder::new()
        .name("pilotlight-http".to_owned())
        .spawn(move || crate::http::serve(front, listeners.http, is_down))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(shutdown);
    let _ = down.send(true);
    let served = http.join().unwrap_or_else(|_| Err(std::io::Error::other("the HTTP thread panicked")));
    let _ = runtime.block_on(server.cache.backend().sync());
    served
}
