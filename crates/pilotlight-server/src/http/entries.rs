//! Entries: `GET`, `HEAD`, `PUT` and `DELETE` of `/cache/KEY`.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pilotlight_cache::{Entry, Error, Found, Head, Key, PutOutcome, ReadThrough, Verified, When};

use super::body::{self, Unread};
use super::conditions::{Conditions, Tag, Verdict};
use super::problem::Refusal;
use super::range::{Asked, asked};
use super::rights::ForKey;
use super::router::Front;
use crate::memory::UNCOUNTED_BYTES;

/// On a put: seconds until the entry expires. Wins over `Cache-Control: max-age`.
const TTL_SECONDS: &str = "x-pilotlight-ttl-seconds";
/// On a put and on answers: what the artifact's compile took; eviction keeps the dear ones.
const COMPILE_MS: &str = "x-pilotlight-compile-ms";

type Answer = Result<Response, Refusal>;

pub(super) async fn get(
    State(front): State<Arc<Front>>,
    Extension(ForKey { key, through, .. }): Extension<ForKey>,
    request: Request,
) -> Answer {
    let through = through.as_deref();
    let conditions = Conditions::of(request.headers())?;
    if !conditions.is_empty() {
        // Decided from the head alone: a 304 reads no artifact and counts as no lookup.
        let head = front.head_through(&key, through).await?;
        if let Some(answer) = unmet_read(&conditions, head.as_ref()) {
            return answer;
        }
    }
    let Some(found) = front.get(&key, through).await? else { return Err(absent()) };
    let Found { entry, version, .. } = found;
    let (artifact, metadata) = (entry.artifact.into_bytes(), entry.metadata);
    let facts = Facts {
        tag: Tag { version: version.0, created_ms: metadata.created_ms },
        expires_ms: metadata.expires_ms,
        compile_ms: metadata.compile_ms,
        now_ms: front.server.clock.now_ms(),
    };
    // One that a client takes its time to read is counted until the last of it was sent.
    let artifact = front.server.memory.share().holding(artifact);
    Ok(part_or_whole(request.headers(), artifact, &facts))
}

pub(super) async fn head(
    State(front): State<Arc<Front>>,
    Extension(ForKey { key, through, .. }): Extension<ForKey>,
    request: Request,
) -> Answer {
    let conditions = Conditions::of(request.headers())?;
    let head = front.head_through(&key, through.as_deref()).await?;
    if let Some(answer) = unmet_read(&conditions, head.as_ref()) {
        return answer;
    }
    let Some(head) = head else { return Err(absent()) };
    let mut response = StatusCode::OK.into_response();
    Facts::of(&head, front.server.clock.now_ms()).describe(response.headers_mut());
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(head.artifact_len));
    Ok(response)
}

pub(super) async fn put(
    State(front): State<Arc<Front>>,
    Extension(ForKey { key, may_replace, .. }): Extension<ForKey>,
    request: Request,
) -> Answer {
    let (parts, body) = request.into_parts();
    let conditions = Conditions::of(&parts.headers)?;
    let expires_ms = expiry(&parts.headers, front.server.clock.now_ms())?;
    let compile_ms = number(&parts.headers, COMPILE_MS)?.unwrap_or(0);
    // Before the body: an upload that cannot be kept is refused before it is sent (`Expect: 100-continue`).
    let current = front.head(&key).await?;
    let mut when = precondition(&conditions, current.as_ref())?;
    if !may_replace {
        if current.is_some() {
            return Err(front.keeps_first(&key));
        }
        when = When::Absent;
    }
    let bytes_max = front.server.config.entry_bytes_max;
    let artifact = match body::read(&parts.headers, body, bytes_max, &front.server.memory).await {
        Ok(artifact) => artifact,
        // Counted like any other put that was not kept, then told.
        Err(Unread::NotKept(error)) => {
            let refusal = Refusal::from(&error);
            let _ = front.server.cache.refuse_put(&key, error);
            return Err(refusal);
        }
        Err(Unread::Refused(refusal)) => return Err(refusal),
    };
    let mut entry = Entry::new(artifact).expiring_at(expires_ms);
    entry.metadata.created_ms = front.server.clock.now_ms();
    entry.metadata.compile_ms = u32::try_from(compile_ms).unwrap_or(u32::MAX);
    let created_ms = entry.metadata.created_ms;
    match front.put(&key, entry, when).await {
        Ok(PutOutcome::Stored(version)) => {
            let status = if current.is_some() { StatusCode::NO_CONTENT } else { StatusCode::CREATED };
            let tag = Tag { version: version.0, created_ms };
            Ok((status, [(header::ETAG, tag.to_string())]).into_response())
        }
        Ok(PutOutcome::Unmet) if !may_replace => Err(front.keeps_first(&key)),
        Ok(PutOutcome::Unmet) => Err(precondition_failed("another write came between")),
        outcome => Err(refused(outcome)),
    }
}

pub(super) async fn delete(
    State(front): State<Arc<Front>>,
    Extension(ForKey { key, .. }): Extension<ForKey>,
    request: Request,
) -> Answer {
    let conditions = Conditions::of(request.headers())?;
    let mut when = When::Always;
    if !conditions.is_empty() {
        let current = front.head(&key).await?;
        when = precondition(&conditions, current.as_ref())?;
    }
    let is_deleted = front.within("delete", front.server.cache.delete(&key, when)).await??;
    match (is_deleted, when) {
        (true, _) => Ok(StatusCode::NO_CONTENT.into_response()),
        (false, When::Version(_)) => Err(precondition_failed("another write came between")),
        (false, _) => Err(absent()),
    }
}

/// The answer to a read whose conditions do not hold.
fn unmet_read(conditions: &Conditions, head: Option<&Head>) -> Option<Answer> {
    let tag = head.map(Tag::from);
    match conditions.test(tag.as_ref()) {
        Verdict::Holds => None,
        Verdict::Same => {
            let tag = tag.map(|tag| tag.to_string()).unwrap_or_default();
            Some(Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response()))
        }
        // Of an absent entry a reader wants to hear that it is absent.
        Verdict::Differs if tag.is_none() => Some(Err(absent())),
        Verdict::Differs => Some(Err(precondition_failed("the entry is another one"))),
    }
}

/// The precondition of a write, if its conditions hold for what is there now.
fn precondition(conditions: &Conditions, current: Option<&Head>) -> Result<When, Refusal> {
    match conditions.test(current.map(Tag::from).as_ref()) {
        Verdict::Holds => Ok(conditions.when(current)),
        Verdict::Same => Err(precondition_failed("the entry is already there")),
        Verdict::Differs => Err(precondition_failed("the entry is absent or another one")),
    }
}

fn part_or_whole(headers: &HeaderMap, artifact: Bytes, facts: &Facts) -> Response {
    let len = artifact.len();
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    // `If-Range` names the entry that an earlier part came from. If it is gone, parts would not fit together.
    let is_current =
        headers.get(header::IF_RANGE).is_none_or(|tag| tag.as_bytes() == facts.tag.to_string().as_bytes());
    let asked = asked(range.filter(|_| is_current), len);
    let (status, body, content_range) = match asked {
        Asked::Whole => (StatusCode::OK, artifact, None),
        Asked::Part(part) => {
            let content_range = format!("bytes {}-{}/{len}", part.start, part.end - 1);
            (StatusCode::PARTIAL_CONTENT, artifact.slice(part), Some(content_range))
        }
        Asked::Nothing => (StatusCode::RANGE_NOT_SATISFIABLE, Bytes::new(), Some(format!("bytes */{len}"))),
    };
    // One shared `Bytes`: hyper writes it from where it lies, and HTTP/2 cuts frames out of it without a copy.
    let mut response = (status, Body::from(body)).into_response();
    facts.describe(response.headers_mut());
    if let Some(value) = content_range.and_then(|text| HeaderValue::try_from(text).ok()) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}

/// What headers tell of an entry.
struct Facts {
    tag: Tag,
    expires_ms: Option<u64>,
    compile_ms: u32,
    now_ms: u64,
}

impl Facts {
    fn of(head: &Head, now_ms: u64) -> Self {
        Self { tag: head.into(), expires_ms: head.expires_ms, compile_ms: head.compile_ms, now_ms }
    }

    fn describe(&self, headers: &mut HeaderMap) {
        let mut set = |name, text: String| {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        };
        set(header::CONTENT_TYPE, "application/octet-stream".to_owned());
        set(header::ACCEPT_RANGES, "bytes".to_owned());
        set(header::ETAG, self.tag.to_string());
        set(header::LAST_MODIFIED, date(self.tag.created_ms));
        set(header::AGE, (self.now_ms.saturating_sub(self.tag.created_ms) / 1000).to_string());
        if let Some(expires_ms) = self.expires_ms {
            set(header::EXPIRES, date(expires_ms));
        }
        if self.compile_ms > 0 {
            set(header::HeaderName::from_static(COMPILE_MS), self.compile_ms.to_string());
        }
    }
}

/// The last moment that an HTTP date can express; the formatter panics beyond it.
const DATE_MAX_MS: u64 = 253_402_300_799_000;

fn date(ms: u64) -> String {
    let time: SystemTime = UNIX_EPOCH + Duration::from_millis(ms.min(DATE_MAX_MS));
    httpdate::fmt_http_date(time)
}

/// When the entry is to expire: `X-Pilotlight-TTL-Seconds`, or else `Cache-Control: max-age`. A `max-age` of 0 sets
/// nothing: clients send it to ask caches on the way for fresh answers.
fn expiry(headers: &HeaderMap, now_ms: u64) -> Result<Option<u64>, Refusal> {
    if let Some(seconds) = number(headers, TTL_SECONDS)? {
        if seconds == 0 {
            return Err(Refusal::bad_request(format!("`{TTL_SECONDS}` is 0, expected at least 1")));
        }
        return Ok(Some(now_ms.saturating_add(seconds.saturating_mul(1000))));
    }
    let directives = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let seconds = directives
        .flat_map(|value| value.split(','))
        .filter_map(|directive| directive.trim().strip_prefix("max-age=")?.parse::<u64>().ok())
        .find(|seconds| *seconds > 0);
    Ok(seconds.map(|seconds| now_ms.saturating_add(seconds.saturating_mul(1000))))
}

fn number(headers: &HeaderMap, name: &str) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    match value.to_str().ok().and_then(|text| text.trim().parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(Refusal::bad_request(format!("`{name}` is {value:?}, expected a whole number"))),
    }
}

pub(super) fn absent() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "no entry under this key")
}

fn precondition_failed(error: &str) -> Refusal {
    Refusal::new(StatusCode::PRECONDITION_FAILED, error)
}

/// What to tell of a put that was not kept, whatever the failure policy made of it.
fn refused(outcome: Result<PutOutcome, Error>) -> Refusal {
    match outcome {
        Ok(PutOutcome::Refused(refused)) => Refusal::of_refused_put(refused),
        Ok(PutOutcome::Stored(_) | PutOutcome::Unmet) => {
            Error::Internal { what: "a put that was kept was refused".to_owned() }.into()
        }
        Err(error) => error.into(),
    }
}

/// The cache's operations under the request timeout.
impl Front {
    /// `operation`, or a timeout once the request's time is up.
    pub(super) async fn within<T>(
        &self,
        what: &'static str,
        operation: impl Future<Output = T>,
    ) -> Result<T, Error> {
        let after = self.server.config.request_timeout;
        tokio::time::timeout(after, operation).await.map_err(|_| {
            self.server.stats.timeouts_total.fetch_add(1, Relaxed);
            Error::Timeout { what, after }
        })
    }

    async fn get(&self, key: &Key, through: Option<&ReadThrough>) -> Result<Option<Found<Verified>>, Error> {
        // What any client may always have is let through.
        if self.server.memory.is_full()
            && self.head_through(key, through).await?.is_some_and(|head| head.artifact_len > UNCOUNTED_BYTES)
        {
            return self.server.cache.refuse_get(key, self.server.memory.refusal());
        }
        let found = self.server.cache.get_many_through(std::slice::from_ref(key), through);
        match self.within("get", found).await {
            Ok(mut answers) => answers.pop().unwrap_or(Ok(None)),
            Err(timeout) => self.server.cache.refuse_get(key, timeout),
        }
    }

    async fn head_through(&self, key: &Key, through: Option<&ReadThrough>) -> Result<Option<Head>, Error> {
        self.within("head", self.server.cache.head_through(key, through)).await?
    }

    /// Counts a put that would replace what its user may not, and says so.
    fn keeps_first(&self, key: &Key) -> Refusal {
        let what = format!("in namespace `{}` who puts first wins", key.namespace().as_str());
        let denied = Error::Denied { what };
        let refusal = Refusal::from(&denied);
        let _ = self.server.cache.refuse_put(key, denied);
        refusal
    }

    async fn head(&self, key: &Key) -> Result<Option<Head>, Error> {
        self.within("head", self.server.cache.head(key)).await?
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<PutOutcome, Error> {
        match self.within("put", self.server.cache.put(key, entry, when)).await {
            Ok(outcome) => outcome,
            Err(timeout) => self.server.cache.refuse_put(key, timeout),
        }
    }
}
