//! What takes its time and tells how far it is: one JSON object a line, one job at a time.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use pilotlight_cache::{Maintenance, Result as CacheResult};
use serde::Serialize;
use tokio::sync::mpsc;

use super::maintain::maintenance;
use super::problem::Refusal;
use super::router::Front;
use crate::report::{JobLine, Problem};

/// How often progress is told, at most.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// Lines waiting for a slow client; then the job waits.
const LINES_AHEAD: usize = 16;

/// Tells a client how far a job is.
pub(super) struct Teller<'a> {
    lines: &'a mpsc::Sender<Bytes>,
    told: Option<Instant>,
}

impl Teller<'_> {
    /// Tells it, if that is due; `Break` when nobody listens any more.
    pub(super) fn tell<T: Serialize>(&mut self, progress: impl FnOnce() -> T) -> ControlFlow<()> {
        if self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return if self.lines.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        }
        self.told = Some(Instant::now());
        send(self.lines, &JobLine::Progress(progress()))
    }
}

/// Runs `job` until its end, or until nobody reads what it tells.
pub(super) fn run<T: Serialize + 'static>(
    front: &Front,
    job: impl FnOnce(&dyn Maintenance, &mut Teller<'_>) -> CacheResult<T> + Send + 'static,
) -> Result<Response, Refusal> {
    let maintenance = maintenance(front)?;
    let Some(turn) = Turn::take(&front.is_busy) else {
        return Err(Refusal::new(StatusCode::CONFLICT, "another verification or collection is running"));
    };
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    // It reads much from the disk: off the event loop.
    tokio::task::spawn_blocking(move || {
        let mut teller = Teller { lines: &sender, told: None };
        let last = match job(&*maintenance, &mut teller) {
            Ok(report) => JobLine::Report(report),
            Err(error) => JobLine::Error(Problem::from(&error)),
        };
        // First: whoever has read the report may begin the next job at once.
        drop(turn);
        let _ = send(&sender, &last);
    });
    let body = Body::new(Lines(receiver));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn send<T: Serialize>(lines: &mpsc::Sender<Bytes>, line: &JobLine<T>) -> ControlFlow<()> {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    match lines.blocking_send(text.into()) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

/// The right to run a job: one at a time, since each reads the whole disk.
struct Turn(Arc<AtomicBool>);

impl Turn {
    fn take(is_taken: &Arc<AtomicBool>) -> Option<Self> {
        (!is_taken.swap(true, Ordering::AcqRel)).then(|| Self(Arc::clone(is_taken)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A body of parts that end when their sender is gone.
pub(super) struct Lines(pub(super) mpsc::Receiver<Bytes>);

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
