//! RESP2 as a client speaks it, with limits on what a server may make us read and keep.

use std::sync::Arc;

use bytes::Bytes;

use super::pace::Deadline;
use super::stream::{Stream, unavailable};
use crate::reused::Reused;
use crate::{Error, Result};

/// A connection and what was read ahead on it.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    ahead: Vec<u8>,
    /// Where in `ahead` the unread bytes are.
    unread: std::ops::Range<usize>,
    /// What the replies of this exchange may still hold, in bytes.
    room: u64,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
}

/// A reply; an array's items are never arrays in what we ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Bytes),
    Nil,
    Array(Vec<Reply>),
}

const AHEAD_LEN: usize = 16 << 10;
/// Longer than any error text worth reading.
const LINE_LEN_MAX: usize = 4 << 10;
/// Longest bulk that is read, in bytes: what Redis itself takes.
pub(super) const BULK_LEN_MAX: u64 = 512 << 20;
/// Longest sum of the bulks of one exchange, in bytes: one MGET asks for dozens.
const EXCHANGE_LEN_MAX: u64 = 1 << 30;
/// Memory grows with what has come, from here on: a length alone makes us allocate no more than this.
const GROWTH_LEN: usize = 4 << 20;
/// From here on a part of a command is sent from where it lies: a shorter one is cheaper to copy than to send by itself.
const LENT_LEN_MIN: usize = 16 << 10;

impl Wire {
    pub(super) fn new(stream: Stream) -> Self {
        let room = EXCHANGE_LEN_MAX;
        Self { stream, ahead: vec![0; AHEAD_LEN], unread: 0..0, room, bytes_read: 0, bytes_written: 0 }
    }

    /// To be called before each exchange: bounds what its replies may hold together.
    pub(super) fn begin(&mut self) {
        self.room = EXCHANGE_LEN_MAX;
    }

    pub(super) fn send(&mut self, outgoing: &Outgoing<'_>, deadline: &Arc<Deadline>) -> Result<()> {
        for (gathered, lent) in &outgoing.first {
            self.write(gathered, deadline)?;
            self.write(lent, deadline)?;
        }
        self.write(&outgoing.last, deadline)
    }

    fn write(&mut self, bytes: &[u8], deadline: &Arc<Deadline>) -> Result<()> {
        self.bytes_written += bytes.len() as u64;
        self.stream.write_all(bytes, deadline)
    }

    /// Whether nothing is left over from the last reply: on anything else no next reply could be trusted.
    pub(super) fn is_clean(&self) -> bool {
        self.unread.is_empty()
    }

    /// Reads one reply. `items_max` bounds an array, and is 0 inside one.
    pub(super) fn reply(&mut self, items_max: usize, deadline: &Arc<Deadline>) -> Result<Reply> {
        let line = self.line(deadline)?;
        let (tag, rest) = line.split_at_checked(1).ok_or_else(garbage)?;
        let text = || String::from_utf8_lossy(rest).into_owned();
        Ok(match tag {
            b"+" => Reply::Simple(text()),
            b"-" => Reply::Error(text()),
            b":" => Reply::Integer(number(rest)?),
            b"$" => match number(rest)? {
                -1 => Reply::Nil,
                len => Reply::Bulk(self.bulk(u64::try_from(len).map_err(|_| garbage())?, deadline)?),
            },
            b"*" if items_max > 0 => match number(rest)? {
                -1 => Reply::Nil,
                len if usize::try_from(len).is_ok_and(|len| len <= items_max) => {
                    Reply::Array((0..len).map(|_| self.reply(0, deadline)).collect::<Result<_>>()?)
                }
                _ => return Err(garbage()),
            },
            b"H" if rest.starts_with(b"TTP/") => return Err(unavailable(HTTP_PORT)),
            _ => return Err(garbage()),
        })
    }

    /// A line without its end.
    fn line(&mut self, deadline: &Arc<Deadline>) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            let unread = self.ahead.get(self.unread.clone()).unwrap_or_default();
            let end = memchr::memchr(b'\n', unread);
            let taken = end.map_or(unread.len(), |end| end + 1);
            line.extend_from_slice(unread.get(..taken).unwrap_or_default());
            self.unread.start += taken;
            if line.len() > LINE_LEN_MAX {
                return Err(garbage());
            }
            if end.is_some() {
                line.pop();
                return if line.pop() == Some(b'\r') { Ok(line) } else { Err(garbage()) };
            }
            self.fill(deadline)?;
        }
    }

    fn bulk(&mut self, len: u64, deadline: &Arc<Deadline>) -> Result<Bytes> {
        if len > BULK_LEN_MAX {
            return Err(Error::TooLarge { what: "reply", size_bytes: len, max_bytes: BULK_LEN_MAX });
        }
        let Some(room) = self.room.checked_sub(len) else {
            let size_bytes = EXCHANGE_LEN_MAX - self.room + len;
            return Err(Error::TooLarge { what: "replies", size_bytes, max_bytes: EXCHANGE_LEN_MAX });
        };
        self.room = room;
        let len = len as usize;
        let mut reused = Reused::for_len(len.min(GROWTH_LEN));
        let bulk = reused.buffer();
        let mut filled = 0;
        while filled < len {
            // What a buffer held before need not be cleared: all of it is written over.
            bulk.resize(len.min(filled.max(GROWTH_LEN / 2) * 2), 0);
            filled += self.take(bulk.get_mut(filled..).unwrap_or_default(), deadline)?;
        }
        bulk.truncate(len);
        let mut end = [0; 2];
        for byte in &mut end {
            if self.unread.is_empty() {
                self.fill(deadline)?;
            }
            *byte = self.ahead.get(self.unread.start).copied().unwrap_or_default();
            self.unread.start += 1;
        }
        if &end == b"\r\n" { Ok(Bytes::from_owner(reused)) } else { Err(garbage()) }
    }

    /// Moves some of what comes next into `room`, and says how much.
    fn take(&mut self, room: &mut [u8], deadline: &Arc<Deadline>) -> Result<usize> {
        let ahead = self.ahead.get(self.unread.clone()).unwrap_or_default();
        if ahead.is_empty() {
            let read = self.stream.read(room, deadline)?;
            self.bytes_read += read as u64;
            return Ok(read);
        }
        let taken = ahead.len().min(room.len());
        if let (Some(to), Some(from)) = (room.get_mut(..taken), ahead.get(..taken)) {
            to.copy_from_slice(from);
        }
        self.unread.start += taken;
        Ok(taken)
    }

    fn fill(&mut self, deadline: &Arc<Deadline>) -> Result<()> {
        let read = self.stream.read(&mut self.ahead, deadline)?;
        self.bytes_read += read as u64;
        self.unread = 0..read;
        Ok(())
    }
}

/// What is said when a URL has the server's other port.
const HTTP_PORT: &str = "it answers in HTTP: the URL needs the port for Redis clients, 6379 by default";

/// What is said of bytes that are no RESP.
pub(super) fn garbage() -> Error {
    unavailable("the answer is not in Redis' protocol")
}

fn number(text: &[u8]) -> Result<i64> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(garbage)
}

/// Commands on their way out: what is short is gathered, what is long is lent and not copied.
#[derive(Debug, Default)]
pub(super) struct Outgoing<'a> {
    first: Vec<(Vec<u8>, &'a [u8])>,
    last: Vec<u8>,
}

impl<'a> Outgoing<'a> {
    /// Adds a command: an array of bulks, each made of the parts given.
    pub(super) fn push_command(&mut self, args: &[&[&'a [u8]]]) {
        self.push_len(b'*', args.len());
        for arg in args {
            self.push_len(b'$', arg.iter().map(|part| part.len()).sum());
            for part in *arg {
                self.push(part);
            }
            self.last.extend_from_slice(b"\r\n");
        }
    }

    fn push(&mut self, part: &'a [u8]) {
        if part.len() < LENT_LEN_MIN {
            self.last.extend_from_slice(part);
        } else {
            self.first.push((std::mem::take(&mut self.last), part));
        }
    }

    fn push_len(&mut self, tag: u8, len: usize) {
        self.last.push(tag);
        self.last.extend_from_slice(len.to_string().as_bytes());
        self.last.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::super::socket::Socket;
    use super::*;

    #[test]
    fn the_replies_of_an_exchange_have_a_bound_in_common_and_the_next_exchange_its_own() {
        let second = Duration::from_secs(1);
        let deadline = Arc::new(Deadline::new(second, second, second, second));
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut wire = Wire::new(Stream::Plain(Socket::unix(ours, deadline.clone())));
        theirs.write_all(b"*2\r\n$3\r\nabc\r\n$1\r\nd\r\n*2\r\n$3\r\nabc\r\n$2\r\nde\r\n").unwrap();
        wire.room = 4;
        assert!(wire.reply(2, &deadline).is_ok());
        wire.room = 4;
        let refused = wire.reply(2, &deadline);
        assert!(matches!(refused, Err(Error::TooLarge { what: "replies", .. })), "{refused:?}");
        wire.begin();
        assert_eq!(wire.room, EXCHANGE_LEN_MAX);
    }
}
