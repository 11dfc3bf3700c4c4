//! Replies on their way out.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// From here on an artifact is queued as it is; a shorter one is cheaper to copy than to hand to the kernel by itself.
const BY_REFERENCE_LEN_MIN: usize = 4 * 1024;
/// Buffers handed to one system call. More than this many artifacts wait only behind a deep pipeline.
const SLICES: usize = 32;
/// What an idle connection may keep of its buffer.
const IDLE_CAPACITY_MAX: usize = 4 * 1024;

/// A queue of bytes to send: small ones gathered, artifacts by reference, all of it written with vectored writes.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Sent first. Gathered pieces and artifacts in turn.
    queue: VecDeque<Bytes>,
    /// Sent last: what is being gathered.
    tail: BytesMut,
    queued_bytes: usize,
}

impl Output {
    /// Bytes not sent yet.
    pub(crate) fn len(&self) -> usize {
        self.queued_bytes
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.queued_bytes += bytes.len();
    }

    pub(crate) fn push_artifact(&mut self, bytes: Bytes) {
        if bytes.len() < BY_REFERENCE_LEN_MIN {
            return self.push(&bytes);
        }
        if !self.tail.is_empty() {
            self.queue.push_back(self.tail.split().freeze());
        }
        self.queued_bytes += bytes.len();
        self.queue.push_back(bytes);
    }

    /// `<tag><number>\r\n`.
    pub(crate) fn push_number(&mut self, tag: u8, number: i64) {
        // Digits from the last to the first: the longest is -9223372036854775808.
        let mut line = [0_u8; 24];
        let mut at = line.len();
        let mut put = |byte| {
            at -= 1;
            if let Some(place) = line.get_mut(at) {
                *place = byte;
            }
        };
        put(b'\n');
        put(b'\r');
        let mut magnitude = number.unsigned_abs();
        loop {
            put(b'0' + (magnitude % 10) as u8);
            magnitude /= 10;
            if magnitude == 0 {
                break;
            }
        }
        if number < 0 {
            put(b'-');
        }
        put(tag);
        let from = at;
        self.push(line.get(from..).unwrap_or_default());
    }

    /// `<tag><length>\r\n`.
    pub(crate) fn push_len(&mut self, tag: u8, len: usize) {
        self.push_number(tag, i64::try_from(len).unwrap_or(i64::MAX));
    }

    /// Writes some of the queue, and says how much. Ready with 0 only when nothing is queued.
    pub(crate) fn poll_write(
        &mut self,
        mut socket: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.queued_bytes == 0 {
            return Poll::Ready(Ok(0));
        }
        let written = if self.queue.is_empty() {
            ready!(socket.as_mut().poll_write(cx, &self.tail))?
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let pieces = self.queue.iter().map(|bytes| &**bytes).chain([&*self.tail]);
            for (slice, piece) in slices.iter_mut().zip(pieces) {
                *slice = IoSlice::new(piece);
            }
            ready!(socket.as_mut().poll_write_vectored(cx, &slices))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    fn advance(&mut self, mut by: usize) {
        self.queued_bytes -= by;
        while let Some(first) = self.queue.front_mut() {
            if by < first.len() {
                first.advance(by);
                return;
            }
            by -= first.len();
            self.queue.pop_front();
        }
        self.tail.advance(by);
    }

    /// Gives back what an idle connection does not need.
    pub(crate) fn shrink(&mut self) {
        if self.queued_bytes == 0 {
            if self.tail.capacity() > IDLE_CAPACITY_MAX {
                self.tail = BytesMut::new();
            }
            if self.queue.capacity() > SLICES {
                self.queue = VecDeque::new();
            }
        }
    }

    /// All of it at once, for tests.
    #[cfg(test)]
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.queue.iter().flat_map(|bytes| bytes.to_vec()).chain(self.tail.to_vec()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes at most three bytes a call, so that every boundary is crossed.
    #[derive(Default)]
    struct Slow(Vec<u8>);

    impl AsyncWrite for Slow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let n = buf.len().min(3);
            self.0.extend_from_slice(&buf[..n]);
            Poll::Ready(Ok(n))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn bytes_leave_in_order_however_little_a_write_takes() {
        let mut output = Output::default();
        let mut expected = Vec::new();
        for len in [1, 5000, 0, 4096, 17] {
            output.push_len(b'$', len);
            output.push_artifact(vec![b'x'; len].into());
            expected.extend(format!("${len}\r\n").bytes().chain(vec![b'x'; len]));
        }
        output.push_number(b':', i64::MIN);
        expected.extend(b":-9223372036854775808\r\n");
        let mut slow = Slow::default();
        let mut cx = Context::from_waker(Waker::noop());
        while output.len() > 0 {
            assert!(output.poll_write(Pin::new(&mut slow), &mut cx).is_ready());
        }
        assert_eq!(slow.0, expected);
    }
}
