//! A socket that keeps its deadline, whoever reads and writes on it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::pace::Deadline;
use super::stream::lost;
use crate::Error;

/// A connected socket; every wait on it is within `deadline`.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    pub(super) deadline: Arc<Deadline>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What one write may hand to the system: its timeout is for the whole call, and must measure a stall, not a transfer.
const WRITE_LEN_MAX: usize = 64 << 10;

impl Socket {
    pub(super) fn tcp(stream: TcpStream, deadline: Arc<Deadline>) -> Self {
        Self { stream: Stream::Tcp(stream), deadline }
    }

    pub(super) fn unix(stream: UnixStream, deadline: Arc<Deadline>) -> Self {
        Self { stream: Stream::Unix(stream), deadline }
    }

    /// What an error of a read or a write means.
    pub(super) fn explain(&self, what: &str, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.deadline.stalled(),
            _ => lost(what, error),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let limit = Some(self.deadline.wait().map_err(|_| io::ErrorKind::TimedOut)?);
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.set_read_timeout(limit).and_then(|()| stream.read(buffer)),
                Stream::Unix(stream) => stream.set_read_timeout(limit).and_then(|()| stream.read(buffer)),
            };
            // Here, so that a signal does not begin a wait anew with its whole limit.
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read.inspect(|len| self.deadline.moved(*len)),
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = bytes.get(..WRITE_LEN_MAX).unwrap_or(bytes);
        loop {
            let limit = Some(self.deadline.wait().map_err(|_| io::ErrorKind::TimedOut)?);
            let written = match &mut self.stream {
                Stream::Tcp(stream) => stream.set_write_timeout(limit).and_then(|()| stream.write(part)),
                Stream::Unix(stream) => stream.set_write_timeout(limit).and_then(|()| stream.write(part)),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => return written.inspect(|len| self.deadline.moved(*len)),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
