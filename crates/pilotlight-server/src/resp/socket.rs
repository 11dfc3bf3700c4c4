//! A client's socket: TCP, TCP with TLS on it, or Unix.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::Server;
use crate::tls::{Front, PeerIdentity, Secured, Tls};

/// A socket that was accepted and belongs to no runtime yet.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp(std::net::TcpStream),
    /// To shake hands on first.
    Tls(std::net::TcpStream, Arc<Tls>),
    Unix(std::os::unix::net::UnixStream),
}

/// A socket on its core's runtime.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    /// Boxed: plain connections, which are most, carry no room for it.
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Accepted {
    /// Ties the socket to the runtime of the calling thread, and shakes hands where that is due: then it also says who the
    /// client proved to be.
    pub(crate) async fn open(self, server: &Server) -> io::Result<(Socket, Option<Arc<PeerIdentity>>)> {
        match self {
            Self::Tcp(socket) => Ok((Socket::Tcp(register(socket)?), None)),
            Self::Tls(socket, tls) => {
                // A handshake takes several times the room of a connection; it is given back before that begins.
                let secured = Box::pin(tls.accept(register(socket)?, Front::Resp, server));
                let Secured { stream, identity } = secured.await?;
                Ok((Socket::Tls(stream), identity))
            }
            Self::Unix(socket) => {
                socket.set_nonblocking(true)?;
                Ok((Socket::Unix(UnixStream::from_std(socket)?), None))
            }
        }
    }

    /// Where a client comes from that is not on a Unix socket.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(socket) | Self::Tls(socket, _) => Some(socket.peer_addr().ok()?.ip()),
            Self::Unix(_) => None,
        }
    }

    /// The client's address and ours, as `CLIENT LIST` shows them.
    pub(crate) fn addresses(&self) -> (String, String) {
        match self {
            Self::Tcp(socket) | Self::Tls(socket, _) => {
                let text = |address: io::Result<std::net::SocketAddr>| {
                    address.map_or_else(|_| "?:0".to_owned(), |address| address.to_string())
                };
                (text(socket.peer_addr()), text(socket.local_addr()))
            }
            Self::Unix(socket) => {
                let address = socket.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                let path = path.map_or_else(|| "?".to_owned(), |path| path.display().to_string());
                (format!("{path}:0"), format!("{path}:0"))
            }
        }
    }
}

impl Socket {
    /// Whether what was written may still wait here for a flush.
    pub(crate) fn needs_flush(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

fn register(socket: std::net::TcpStream) -> io::Result<TcpStream> {
    socket.set_nonblocking(true)?;
    // Replies are whole when they are written; waiting for more would only delay them.
    socket.set_nodelay(true)?;
    TcpStream::from_std(socket)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Tls(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
