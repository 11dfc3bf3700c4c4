//! Whether a request may be answered. Asked in one place for all routes, before any of them runs.
//!
//! What a route may touch it is handed from here, as [`ForKey`] or [`ForNamespace`]: one that asks for what its request was not
//! judged by is answered with an error.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use pilotlight_cache::{Key, Namespace, ReadThrough};

use super::auth::{self, Peer};
use super::problem::Refusal;
use super::router::Front;
use super::{key, pins};
use crate::access::{Deed, Event, Login, Pace, Place, Right};

/// A key, and what may be done with it.
#[derive(Debug, Clone)]
pub(super) struct ForKey {
    pub(super) key: Key,
    /// Whether what is there may be replaced. In a namespace of low trust, who put first has won.
    pub(super) may_replace: bool,
    /// Where a lookup goes on that misses.
    pub(super) through: Option<Arc<ReadThrough>>,
}

/// A namespace, and what may be done there.
#[derive(Debug, Clone)]
pub(super) struct ForNamespace {
    pub(super) namespace: Namespace,
    pub(super) place: Place,
}

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// That somebody asks who may ask anything.
    Nothing,
    /// A right to read something somewhere: sums over all of it.
    Sums,
    /// These rights to the key in the path.
    Key(Right),
    /// This right to some kind in the namespace: others are left out.
    List,
    /// To delete all that is in the namespace.
    Clear,
    /// To read all that is in the namespace, as its administrator.
    Export,
    /// To be an administrator of the whole server.
    Admin,
}

/// What a route needs, of all there are; a path that is not here needs everything.
fn needs(method: &Method, path: &str) -> Option<Needs> {
    let reads = method == Method::GET || method == Method::HEAD;
    Some(match path {
        "/" | "/api/user" => Needs::Nothing,
        "/metrics" | "/api/stats" => Needs::Sums,
        "/api/entries" if reads => Needs::List,
        "/api/entries" => Needs::Clear,
        "/api/export" => Needs::Export,
        "/api/verify" | "/api/doctor" | "/api/store" | "/api/import" | "/api/gc" | "/api/quarantine" => {
            Needs::Admin
        }
        path if path.starts_with(pins::PREFIX) => Needs::Key(Right::Admin),
        path if path.starts_with(key::PREFIX) && reads => Needs::Key(Right::Read),
        path if path.starts_with(key::PREFIX) => Needs::Key(Right::Write),
        _ => return None,
    })
}

/// Finds out who asks, and lets the request through if that is allowed.
pub(super) async fn guard(State(front): State<Arc<Front>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let peer = peer.unwrap_or(Peer { address: None, identity: None });
    if let Err(refusal) = keep_web_pages_out(&request) {
        front.server.stats.denied_total.fetch_add(1, Relaxed);
        return refusal.into_response();
    }
    let login = match auth::log_in(&front.server, request.headers(), &peer).await {
        Ok(login) => login,
        Err(refusal) => return refusal.into_response(),
    };
    if let Err(refusal) = keep_pace(&front, &login).await {
        return refusal.into_response();
    }
    let needs = needs(request.method(), request.uri().path()).unwrap_or(Needs::Admin);
    let note = Note::of(&front, &login, &request, needs);
    let judged = judge(&front, &login, needs, &mut request);
    let response = match judged {
        Ok(()) => {
            request.extensions_mut().insert(login.clone());
            next.run(request).await
        }
        Err(refusal) => {
            if refusal.status == StatusCode::FORBIDDEN {
                front.server.stats.denied_total.fetch_add(1, Relaxed);
            }
            refusal.into_response()
        }
    };
    if let Some(note) = note.filter(|note| note.is_kept || response.status() == StatusCode::FORBIDDEN) {
        note.write(&front, &login, &peer, response.status());
    }
    response
}

/// Refuses what a page has its reader's browser send, be it the page of a stranger or, by its name, of this server's own address:
/// the browser may run where this server asks for no login. Browsers name the page's origin in all requests but plain reads; programs
/// name none. What a page may read of foreign servers is up to the browser.
fn keep_web_pages_out(request: &Request) -> Result<(), Refusal> {
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    if reads || !request.headers().contains_key(header::ORIGIN) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::FORBIDDEN, "a web page may change nothing here")
        .with_hint("a program need not send `Origin`"))
}

async fn keep_pace(front: &Front, login: &Login) -> Result<(), Refusal> {
    let pace = login.user.pace().map_or(Pace::Now, |rate| rate.ask(Instant::now()));
    if pace != Pace::Now {
        front.server.stats.throttled_total.fetch_add(1, Relaxed);
    }
    match pace {
        Pace::Now => Ok(()),
        Pace::After(wait) => {
            tokio::time::sleep(wait).await;
            Ok(())
        }
        Pace::TooFast => {
            Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "more requests than this user may make")
                .with_hint("wait a second, or raise its `rate` in the users file"))
        }
    }
}

/// Whether the request may be answered. If so it carries what its route may touch.
fn judge(front: &Front, login: &Login, needs: Needs, request: &mut Request) -> Result<(), Refusal> {
    let (user, users) = (&login.user, front.server.access.users());
    let denied = |what: &str| {
        Refusal::new(StatusCode::FORBIDDEN, format!("user `{}` may not {what}", user.name()))
            .with_hint("an administrator grants rights in the users file; see docs/users.md")
    };
    let namespace = |uri: &Uri| key::namespace(uri).map(|named| named.unwrap_or_else(|| user.namespace(0)));
    match needs {
        Needs::Nothing => Ok(()),
        Needs::Sums if user.grants().anywhere(Right::Read) => Ok(()),
        Needs::Sums => Err(denied("read anything")),
        Needs::Admin if user.grants().everywhere(Right::Admin) => Ok(()),
        Needs::Admin => Err(denied("do what administrators of the whole server do")),
        Needs::Key(right) => {
            let prefix = if right == Right::Admin { pins::PREFIX } else { key::PREFIX };
            let namespace = namespace(request.uri())?;
            let place = users.place(user, &namespace);
            let key = key::behind(prefix, request.uri(), namespace)?;
            let may_replace = place.may_replace(key.kind());
            if !place.may(right, key.kind()) {
                return Err(denied(what(right)));
            }
            // A put that replaces nothing is told so by the store itself; for anything else this is the last to ask.
            if request.method() == Method::DELETE && right == Right::Write && !may_replace {
                return Err(denied("delete where who puts first wins"));
            }
            let through = users.through(user, key.namespace()).map(Arc::new);
            request.extensions_mut().insert(ForKey { key, may_replace, through });
            Ok(())
        }
        Needs::List | Needs::Clear | Needs::Export => {
            let namespace = namespace(request.uri())?;
            let place = users.place(user, &namespace);
            let (holds, what) = match needs {
                Needs::List => (place.may_some(Right::Read), "read here"),
                Needs::Clear => (place.may_clear() && place.may_all(Right::Admin), "delete everything here"),
                _ => (place.may_all(Right::Read) && place.may_all(Right::Admin), "export from here"),
            };
            if !holds {
                return Err(denied(what));
            }
            request.extensions_mut().insert(ForNamespace { namespace, place });
            Ok(())
        }
    }
}

fn what(right: Right) -> &'static str {
    match right {
        Right::Read => "read this entry",
        Right::Write => "write this entry",
        Right::Admin => "pin entries here",
    }
}

/// What is to be noted of a request once it is known how it ended.
struct Note {
    action: String,
    namespace: Namespace,
    key: Option<String>,
    /// Whether it is noted in any case: a request that changes something, or an administrator's.
    is_kept: bool,
}

impl Note {
    fn of(front: &Front, login: &Login, request: &Request, needs: Needs) -> Option<Self> {
        if !front.server.access.audit.is_on() {
            return None;
        }
        let (method, uri) = (request.method(), request.uri());
        let named = key::namespace(uri).ok().flatten();
        let namespace = named.unwrap_or_else(|| login.user.namespace(0));
        let (path, key) = match needs {
            Needs::Key(right) => {
                let prefix = if right == Right::Admin { pins::PREFIX } else { key::PREFIX };
                let key = key::behind(prefix, uri, namespace.clone()).ok();
                // Never the key itself, which may be anything.
                (prefix.trim_end_matches('/'), key.map(|key| format!("{:016x}", key.log_hash())))
            }
            _ => (uri.path(), None),
        };
        let is_kept = !(method == Method::GET || method == Method::HEAD)
            || matches!(needs, Needs::Admin | Needs::Export);
        Some(Self { action: format!("{method} {path}"), namespace, key, is_kept })
    }

    fn write(self, front: &Front, login: &Login, peer: &Peer, status: StatusCode) {
        let outcome = match status {
            StatusCode::FORBIDDEN => Deed::Denied,
            StatusCode::NOT_FOUND | StatusCode::PRECONDITION_FAILED => Deed::Unmet,
            status if status.is_success() => Deed::Ok,
            _ => Deed::Failed,
        };
        let Self { action, namespace, key, .. } = self;
        front.server.access.audit.note(Event {
            time_ms: front.server.clock.now_ms(),
            user: Arc::clone(login.user.name()),
            peer: auth::text(peer).into(),
            action: action.into(),
            namespace: Some(namespace),
            key,
            outcome,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_that_is_listed_says_what_it_needs() {
        let mut judged = 0;
        for line in super::super::router::INDEX.lines().skip(2) {
            let (methods, rest) = line.split_at(21);
            let path = rest.split_whitespace().next().unwrap();
            for method in methods.split_whitespace() {
                let method: Method = method.parse().unwrap();
                let is_open = ["/healthz", "/readyz"].contains(&path);
                assert_eq!(needs(&method, path).is_none(), is_open, "{method} {path}");
                judged += 1;
            }
        }
        assert!(judged > 15, "{judged}");
        assert_eq!(needs(&Method::GET, "/api/else"), None);
    }

    #[test]
    fn what_changes_something_needs_more_than_to_read() {
        for path in ["/cache/k", "/api/entries", "/api/pins/k", "/api/quarantine", "/api/gc", "/api/import"] {
            for method in [Method::PUT, Method::DELETE, Method::POST] {
                let needs = needs(&method, path).unwrap();
                assert!(!matches!(
                    needs,
                    Needs::Nothing | Needs::Sums | Needs::List | Needs::Key(Right::Read)
                ));
            }
        }
    }
}
