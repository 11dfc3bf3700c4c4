//! Sockets with a limit on every wait.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::engine::Deadline;
use crate::{Error, ErrorKind, Result};

/// A connected socket.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What one write may hand to the system: its timeout is for the whole call, and must measure a stall, not a transfer.
const WRITE_LEN_MAX: usize = 64 << 10;

impl Stream {
    pub(super) fn tcp(host: &str, port: u16, deadline: &Deadline) -> Result<Self> {
        let mut last = None;
        for address in resolve(host, port, deadline)? {
            match TcpStream::connect_timeout(&address, deadline.connect_wait()?) {
                Ok(stream) => {
                    // A request is one write: nothing is gained by waiting for more of it.
                    stream.set_nodelay(true).map_err(|error| lost("cannot set up the connection", error))?;
                    return Ok(Self::Tcp(stream));
                }
                Err(error) if is_timeout(&error) => last = Some(deadline.not_connected()),
                Err(error) => last = Some(lost("cannot connect", error)),
            }
        }
        Err(last.unwrap_or_else(|| unavailable("the host has no address")))
    }

    /// A connect to a Unix socket waits while its backlog is full, and std has no limit for that.
    pub(super) fn unix(path: &Path, deadline: &Deadline) -> Result<Self> {
        use rustix::net::{
            AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
        };
        let limit = deadline.connect_wait()?;
        let connected = || -> rustix::io::Result<_> {
            let address = SocketAddrUnix::new(path)?;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(limit))?;
            connect(&socket, &address)?;
            Ok(socket)
        };
        match connected() {
            Ok(socket) => Ok(Self::Unix(UnixStream::from(socket))),
            Err(rustix::io::Errno::AGAIN) => Err(deadline.not_connected()),
            Err(error) => Err(lost("cannot connect", error.into())),
        }
    }

    /// Writes all of `bytes`, each part of it without a stall.
    pub(super) fn write_all(&mut self, mut bytes: &[u8], deadline: &Deadline) -> Result<()> {
        while !bytes.is_empty() {
            let part = bytes.get(..WRITE_LEN_MAX).unwrap_or(bytes);
            match self.write_within(part, deadline.wait()?) {
                Ok(0) => return Err(unavailable("the connection was closed")),
                Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return Err(deadline.stalled()),
                Err(error) => return Err(lost("cannot write", error)),
            }
        }
        Ok(())
    }

    /// Reads what is there, waiting for at least one byte. An end is an error: a reply was due.
    pub(super) fn read(&mut self, buffer: &mut [u8], deadline: &Deadline) -> Result<usize> {
        loop {
            match self.read_within(buffer, deadline.wait()?) {
                Ok(0) => return Err(unavailable("the connection was closed")),
                Ok(len) => return Ok(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return Err(deadline.stalled()),
                Err(error) => return Err(lost("cannot read", error)),
            }
        }
    }

    fn write_within(&mut self, bytes: &[u8], limit: Duration) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => {
                stream.set_write_timeout(Some(limit))?;
                stream.write(bytes)
            }
            Self::Unix(stream) => {
                stream.set_write_timeout(Some(limit))?;
                stream.write(bytes)
            }
        }
    }

    fn read_within(&mut self, buffer: &mut [u8], limit: Duration) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(limit))?;
                stream.read(buffer)
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(limit))?;
                stream.read(buffer)
            }
        }
    }
}

/// The addresses of `host`. The system's look-up knows no limit, so a name is looked up on a thread of its own, which ends
/// with the look-up; who writes an address has no thread at all.
fn resolve(host: &str, port: u16, deadline: &Deadline) -> Result<Vec<SocketAddr>> {
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

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// In words for the user: the text of a notice.
pub(super) fn lost(what: &str, source: io::Error) -> Error {
    Error::backend(ErrorKind::Unavailable, format!("{what}: {source}"))
}

pub(super) fn unavailable(what: &str) -> Error {
    Error::backend(ErrorKind::Unavailable, what)
}
