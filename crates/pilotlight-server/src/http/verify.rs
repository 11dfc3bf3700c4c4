//! `POST /api/verify`: checks every entry, telling how far it is, one JSON object a line.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use pilotlight_cache::{Maintenance, VerifyReport};
use tokio::sync::mpsc;

use super::problem::Refusal;
use super::router::Front;
use crate::report::{CheckedReport, Problem, VerifyLine};

/// How often progress is told, at most.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// Lines waiting for a slow client; then the verification waits.
const LINES_AHEAD: usize = 16;

pub(super) async fn run(State(front): State<Arc<Front>>) -> Result<Response, Refusal> {
    let Some(maintenance) = front.server.maintenance.clone() else {
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "this server keeps nothing on a disk"));
    };
    let Some(turn) = Turn::take(&front.is_verifying) else {
        return Err(Refusal::new(StatusCode::CONFLICT, "a verification is already running"));
    };
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    // It reads every entry from the disk: off the event loop.
    tokio::task::spawn_blocking(move || {
        verify(&*maintenance, &sender);
        drop(turn);
    });
    let body = Body::new(Lines(receiver));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Runs until the end or until nobody reads `lines` any more.
fn verify(maintenance: &dyn Maintenance, lines: &mpsc::Sender<Bytes>) {
    let mut told: Option<Instant> = None;
    let mut progress = |report: &VerifyReport| {
        if told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return if lines.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        }
        told = Some(Instant::now());
        send(lines, &VerifyLine::Progress(CheckedReport::progress(report)))
    };
    let last = match maintenance.verify(&mut progress) {
        Ok(report) => VerifyLine::Report(CheckedReport::of(&report)),
        Err(error) => VerifyLine::Error(Problem::from(&error)),
    };
    let _ = send(lines, &last);
}

fn send(lines: &mpsc::Sender<Bytes>, line: &VerifyLine) -> ControlFlow<()> {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    match lines.blocking_send(text.into()) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

/// The right to verify: one at a time, since each reads the whole disk.
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

/// A body of lines that end when their sender is gone.
struct Lines(mpsc::Receiver<Bytes>);

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
