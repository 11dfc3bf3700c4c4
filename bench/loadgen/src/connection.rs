//! One blocking connection: encodes commands, reads replies, checks what comes back.

use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::payload::Payload;

/// Large enough that a 4 MiB reply takes few reads; the kernel hands over what it has.
const BUFFER_BYTES: usize = 1 << 20;
/// Below this, parts are copied into one buffer: a copy is cheaper than another slice for the kernel to walk.
const COPY_BYTES_MAX: usize = 16 << 10;
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What a put was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PutReply {
    Kept,
    /// Nil: the server would not keep it.
    Refused,
}

/// What a get was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GetReply {
    Hit,
    Miss,
}

/// How much of a hit is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    Length,
    Bytes,
}

#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    outgoing: Vec<u8>,
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
}

impl Connection {
    pub(crate) fn open(addr: &str) -> io::Result<Self> {
        let address = addr.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("no such address"))?;
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STALL_TIMEOUT))?;
        stream.set_write_timeout(Some(STALL_TIMEOUT))?;
        Ok(Self { stream, outgoing: Vec::new(), buffer: vec![0; BUFFER_BYTES], begin: 0, end: 0 })
    }

    /// Appends a GET to the batch.
    pub(crate) fn queue_get(&mut self, key: &str) {
        self.outgoing.extend_from_slice(format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).as_bytes());
    }

    /// Appends a SET to the batch; a large artifact is sent at once, uncopied, behind what is queued.
    pub(crate) fn queue_set(&mut self, key: &str, payload: &Payload<'_>) -> io::Result<()> {
        let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), payload.len());
        self.outgoing.extend_from_slice(head.as_bytes());
        if payload.len() <= COPY_BYTES_MAX {
            for part in [payload.head, &payload.stamp, payload.tail, b"\r\n"] {
                self.outgoing.extend_from_slice(part);
            }
            return Ok(());
        }
        let mut slices = [
            IoSlice::new(&self.outgoing),
            IoSlice::new(payload.head),
            IoSlice::new(&payload.stamp),
            IoSlice::new(payload.tail),
            IoSlice::new(b"\r\n"),
        ];
        write_all_vectored(&mut self.stream, &mut slices)?;
        self.outgoing.clear();
        Ok(())
    }

    /// Sends the rest of the batch.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.outgoing)?;
        self.outgoing.clear();
        Ok(())
    }

    /// Reads the reply to a SET.
    pub(crate) fn put_reply(&mut self) -> io::Result<PutReply> {
        let line = self.line()?;
        match line.as_slice() {
            b"+OK" => Ok(PutReply::Kept),
            b"$-1" | b"_" => Ok(PutReply::Refused),
            _ => Err(unexpected("OK or nil", &line)),
        }
    }

    /// Reads the reply to a GET and compares it with what was put.
    pub(crate) fn get_reply(&mut self, expected: &Payload<'_>, check: Check) -> io::Result<GetReply> {
        let line = self.line()?;
        if line == b"$-1" || line == b"_" {
            return Ok(GetReply::Miss);
        }
        if line != format!("${}", expected.len()).as_bytes() {
            return Err(unexpected(&format!("a value of {} bytes", expected.len()), &line));
        }
        match check {
            Check::Length => self.consume(expected.len(), None)?,
            Check::Bytes => {
                for part in [expected.head, expected.stamp.as_slice(), expected.tail] {
                    self.consume(part.len(), Some(part))?;
                }
            }
        }
        self.consume(2, Some(b"\r\n"))?;
        Ok(GetReply::Hit)
    }

    /// Takes `length` bytes off the stream, comparing them where there is something to compare with.
    fn consume(&mut self, length: usize, expected: Option<&[u8]>) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            self.refill_if_empty()?;
            let step = (self.end - self.begin).min(length - done);
            if let Some(expected) = expected
                && self.buffer.get(self.begin..self.begin + step) != expected.get(done..done + step)
            {
                return Err(io::Error::other("a reply's bytes differ from what was put"));
            }
            self.begin += step;
            done += step;
        }
        Ok(())
    }

    /// A reply's first line, without its end.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::with_capacity(16);
        loop {
            self.refill_if_empty()?;
            let available = self.buffer.get(self.begin..self.end).unwrap_or(&[]);
            match available.iter().position(|&byte| byte == b'\n') {
                Some(at) => {
                    line.extend_from_slice(available.get(..at).unwrap_or(&[]));
                    self.begin += at + 1;
                    line.pop_if(|last| *last == b'\r');
                    return Ok(line);
                }
                None => {
                    line.extend_from_slice(available);
                    self.begin = self.end;
                }
            }
        }
    }

    fn refill_if_empty(&mut self) -> io::Result<()> {
        if self.begin == self.end {
            self.begin = 0;
            self.end = self.stream.read(&mut self.buffer)?;
            if self.end == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
            }
        }
        Ok(())
    }
}

fn write_all_vectored(stream: &mut TcpStream, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match stream.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn unexpected(wanted: &str, line: &[u8]) -> io::Error {
    io::Error::other(format!("expected {wanted}, found {:?}", String::from_utf8_lossy(line)))
}
