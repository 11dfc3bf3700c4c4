//! Bytes to requests. Sans-IO and incremental: any split of a stream decodes to the same requests.
//!
//! The decoder never keeps what it need not: input that makes whole requests is read in place, from whatever buffer the
//! caller read it into, so that an idle connection owns no read buffer. What it keeps is a line or a bulk that was cut.
//! A long bulk gets a buffer of its own, which the caller can read into ([`Decoder::bulk_buffer`]): the artifact then
//! reaches the cache without a copy.

use std::borrow::Cow;

use bytes::buf::Limit;
use bytes::{BufMut, Bytes};

use super::inline;
use super::number::parse_i64;

/// Redis' bound on a line: an inline command, or the count after `*` or `$`.
const LINE_LEN_MAX: usize = 64 * 1024;
/// Redis' bounds for clients that have not authenticated: enough for `HELLO 3 AUTH user password SETNAME name`.
const UNAUTHENTICATED_ARGS_MAX: usize = 10;
const UNAUTHENTICATED_BULK_MAX: u64 = 16 * 1024;
/// Redis allows 2^31 arguments. Nobody sends 2^20; a bound keeps one request from taking all memory in empty strings.
const ARGS_MAX: usize = 1 << 20;
/// From here on a bulk is read into its own buffer: below, a copy is cheaper than another system call.
pub(crate) const DIRECT_LEN_MIN: usize = 16 * 1024;
/// What a bulk's buffer starts with at most; it grows as bytes come, so a length alone never takes memory.
/// Up to here the buffer is exact and nothing is ever moved.
const BULK_ALLOCATION_MAX: usize = 4 << 20;
/// What one request may hold in all, on top of one entry.
const REQUEST_BYTES_BESIDE_ENTRY: u64 = 64 << 20;
/// What an argument takes beside its bytes: its place in the request, and what an allocation of its own costs.
pub(crate) const ARG_OVERHEAD_BYTES: u64 = 64;
/// Kept of a request that is not: its command and its keys, for whoever is told that it was refused.
const KEPT_OF_DROPPED_MAX: u64 = 16 * 1024;
/// And of all arguments of a request together that there is no room for.
const DROPPED_BYTES_MAX: u64 = 256 * 1024;
/// What TLS begins with, and no command.
const TLS_HANDSHAKE: u8 = 0x16;
/// `\r\n` after a bulk.
const END_LEN: usize = 2;

/// One command as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// The command's name and its arguments; at least one.
    pub(crate) args: Vec<Bytes>,
    /// Why a bulk was read past and replaced by an empty one, if that happened.
    pub(crate) dropped: Option<Dropped>,
}

/// Why a bulk was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Its length was over the limit.
    TooLarge(u64),
    /// All connections together hold as much as they may.
    NoRoom,
}

/// Why a stream cannot be read on. The connection says so and closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("invalid multibulk length")]
    InvalidMultibulkLength,
    #[error("unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    #[error("invalid bulk length")]
    InvalidBulkLength,
    #[error("unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    #[error("expected '$', got '{}'", char::from(*.0))]
    ExpectedBulk(u8),
    #[error("too big mbulk count string")]
    TooBigMultibulkCount,
    #[error("too big bulk count string")]
    TooBigBulkCount,
    #[error("too big inline request")]
    TooBigInline,
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
    #[error("request is too large")]
    TooLarge,
    #[error("the request came too slowly")]
    TooSlow,
    #[error("this port speaks no TLS")]
    Tls,
}

/// How large a bulk may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// A longer bulk is read past and reported as [`Request::dropped`].
    pub(crate) bulk_len_max: u64,
    /// A longer one still ends the connection, as Redis' `proto-max-bulk-len`.
    pub(crate) protocol_bulk_len_max: u64,
}

#[derive(Debug)]
pub(crate) struct Decoder {
    limits: Limits,
    /// A line whose end has not come yet.
    line: Vec<u8>,
    args: Vec<Bytes>,
    /// Arguments of the array that are still to come; 0 between requests.
    args_left: usize,
    bulk: Option<Bulk>,
    dropped: Option<Dropped>,
    /// What the request that is being read will hold when its last bulk so far is whole.
    request_bytes: u64,
}

/// A bulk whose end has not come yet.
#[derive(Debug)]
struct Bulk {
    buffer: Vec<u8>,
    len: u64,
    /// Bytes to come, `\r\n` included.
    missing: u64,
    is_kept: bool,
}

#[derive(Clone, Copy)]
enum Line {
    Inline,
    Header,
}

impl Decoder {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            line: Vec::new(),
            args: Vec::new(),
            args_left: 0,
            bulk: None,
            dropped: None,
            request_bytes: 0,
        }
    }

    /// Takes from `input` up to the end of one request; `None` when `input` is used up before.
    pub(crate) fn decode(
        &mut self,
        input: &mut &[u8],
        is_authenticated: bool,
    ) -> Result<Option<Request>, ProtocolError> {
        loop {
            if let Some(bulk) = &mut self.bulk {
                if !bulk.fill(input) {
                    return Ok(None);
                }
                let bulk = self.bulk.take();
                self.push(bulk.map(Bulk::into_bytes).unwrap_or_default());
            } else if self.args_left > 0 {
                let Some(line) = self.take_line(input, Line::Header, ProtocolError::TooBigBulkCount)? else {
                    return Ok(None);
                };
                self.start_bulk(&line, input, is_authenticated)?;
            } else {
                let Some(first) = self.line.first().or(input.first()) else { return Ok(None) };
                if *first != b'*' {
                    if *first == TLS_HANDSHAKE {
                        return Err(ProtocolError::Tls);
                    }
                    let Some(line) = self.take_line(input, Line::Inline, ProtocolError::TooBigInline)? else {
                        return Ok(None);
                    };
                    let args = inline::split(&line).ok_or(ProtocolError::UnbalancedQuotes)?;
                    if !args.is_empty() {
                        return Ok(Some(Request { args, dropped: None }));
                    }
                    continue;
                }
                let Some(line) = self.take_line(input, Line::Header, ProtocolError::TooBigMultibulkCount)?
                else {
                    return Ok(None);
                };
                self.args_left = args_count(&line, is_authenticated)?;
                self.args.reserve_exact(self.args_left.min(64));
                continue;
            }
            if self.args_left == 0 && self.bulk.is_none() {
                self.request_bytes = 0;
                let args = std::mem::take(&mut self.args);
                return Ok(Some(Request { args, dropped: self.dropped.take() }));
            }
        }
    }

    /// Where the rest of a long bulk may be read into directly, instead of into a buffer that is then decoded.
    pub(crate) fn bulk_buffer(&mut self) -> Option<Limit<&mut Vec<u8>>> {
        let bulk = self.bulk.as_mut().filter(|bulk| bulk.is_kept)?;
        let missing = usize::try_from(bulk.missing).unwrap_or(usize::MAX);
        if missing < DIRECT_LEN_MIN {
            return None;
        }
        bulk.grow(missing);
        // Not past the allocation: growing is this type's business.
        let room = (bulk.buffer.capacity() - bulk.buffer.len()).min(missing);
        Some((&mut bulk.buffer).limit(room))
    }

    /// To be called with the number of bytes read into [`Decoder::bulk_buffer`].
    pub(crate) fn bulk_advanced(&mut self, by: usize) {
        if let Some(bulk) = &mut self.bulk {
            bulk.missing = bulk.missing.saturating_sub(by as u64);
        }
    }

    /// Whether a request has begun and not ended.
    pub(crate) fn is_inside_request(&self) -> bool {
        self.args_left > 0 || !self.line.is_empty() || self.bulk.is_some()
    }

    /// What the request that is being read holds so far, in bytes.
    pub(crate) fn held_bytes(&self) -> u64 {
        let missing = self.bulk.as_ref().filter(|bulk| bulk.is_kept).map_or(0, |bulk| bulk.missing);
        self.request_bytes.saturating_sub(missing) + self.line.len() as u64
    }

    /// Keeps no more of the request that is being read than whoever refuses it needs. The rest of it is read past.
    pub(crate) fn drop_request(&mut self) {
        self.dropped.get_or_insert(Dropped::NoRoom);
        if let Some(bulk) = self.bulk.as_mut().filter(|bulk| bulk.len > KEPT_OF_DROPPED_MAX) {
            bulk.is_kept = false;
            bulk.buffer = Vec::new();
        }
        for arg in self.args.iter_mut().filter(|arg| arg.len() as u64 > KEPT_OF_DROPPED_MAX) {
            *arg = Bytes::new();
        }
        self.request_bytes = self.args.iter().map(|arg| arg.len() as u64 + ARG_OVERHEAD_BYTES).sum();
    }

    fn push(&mut self, arg: Bytes) {
        self.args.push(arg);
        self.args_left -= 1;
    }

    fn start_bulk(
        &mut self,
        line: &[u8],
        input: &mut &[u8],
        is_authenticated: bool,
    ) -> Result<(), ProtocolError> {
        let len = bulk_len(line, is_authenticated)?;
        if len > self.limits.protocol_bulk_len_max.max(self.limits.bulk_len_max) {
            return Err(ProtocolError::InvalidBulkLength);
        }
        let is_within = len <= self.limits.bulk_len_max;
        if !is_within {
            self.dropped = Some(Dropped::TooLarge(len));
        }
        let is_kept = is_within && (self.dropped != Some(Dropped::NoRoom) || len <= KEPT_OF_DROPPED_MAX);
        self.request_bytes += ARG_OVERHEAD_BYTES + if is_kept { len } else { 0 };
        let bytes_max = match self.dropped {
            Some(Dropped::NoRoom) => DROPPED_BYTES_MAX,
            Some(Dropped::TooLarge(_)) | None => {
                REQUEST_BYTES_BESIDE_ENTRY.saturating_add(self.limits.bulk_len_max)
            }
        };
        if self.request_bytes > bytes_max {
            return Err(ProtocolError::TooLarge);
        }
        let missing = len + END_LEN as u64;
        let available =
            usize::try_from(missing).ok().filter(|_| is_kept).and_then(|n| input.split_at_checked(n));
        if let Some((bulk, rest)) = available {
            *input = rest;
            self.push(Bytes::copy_from_slice(bulk.get(..bulk.len() - END_LEN).unwrap_or_default()));
            return Ok(());
        }
        self.bulk = Some(Bulk { buffer: Vec::new(), len, missing, is_kept });
        Ok(())
    }

    /// The next line, without its end.
    fn take_line<'a>(
        &mut self,
        input: &mut &'a [u8],
        line: Line,
        too_long: ProtocolError,
    ) -> Result<Option<Cow<'a, [u8]>>, ProtocolError> {
        if self.line.is_empty() {
            if let Some((content, rest)) = line.split(input) {
                *input = rest;
                return if content.len() > LINE_LEN_MAX { Err(too_long) } else { Ok(Some(content.into())) };
            }
            self.line.extend_from_slice(input);
            *input = &[];
        }
        // A line that was cut is rare and short: byte by byte will do.
        loop {
            if self.line.len() > LINE_LEN_MAX + usize::from(self.line.last() == Some(&b'\r')) {
                return Err(too_long);
            }
            let Some((byte, rest)) = input.split_first() else { return Ok(None) };
            *input = rest;
            self.line.push(*byte);
            if let Some((content, _)) = line.split(&self.line) {
                let content_len = content.len();
                let mut content = std::mem::take(&mut self.line);
                content.truncate(content_len);
                return Ok(Some(content.into()));
            }
        }
    }
}

impl Bulk {
    /// Takes what it can use of `input`, and says whether the bulk is whole.
    fn fill(&mut self, input: &mut &[u8]) -> bool {
        let missing = usize::try_from(self.missing).unwrap_or(usize::MAX);
        let (mut taken, rest) = input.split_at(missing.min(input.len()));
        *input = rest;
        self.missing -= taken.len() as u64;
        while self.is_kept && !taken.is_empty() {
            self.grow(usize::try_from(self.missing).unwrap_or(usize::MAX).saturating_add(taken.len()));
            let room = self.buffer.capacity() - self.buffer.len();
            let (now, later) = taken.split_at(room.min(taken.len()));
            self.buffer.extend_from_slice(now);
            taken = later;
        }
        self.missing == 0
    }

    /// Makes room for some of the `missing` bytes: all where that is little, as much again as there is where it is not.
    fn grow(&mut self, missing: usize) {
        if self.buffer.len() == self.buffer.capacity() {
            self.buffer.reserve_exact(missing.min(self.buffer.len().max(BULK_ALLOCATION_MAX)));
        }
    }

    fn into_bytes(mut self) -> Bytes {
        self.buffer.truncate(usize::try_from(self.len).unwrap_or(usize::MAX));
        self.buffer.into()
    }
}

impl Line {
    /// Splits `bytes` into the first line without its end, and what follows it.
    fn split(self, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        match self {
            Self::Inline => {
                let (line, rest) = bytes.split_at_checked(memchr::memchr(b'\n', bytes)?)?;
                Some((line.strip_suffix(b"\r").unwrap_or(line), rest.get(1..)?))
            }
            // As Redis, which looks for `\r` and skips whatever follows it.
            Self::Header => {
                let (line, rest) = bytes.split_at_checked(memchr::memchr(b'\r', bytes)?)?;
                Some((line, rest.get(END_LEN..)?))
            }
        }
    }
}

/// The count in `*<count>`; none and negative mean an empty request, which is skipped.
fn args_count(line: &[u8], is_authenticated: bool) -> Result<usize, ProtocolError> {
    let count = line.get(1..).and_then(parse_i64).ok_or(ProtocolError::InvalidMultibulkLength)?;
    let count = usize::try_from(count).unwrap_or(0);
    if count > ARGS_MAX {
        return Err(ProtocolError::InvalidMultibulkLength);
    }
    if count > UNAUTHENTICATED_ARGS_MAX && !is_authenticated {
        return Err(ProtocolError::UnauthenticatedMultibulkLength);
    }
    Ok(count)
}

/// The length in `$<length>`.
fn bulk_len(line: &[u8], is_authenticated: bool) -> Result<u64, ProtocolError> {
    let Some(digits) = line.strip_prefix(b"$") else {
        return Err(ProtocolError::ExpectedBulk(line.first().copied().unwrap_or(b'\r')));
    };
    let len =
        parse_i64(digits).and_then(|len| u64::try_from(len).ok()).ok_or(ProtocolError::InvalidBulkLength)?;
    if len > UNAUTHENTICATED_BULK_MAX && !is_authenticated {
        return Err(ProtocolError::UnauthenticatedBulkLength);
    }
    Ok(len)
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
