//! The server that a sidecar stands for.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_cache::client::{Address, Place, TlsFiles};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::fallback::Fallback;
use crate::failure::Failure;

/// What a connection may take, TLS and the login included. A client waits for it inside a compile.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a server that could not be reached is left alone.
pub(super) const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Longer than any reply to a login.
const REPLY_LEN_MAX: usize = 512;

/// A server elsewhere, and how to log in there. Its `Display` has no secrets.
pub(super) struct Upstream {
    address: Address,
    tls: Option<TlsConnector>,
    /// When it could not be reached last, if that is so.
    down: Mutex<Option<Instant>>,
}

/// A connection to it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Upstream {
    /// The server at `url`, which the flag or variable `name` holds.
    pub(super) fn new(name: &str, url: &str, files: &TlsFiles) -> Result<Self, Failure> {
        let address = Address::parse(url).map_err(|error| Failure::of_address(name, &error))?;
        let tls = match &address.place {
            Place::Tcp { is_tls: true, .. } => {
                let config =
                    files.config().map_err(|error| Failure::new("cannot begin TLS").because(&error))?;
                Some(TlsConnector::from(Arc::new(config)))
            }
            Place::Tcp { .. } | Place::Unix { .. } => None,
            Place::Directory { .. } => {
                return Err(Failure::new(format!("{name} is a directory, and no server"))
                    .with_hint("name a server: rediss://HOST"));
            }
        };
        Ok(Self { address, tls, down: Mutex::new(None) })
    }

    /// A connection that is logged in, unless the server was found to be away a moment ago or is now.
    pub(super) async fn connect_if_up(&self) -> Option<Box<dyn Stream>> {
        if self.is_down() {
            return None;
        }
        let was_up = self.down.lock().is_none();
        match self.connect().await {
            Ok(stream) => Some(stream),
            Err(reason) => {
                if was_up {
                    tracing::warn!("{self} cannot be reached, lookups are misses until it can: {reason}");
                }
                None
            }
        }
    }

    /// A connection that is logged in.
    pub(super) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let connected = timeout(CONNECT_TIMEOUT, self.log_in()).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        *self.down.lock() = connected.is_err().then(Instant::now);
        connected
    }

    fn is_down(&self) -> bool {
        self.down.lock().is_some_and(|since| since.elapsed() < RETRY_DELAY)
    }

    async fn log_in(&self) -> io::Result<Box<dyn Stream>> {
        let mut stream: Box<dyn Stream> = match &self.address.place {
            Place::Tcp { host, port, .. } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                // A failure costs speed, nothing else.
                let _ = stream.set_nodelay(true);
                match &self.tls {
                    None => Box::new(stream),
                    Some(tls) => {
                        let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                        Box::new(tls.connect(name, stream).await?)
                    }
                }
            }
            Place::Unix { path } => Box::new(UnixStream::connect(path).await?),
            Place::Directory { .. } => return Err(io::ErrorKind::Unsupported.into()),
        };
        let database = self.address.database.to_string();
        let mut commands: Vec<Vec<&str>> = Vec::new();
        if let Some(login) = &self.address.login {
            commands
                .push(["AUTH"].into_iter().chain(login.user.as_deref()).chain([&*login.password]).collect());
        }
        commands.push(vec!["SELECT", &database]);
        for command in commands {
            ask(&mut stream, &command).await?;
        }
        Ok(stream)
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Sends a command whose reply is to be `+OK`. Nothing but the reply comes, so nothing is read of what follows it.
async fn ask(stream: &mut Box<dyn Stream>, words: &[&str]) -> io::Result<()> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut reply = Vec::new();
    while !reply.ends_with(b"\r\n") {
        if reply.len() >= REPLY_LEN_MAX || stream.read_buf(&mut reply).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
        }
    }
    if reply.starts_with(b"+") {
        return Ok(());
    }
    let reply = String::from_utf8_lossy(&reply).trim_end().to_owned();
    Err(io::Error::other(format!("it refuses: {}", reply.escape_debug())))
}

/// Looks whether a server that was away is back, for ever; then those whom the fallback serves are sent there.
pub(super) async fn watch(upstream: Arc<Upstream>, fallback: Arc<Fallback>) {
    loop {
        tokio::time::sleep(RETRY_DELAY).await;
        let was_down = upstream.down.lock().is_some();
        if was_down && upstream.connect().await.is_ok() {
            tracing::info!("{upstream} is back");
        }
        // Also when a client found that out: it asks nobody to leave.
        if upstream.down.lock().is_none() && fallback.is_used() {
            fallback.send_away().await;
        }
    }
}
