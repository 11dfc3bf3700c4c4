//! Connections, plain or with TLS, with a limit on every wait.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, mpsc};

use super::pace::Deadline;
use super::socket::Socket;
use super::tls::{Tls, TlsStream};
use crate::{Error, ErrorKind, Result};

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Connects to `host`, with `tls` if given.
    pub(super) fn tcp(host: &str, port: u16, tls: Option<&Tls>, deadline: &Arc<Deadline>) -> Result<Self> {
        let socket = connect(host, port, deadline)?;
        Ok(match tls {
            None => Self::Plain(socket),
            Some(tls) => Self::Tls(Box::new(tls.connect(host, socket)?)),
        })
    }

    /// A connect to a Unix socket waits while its backlog is full, and std has no limit for that.
    pub(super) fn unix(path: &Path, deadline: &Arc<Deadline>) -> Result<Self> {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket, sockopt};
        let limit = deadline.connect_wait()?;
        let connected = || -> rustix::io::Result<_> {
            let address = SocketAddrUnix::new(path)?;
            let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
            // Not in one step with the socket, which some systems cannot; a program that forks and executes in between
            // inherits a connection that it does not use.
            rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(limit))?;
            connect(&socket, &address)?;
            Ok(socket)
        };
        match connected() {
            Ok(socket) => Ok(Self::Plain(Socket::unix(UnixStream::from(socket), deadline.clone()))),
            Err(rustix::io::Errno::AGAIN) => Err(deadline.not_connected()),
            Err(error) => Err(lost("cannot connect", error.into())),
        }
    }

    /// Writes all of `bytes`, each part of it without a stall.
    pub(super) fn write_all(&mut self, bytes: &[u8], deadline: &Arc<Deadline>) -> Result<()> {
        self.socket().deadline = deadline.clone();
        // TLS tells of a failed write only when it is flushed.
        let written = match self {
            Self::Plain(socket) => socket.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        };
        written.map_err(|error| self.socket().explain("cannot write", error))
    }

    /// Reads what is there, waiting for at least one byte. An end is an error: a reply was due.
    pub(super) fn read(&mut self, buffer: &mut [u8], deadline: &Arc<Deadline>) -> Result<usize> {
        self.socket().deadline = deadline.clone();
        let read = match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        };
        match read {
            Ok(0) => Err(unavailable("the connection was closed")),
            Ok(len) => Ok(len),
            Err(error) => Err(self.socket().explain("cannot read", error)),
        }
    }

    fn socket(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &mut stream.sock,
        }
    }
}

fn connect(host: &str, port: u16, deadline: &Arc<Deadline>) -> Result<Socket> {
    let mut last = None;
    for address in resolve(host, port, deadline)? {
        match TcpStream::connect_timeout(&address, deadline.connect_wait()?) {
            Ok(stream) => {
                // A request is one write: nothing is gained by waiting for more of it.
                stream.set_nodelay(true).map_err(|error| lost("cannot set up the connection", error))?;
                return Ok(Socket::tcp(stream, deadline.clone()));
            }
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                last = Some(deadline.not_connected());
            }
            Err(error) => last = Some(lost("cannot connect", error)),
        }
    }
    Err(last.unwrap_or_else(|| unavailable("the host has no address")))
}

/// The addresses of `host`. The system's look-up knows no limit, so a name is looked up on a thread of its own, which ends
/// with the look-up; who writes an address has no thread at all.
fn resolve(host: &str, port: u16, deadline: &Arc<Deadline>) -> Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let limit = deadline.connect_wait()?;
    let (sender, receiver) = mpsc::sync_channel(1);
    let name = host.to_owned();
    let look_up = move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
        let _ = sender.send(found);
    };
    std::thread::Builder::new().spawn(look_up).map_err(|error| lost("cannot look up the host", error))?;
    match receiver.recv_timeout(limit) {
        Ok(found) => found.map_err(|error| lost("cannot look up the host", error)),
        Err(_) => Err(Error::Timeout { what: "looking up the host", after: limit }),
    }
}

/// In words for the user: the text of a notice.
pub(super) fn lost(what: &str, source: std::io::Error) -> Error {
    Error::backend(ErrorKind::Unavailable, format!("{what}: {source}"))
}

pub(super) fn unavailable(what: &str) -> Error {
    Error::backend(ErrorKind::Unavailable, what)
}
