//! What operators ask, as JSON. The shapes are in [`crate::report`].

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use pilotlight_cache::Cursor;
use serde::Serialize;

use super::problem::{Refusal, json};
use super::rights::ForNamespace;
use super::{key, router::Front};
use crate::access::{Login, Right};
use crate::report::{ConnectionsReport, EntriesReport, EntryReport, OriginReport, StatsReport, UserReport};

/// Entries in a page unless told otherwise, and at most.
const LIMIT_DEFAULT: u64 = 100;
const LIMIT_MAX: u64 = 10_000;

pub(super) async fn stats(State(front): State<Arc<Front>>) -> Result<Response, Refusal> {
    let server = &front.server;
    let report = front.within("stats", StatsReport::of(&server.cache)).await??;
    let connections = ConnectionsReport {
        open: server.stats.connections_open.load(Relaxed),
        total: server.stats.connections_total.load(Relaxed),
        commands: server.stats.commands_total.load(Relaxed),
        http_requests: server.stats.http_requests_total.load(Relaxed),
        protocol_errors: server.stats.protocol_errors_total.load(Relaxed),
        timeouts: server.stats.timeouts_total.load(Relaxed),
        logins_failed: server.stats.logins_failed_total.load(Relaxed),
        logins_delayed: server.stats.logins_delayed_total.load(Relaxed),
        denied: server.stats.denied_total.load(Relaxed),
        throttled: server.stats.throttled_total.load(Relaxed),
        audit_dropped: server.access.audit.dropped(),
    };
    let uptime_seconds = server.started.elapsed().as_secs();
    let origin = server.tiers.as_deref().map(OriginReport::of);
    Ok(json(StatusCode::OK, &StatsReport { uptime_seconds, origin, connections, ..report }))
}

/// Who asks.
pub(super) async fn user(Extension(login): Extension<Login>) -> Response {
    let user = &login.user;
    let report = UserReport {
        name: user.name().to_string(),
        home: user.namespace(0).as_str().to_owned(),
        grants: user.grants().iter().map(ToString::to_string).collect(),
    };
    json(StatusCode::OK, &report)
}

/// Entries of the kinds that the user may read.
pub(super) async fn entries(
    State(front): State<Arc<Front>>,
    Extension(ForNamespace { namespace, place }): Extension<ForNamespace>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let cursor = Cursor(key::number(&uri, "cursor", 0)?);
    let limit = key::number(&uri, "limit", LIMIT_DEFAULT)?.clamp(1, LIMIT_MAX);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let page = front.within("scan", front.server.cache.scan(&namespace, cursor, limit)).await??;
    let report = EntriesReport {
        entries: page
            .keys
            .iter()
            .filter(|(key, _)| place.may(Right::Read, key.kind()))
            .map(|(key, head)| EntryReport::of(key, head))
            .collect(),
        next_cursor: page.next.0,
    };
    Ok(json(StatusCode::OK, &report))
}

/// Deletes every entry of a namespace. Under no timeout: half a clear would be neither the old state nor the new.
pub(super) async fn clear(
    State(front): State<Arc<Front>>,
    Extension(ForNamespace { namespace, .. }): Extension<ForNamespace>,
) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    struct Cleared {
        deleted: u64,
    }
    let deleted = front.server.cache.clear(&namespace).await?;
    Ok(json(StatusCode::OK, &Cleared { deleted }))
}
