//! Ends connections that stand still.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A stream that fails with `TimedOut` once nothing was read or written for `limit`.
///
/// hyper limits how long a head may take, but neither the bytes before it knows the protocol, nor a client that stops
/// reading its answer. What is absent: limits on slow but steady clients, which `body` has for uploads.
#[derive(Debug)]
pub(super) struct Stall<S> {
    stream: S,
    limit: Duration,
    /// Moved only when the timer fires: a timer operation per read would cost more than the read.
    progressed: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<S> Stall<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, progressed: Instant::now(), timer: Box::pin(tokio::time::sleep(limit)) }
    }

    /// Passes `polled` on, and turns a pending one into an error when the limit has passed.
    fn watch<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.progressed = Instant::now();
            return polled;
        }
        loop {
            ready!(self.timer.as_mut().poll(context));
            let deadline = self.progressed + self.limit;
            if deadline <= Instant::now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.timer.as_mut().reset(deadline);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stall<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watch(polled, context)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stall<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(polled, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn paused() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    }

    #[test]
    fn a_silent_client_is_dropped_after_the_limit() {
        paused().block_on(async {
            let (near, _far) = tokio::io::duplex(16);
            let began = Instant::now();
            let mut stream = Stall::new(near, Duration::from_secs(60));
            let error = stream.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert_eq!(began.elapsed().as_secs(), 60);
        });
    }

    #[test]
    fn a_client_that_stops_reading_is_dropped_after_the_limit() {
        paused().block_on(async {
            let (near, _far) = tokio::io::duplex(16);
            let mut stream = Stall::new(near, Duration::from_secs(60));
            let error = stream.write_all(&[0; 17]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn progress_in_either_direction_starts_the_limit_anew() {
        paused().block_on(async {
            let (near, mut far) = tokio::io::duplex(16);
            let mut stream = Stall::new(near, Duration::from_secs(60));
            let writer = tokio::spawn(async move {
                for _ in 0..5 {
                    tokio::time::sleep(Duration::from_secs(40)).await;
                    far.write_u8(1).await.unwrap();
                }
            });
            for _ in 0..5 {
                assert_eq!(stream.read_u8().await.unwrap(), 1);
            }
            writer.await.unwrap();
        });
    }
}
