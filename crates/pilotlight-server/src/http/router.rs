//! Which path is answered by what.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use tokio::sync::watch;

use super::problem::Refusal;
use super::{api, carry, doctor, entries, metrics, pins, quarantine, rights, verify};
use crate::Server;

/// What every request shares.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) server: Arc<Server>,
    /// True once the server is to end.
    shutdown: watch::Receiver<bool>,
    /// Whether the one verification or collection that may run does.
    pub(super) is_busy: Arc<AtomicBool>,
}

impl Front {
    pub(super) fn new(server: Arc<Server>, shutdown: watch::Receiver<bool>) -> Self {
        Self { server, shutdown, is_busy: Arc::default() }
    }
}

pub(super) fn router(front: Arc<Front>) -> Router {
    let entry = get(entries::get).head(entries::head).put(entries::put).delete(entries::delete);
    let guarded = Router::new()
        .route("/", get(index))
        .route("/cache/{*key}", entry)
        .route("/metrics", get(metrics::show))
        .route("/api/stats", get(api::stats))
        .route("/api/user", get(api::user))
        .route("/api/entries", get(api::entries).delete(api::clear))
        .route("/api/pins/{*key}", put(pins::pin).delete(pins::unpin))
        .route("/api/verify", post(verify::run))
        .route("/api/doctor", get(doctor::examine))
        .route("/api/store", get(carry::about))
        .route("/api/export", get(carry::export))
        .route("/api/import", post(carry::import))
        .route("/api/gc", post(verify::collect))
        .route("/api/quarantine", get(quarantine::list).delete(quarantine::purge))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .route_layer(from_fn_with_state(Arc::clone(&front), rights::guard));
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .method_not_allowed_fallback(unknown_method)
        .merge(guarded)
        .layer(from_fn_with_state(Arc::clone(&front), count))
        .with_state(front)
}

async fn count(State(front): State<Arc<Front>>, request: Request, next: Next) -> Response {
    front.server.stats.http_requests_total.fetch_add(1, Relaxed);
    next.run(request).await
}

/// The process runs and its event loop turns. Nothing is asked of the cache: a full disk is no reason for a restart.
async fn alive() -> &'static str {
    "alive\n"
}

/// Whether to send requests here.
async fn ready(State(front): State<Arc<Front>>) -> Response {
    if *front.shutdown.borrow() {
        return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "shutting down").into_response();
    }
    "ready\n".into_response()
}

/// What `GET /` answers: methods, path, help.
pub(super) const INDEX: &str = concat!(
    "pilotlight ",
    env!("CARGO_PKG_VERSION"),
    ", a remote compile cache\n\n",
    "GET HEAD PUT DELETE  /cache/KEY            one entry (?namespace=NAME for another namespace)\n",
    "GET                  /api/stats            counters and sizes as JSON\n",
    "GET                  /api/user             who you are here, as JSON\n",
    "GET                  /api/entries          a page of entries as JSON (?namespace= &cursor= &limit=)\n",
    "DELETE               /api/entries          delete every entry of a namespace (?namespace=)\n",
    "PUT DELETE           /api/pins/KEY         keep an entry from eviction, or no longer\n",
    "POST                 /api/verify           check every entry; one JSON object a line\n",
    "GET                  /api/doctor           what is wrong, as JSON\n",
    "GET                  /api/store            which store this is, and its namespaces\n",
    "GET                  /api/export           a page of whole entries, for a portable file\n",
    "POST                 /api/import           takes such entries in\n",
    "POST                 /api/gc               remove what nobody needs; one JSON object a line (?dry_run=true)\n",
    "GET DELETE           /api/quarantine       what was set aside as JSON, or its removal (?before_ms=)\n",
    "GET                  /metrics              counters for Prometheus\n",
    "GET                  /healthz              is it alive\n",
    "GET                  /readyz               does it take requests\n",
);

async fn index() -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], INDEX).into_response()
}

async fn unknown_path() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "no such page").with_hint("`GET /` lists what there is")
}

async fn unknown_method() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "no such method here")
        .with_hint("`GET /` lists what there is")
}

#[cfg(test)]
mod tests {
    use pilotlight_cache::{Cache, MemoryBackend, SystemClock};

    use super::*;
    use crate::Config;

    #[test]
    fn the_index_is_a_table_whose_columns_line_up() {
        let rows: Vec<&str> = INDEX.lines().skip(2).collect();
        assert!(rows.len() > 10);
        for row in rows {
            let (methods, rest) = row.split_at(21);
            let (path, help) = rest.split_at(22);
            assert!(methods.trim_end().split(' ').all(|method| method.len() > 2), "{row}");
            assert!(path.starts_with('/') && path.ends_with("  ") && !help.starts_with(' '), "{row}");
        }
    }

    #[test]
    fn readyz_says_503_while_draining() {
        let cache = Arc::new(Cache::new(Arc::new(MemoryBackend::new(1))));
        let server = Arc::new(Server::new(cache, Config::default(), Arc::new(SystemClock)));
        let (sender, receiver) = watch::channel(false);
        let front = Arc::new(Front::new(server, receiver));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let status = || runtime.block_on(ready(State(Arc::clone(&front)))).status();
        assert_eq!(status(), StatusCode::OK);
        sender.send(true).unwrap();
        assert_eq!(status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
