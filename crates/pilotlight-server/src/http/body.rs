//! Reads a request's body: bounded in size, in how slowly it may come, and in what all of them hold together.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::BytesMut;
use pilotlight_cache::Error;
use tokio::time::Instant;

use super::problem::Refusal;
use crate::memory::Memory;

/// A client may take this long, and on top of it what its bytes take at [`BYTES_PER_SECOND_MIN`]: 512 MiB may take two
/// and a half hours over a bad link, while a trickle of single bytes ends after this.
const GRACE: Duration = Duration::from_secs(30);
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;
/// The most that a client's mere announcement of a length makes us reserve.
const RESERVED_BYTES_MAX: usize = 4 << 20;

/// Why a body was not read to its end.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is larger than the limit, or there is no room for it now.
    NotKept(Error),
    /// It came too slowly, broke off, or made no sense.
    Refused(Refusal),
}

/// All of `body`, at most `bytes_max` of it. What it announces is checked before a byte is read.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    bytes_max: u64,
    memory: &Arc<Memory>,
) -> Result<Bytes, Unread> {
    let announced = announced(headers, &body);
    check(announced, bytes_max)?;
    let began = Instant::now();
    let mut share = memory.share();
    let mut body = body;
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    loop {
        let received = (first.len() + rest.len()) as u64;
        let deadline = began + GRACE + Duration::from_secs(received / BYTES_PER_SECOND_MIN);
        let next = poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        let frame = match tokio::time::timeout_at(deadline, next).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                return Err(Unread::Refused(Refusal::bad_request(format!("the body broke off: {error}"))));
            }
            Ok(None) => return Ok(if rest.is_empty() { first } else { rest.freeze() }),
            Err(_) => return Err(Unread::Refused(too_slow(received))),
        };
        // Trailers carry nothing we use.
        let Ok(data) = frame.into_data() else { continue };
        check(received + data.len() as u64, bytes_max)?;
        if !share.resize(received + data.len() as u64) {
            return Err(Unread::NotKept(share.refusal()));
        }
        // A body of one frame is kept as it came; more are gathered.
        if received == 0 {
            first = data;
            continue;
        }
        if rest.is_empty() {
            let announced = usize::try_from(announced).unwrap_or(usize::MAX);
            rest.reserve(announced.min(RESERVED_BYTES_MAX).max(first.len() + data.len()));
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
}

/// What the client says it will send; 0 when it does not say.
fn announced(headers: &HeaderMap, body: &Body) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    length.unwrap_or_else(|| body.size_hint().lower())
}

fn check(size_bytes: u64, max_bytes: u64) -> Result<(), Unread> {
    if size_bytes > max_bytes {
        return Err(Unread::NotKept(Error::TooLarge { what: "entry", size_bytes, max_bytes }));
    }
    Ok(())
}

fn too_slow(received: u64) -> Refusal {
    Refusal::new(
        StatusCode::REQUEST_TIMEOUT,
        format!(
            "the body came too slowly: {received} bytes, expected {} KiB a second",
            BYTES_PER_SECOND_MIN >> 10
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use http_body::Frame;
    use tokio::time::Sleep;

    use super::*;

    /// `parts` of a mebibyte, each a time after the one before; then nothing more, and no end.
    struct Slow {
        parts: u32,
        each_takes: Duration,
        next: Pin<Box<Sleep>>,
    }

    impl HttpBody for Slow {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.parts == 0 {
                return Poll::Pending;
            }
            std::task::ready!(self.next.as_mut().poll(context));
            self.parts -= 1;
            let then = Instant::now() + self.each_takes;
            self.next.as_mut().reset(then);
            Poll::Ready(Some(Ok(Frame::data(vec![0; 1 << 20].into()))))
        }
    }

    /// How long a body is read that comes so, and how that ends.
    fn read_slow(parts: u32, each_takes: Duration) -> (Duration, String) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let body = Body::new(Slow { parts, each_takes, next: Box::pin(tokio::time::sleep(each_takes)) });
            let (began, memory) = (Instant::now(), Arc::new(Memory::new(1 << 30)));
            let unread = read(&HeaderMap::new(), body, 1 << 30, &memory).await.unwrap_err();
            assert_eq!(memory.held_bytes(), 0);
            let Unread::Refused(refusal) = unread else { panic!("{unread:?}") };
            assert_eq!(refusal.status, StatusCode::REQUEST_TIMEOUT);
            (began.elapsed(), format!("{refusal:?}"))
        })
    }

    #[test]
    fn a_body_has_half_a_minute_and_what_its_bytes_take_at_64_kib_a_second() {
        let (took, told) = read_slow(0, Duration::ZERO);
        assert_eq!(took.as_secs(), 30);
        assert!(told.contains("the body came too slowly: 0 bytes, expected 64 KiB a second"), "{told}");
        // 16 s a mebibyte are just that: it is the stop after the fifth that is too slow.
        let (took, told) = read_slow(5, Duration::from_secs(16));
        assert_eq!(took.as_secs(), 30 + 5 * 16);
        assert!(told.contains("too slowly: 5242880 bytes"), "{told}");
        // At 20 s a mebibyte it falls behind: what it had to spare at the start is used up after 3.
        let (took, told) = read_slow(1000, Duration::from_secs(20));
        assert_eq!(took.as_secs(), 30 + 3 * 16);
        assert!(told.contains("too slowly: 3145728 bytes"), "{told}");
    }

    fn read_now(body: &'static [u8], memory: &Arc<Memory>) -> Result<Bytes, Unread> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(read(&HeaderMap::new(), Body::from(body), 100, memory))
    }

    #[test]
    fn uploads_beyond_what_all_may_hold_are_refused_and_room_is_given_back() {
        let memory = Arc::new(Memory::new(10));
        assert_eq!(read_now(b"0123456789", &memory).unwrap(), "0123456789");
        let mut other = memory.share();
        assert!(other.resize(1));
        let refused = read_now(b"0123456789", &memory).unwrap_err();
        assert!(matches!(refused, Unread::NotKept(Error::Unavailable { .. })), "{refused:?}");
        drop(other);
        assert!(read_now(b"0123456789", &memory).is_ok());
        assert!(matches!(read_now(&[0; 101], &memory), Err(Unread::NotKept(Error::TooLarge { .. }))));
    }
}
