//! `GET /api/export` and `POST /api/import`: entries as they stand in a portable file, a page or a batch at a time.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use pilotlight_cache::portable::{Frame, FrameType, Mark, Portable, Reader};
use pilotlight_cache::{Conflict, Cursor, Error, Maintenance, Namespace, Result as CacheResult};
use tokio::sync::mpsc;

use super::body::{self, Unread};
use super::jobs::Lines;
use super::key;
use super::maintain::{maintain, maintenance};
use super::problem::{Refusal, json};
use super::rights::ForNamespace;
use super::router::Front;
use crate::memory::Memory;
use crate::report::{ImportedReport, StoreReport};
use crate::selection::Selection;

/// Entries in a page unless told otherwise, and at most.
const LIMIT_DEFAULT: u64 = 256;
const LIMIT_MAX: u64 = 10_000;
/// Entries waiting for a slow client; then the export waits. Beside them it holds the one that it waits with, and the socket one.
const ENTRIES_AHEAD: usize = 2;
/// Of an entry's frame: what says which it is, and its envelope.
const PARTS: usize = 2;
/// What a batch may take beside its largest entry, in bytes.
const BATCH_BYTES: u64 = 8 << 20;

pub(super) async fn about(State(front): State<Arc<Front>>) -> Result<Response, Refusal> {
    let about = maintain(&front, |disk| disk.about()).await?;
    Ok(json(StatusCode::OK, &StoreReport::of(&about)))
}

/// A page of entries, and a mark that says where the next one begins. Without the mark it broke off.
pub(super) async fn export(
    State(front): State<Arc<Front>>,
    Extension(ForNamespace { namespace, .. }): Extension<ForNamespace>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let cursor = Cursor(key::number(&uri, "cursor", 0)?);
    let limit = key::number(&uri, "limit", LIMIT_DEFAULT)?.clamp(1, LIMIT_MAX);
    let selection = selection(&uri)?;
    let maintenance = maintenance(&front)?;
    let memory = Arc::clone(&front.server.memory);
    // One that runs goes on: a backup that ended whenever the server is busy would never be through.
    if memory.is_full() {
        return Err(memory.refusal().into());
    }
    let (sender, receiver) = mpsc::channel(ENTRIES_AHEAD * PARTS);
    tokio::task::spawn_blocking(move || {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let sink = Sink { parts: sender, memory };
        if let Err(error) = send_page(&*maintenance, &namespace, cursor, limit, &selection, &sink) {
            tracing::warn!(%error, "an export broke off");
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::new(Lines(receiver))).into_response())
}

/// Where frames go.
struct Sink {
    parts: mpsc::Sender<Bytes>,
    memory: Arc<Memory>,
}

impl Sink {
    /// Waits until the client has taken enough of what was sent before; `Break` when it is gone. Counted until it was taken.
    fn send(&self, frame: Frame) -> ControlFlow<()> {
        for part in frame.into_parts() {
            let part = self.memory.share().holding(part);
            if !part.is_empty() && self.parts.blocking_send(part).is_err() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

fn send_page(
    disk: &dyn Maintenance,
    namespace: &Namespace,
    cursor: Cursor,
    limit: usize,
    selection: &Selection,
    sink: &Sink,
) -> CacheResult<()> {
    let mut heard = ControlFlow::Continue(());
    let exported = disk.export_page(
        namespace,
        cursor,
        limit,
        &|key, head| selection.holds(key, head),
        &mut |portable| {
            heard = sink.send(portable.to_frame());
            heard
        },
    )?;
    if heard.is_continue() {
        let mark = Mark { namespace: namespace.clone(), next: exported.next, damaged: exported.damaged };
        let _ = sink.send(mark.to_frame());
    }
    Ok(())
}

fn selection(uri: &Uri) -> Result<Selection, Refusal> {
    let kinds = key::parameter(uri, "kind")?.unwrap_or_default();
    Ok(Selection {
        kinds: kinds.split(',').filter(|kind| !kind.is_empty()).map(str::to_owned).collect(),
        pattern: key::parameter(uri, "pattern")?,
        since_ms: match key::parameter(uri, "since_ms")? {
            None => None,
            Some(_) => Some(key::number(uri, "since_ms", 0)?),
        },
    })
}

pub(super) async fn import(State(front): State<Arc<Front>>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let conflict = if key::flag(&parts.uri, "replace")? { Conflict::Replace } else { Conflict::NewerStays };
    let is_synced = key::flag(&parts.uri, "sync")?;
    let entry_bytes_max = front.server.config.entry_bytes_max;
    let bytes_max = entry_bytes_max.saturating_add(BATCH_BYTES);
    let batch = match body::read(&parts.headers, body, bytes_max, &front.server.memory).await {
        Ok(batch) => batch,
        Err(Unread::NotKept(error)) => return Err(error.into()),
        Err(Unread::Refused(refusal)) => return Err(refusal),
    };
    let report = maintain(&front, move |disk| {
        let report = take_in(disk, &batch, conflict, entry_bytes_max)?;
        if is_synced {
            disk.sync()?;
        }
        Ok(report)
    });
    Ok(json(StatusCode::OK, &report.await?))
}

fn take_in(
    disk: &dyn Maintenance,
    batch: &[u8],
    conflict: Conflict,
    bytes_max: u64,
) -> CacheResult<ImportedReport> {
    let mut report = ImportedReport::default();
    let mut frames = Reader::of_frames(batch);
    loop {
        let frame = match frames.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(report),
            Err(trouble) => return Err(Error::Invalid { what: trouble.to_string() }),
        };
        if frame.frame_type() == FrameType::Entry {
            let portable = Portable::of_frame(&frame)?;
            report.take_in(disk, &portable, conflict, bytes_max)?;
        }
    }
}
