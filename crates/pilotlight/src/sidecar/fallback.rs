//! Who answers while the upstream is away: a server of our own over a memory of no size, to which every lookup is a miss and no put is
//! kept. Those of compile-cache kinds are answered nil, as always, so no compile fails over it.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pilotlight_cache::{Cache, FailurePolicy, MemoryBackend, SystemClock};
use pilotlight_server::{Config, Listeners, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// The server, on a socket in a directory that only its owner can enter.
pub(super) struct Fallback {
    server: Arc<Server>,
    directory: PathBuf,
}

impl Fallback {
    pub(super) fn start() -> io::Result<Self> {
        let directory = private_directory()?;
        let cache = Cache::new(Arc::new(MemoryBackend::new(0))).with_policy(FailurePolicy::Absorb);
        // Nobody waits for a put that would not be kept.
        let config =
            Config { cores: 1, lease_wait: Duration::ZERO, recompress_after: None, ..Config::default() };
        let server = Arc::new(Server::new(Arc::new(cache), config, Arc::new(SystemClock)));
        let fallback = Self { server: Arc::clone(&server), directory };
        let listeners =
            Listeners { resp_unix: vec![UnixListener::bind(fallback.socket())?], ..Listeners::default() };
        // It ends with the process: there is nothing to be kept.
        std::thread::Builder::new().name("fallback".to_owned()).spawn(move || {
            if let Err(error) = pilotlight_server::run(server, listeners, std::future::pending()) {
                tracing::error!(%error, "nobody answers while the upstream is away");
            }
        })?;
        Ok(fallback)
    }

    pub(super) async fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(self.socket()).await
    }

    /// Whether it serves anybody.
    pub(super) fn is_used(&self) -> bool {
        self.server.stats.connections_open.load(Relaxed) > 0
    }

    /// Has its clients' connections closed, each between two commands: they connect anew and reach the upstream.
    pub(super) async fn send_away(&self) {
        const REQUEST: &[u8] = b"CLIENT KILL TYPE normal\r\n";
        let asked = async {
            let mut stream = self.connect().await?;
            stream.write_all(REQUEST).await?;
            stream.read_u8().await
        };
        if let Err(error) = asked.await {
            tracing::debug!(%error, "the fallback's clients stay until they leave");
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }
}

/// A new directory for the owner alone. One of this name may be left of a process that had this number and was killed.
fn private_directory() -> io::Result<PathBuf> {
    let mut made = Err(io::ErrorKind::AlreadyExists.into());
    for attempt in 0..16 {
        let name = format!("pilotlight-sidecar-{}-{attempt}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        made = std::fs::DirBuilder::new().mode(0o700).create(&directory).map(|()| directory);
        if made.is_ok() {
            break;
        }
    }
    made
}

impl Drop for Fallback {
    fn drop(&mut self) {
        // It lies in the directory for temporary files: whoever cleans that up finds it.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
