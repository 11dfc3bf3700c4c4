//! A running server, over its HTTP interface.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use pilotlight_cache::portable::{Frame, FrameType, Mark, Portable, Reader};
use pilotlight_cache::{Collect, Conflict, Cursor, Key, Namespace};
use pilotlight_server::Selection;
use pilotlight_server::report::{
    CheckedReport, CollectedReport, EntriesReport, FindingReport, ImportedReport, JobLine, Problem,
    PurgedReport, SetAsideReport, StatsReport, StoreReport, UserReport,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{Request, Response, StatusCode, Uri, request};
use ureq::{Agent, Body};

use super::{Access, EXPORT_PAGE, tls};
use crate::failure::Failure;

/// Connecting takes no longer on any network where a compile cache makes sense.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A server answers within its request timeout; what takes longer is the body.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Server {
    agent: Agent,
    /// Without a slash at the end.
    url: String,
    password: Option<String>,
}

impl Server {
    pub(super) fn new(url: &str, password: Option<String>) -> Result<Self, Failure> {
        let parsed: Option<Uri> = url.parse().ok().filter(|uri: &Uri| uri.host().is_some());
        let scheme =
            parsed.as_ref().and_then(Uri::scheme_str).filter(|scheme| ["http", "https"].contains(scheme));
        let Some(scheme) = scheme else {
            return Err(Failure::new(format!("`{url}` is no address of a server"))
                .with_hint("give one as `--server http://HOST:PORT`, the address of `serve --http`, or as in PILOTLIGHT_URL"));
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A proxy for the internet does not know the servers of this network.
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .user_agent(concat!("pilotlight/", env!("CARGO_PKG_VERSION")));
        let config = if scheme == "https" { config.tls_config(tls::for_http()?) } else { config };
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { agent: config.build().new_agent(), url, password })
    }

    fn entry(&self, key: &Key) -> String {
        let encoded = percent_encode(key.bytes(), NON_ALPHANUMERIC);
        format!("/cache/{encoded}?namespace={}", self.escaped(key.namespace()))
    }

    /// Asks for a change of an entry, and says whether there is one.
    fn change(&self, method: &str, target: &str) -> Result<bool, Failure> {
        let response = self.send(self.request(method, target), &[])?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        success(response).map(|_| true)
    }

    fn pinned(&self, key: &Key) -> String {
        self.entry(key).replacen("/cache/", "/api/pins/", 1)
    }

    fn escaped<'a>(&self, namespace: &'a Namespace) -> percent_encoding::PercentEncode<'a> {
        percent_encode(namespace.as_str().as_bytes(), NON_ALPHANUMERIC)
    }

    fn request(&self, method: &str, target: &str) -> request::Builder {
        let request = Request::builder().method(method).uri(format!("{}{target}", self.url));
        match &self.password {
            Some(password) => request.header("authorization", format!("Bearer {password}")),
            None => request,
        }
    }

    /// Sends a request and passes on whatever the answer is.
    fn send(&self, request: request::Builder, body: &[u8]) -> Result<Response<Body>, Failure> {
        // What the server will not take, it refuses before the body is sent, and says why.
        let request = if body.is_empty() { request } else { request.header("expect", "100-continue") };
        let request = request.body(body).map_err(|error| Failure::new("could not ask").because(&error))?;
        self.agent.run(request).map_err(|error| {
            // The server answers and closes before it has read what it will not take; the answer is lost with the rest.
            let is_cut_off = matches!(&error, ureq::Error::Io(io) if matches!(
                io.kind(), std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset));
            if is_cut_off && !body.is_empty() {
                return Failure::new("the server closed the connection while the artifact was sent")
                    .because(&error)
                    .with_hint("it may be larger than the server's `--max-entry-size`");
            }
            Failure::new(format!("could not reach a server at {}", self.url)).because(&error).with_hint(
                "start one with `pilotlight serve`, name another with PILOTLIGHT_URL or `--server URL`, or look into the \
                 directory of a stopped one with `--data-dir DIR`",
            )
        })
    }

    /// Sends a request whose answer must be a success.
    fn ask(&self, method: &str, target: &str) -> Result<Response<Body>, Failure> {
        success(self.send(self.request(method, target), &[])?)
    }

    fn json<T: DeserializeOwned>(&self, method: &str, target: &str) -> Result<T, Failure> {
        let body = whole(self.ask(method, target)?)?;
        serde_json::from_slice(&body).map_err(|error| not_ours().because(&error))
    }
}

impl Server {
    /// The namespace that whoever asks calls database `number`; `None` of a server that knows no users.
    pub(super) fn namespace(&self, number: u16) -> Result<Option<Namespace>, Failure> {
        let response = self.send(self.request("GET", "/api/user"), &[])?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let report: UserReport = serde_json::from_slice(&whole(success(response)?)?)
            .map_err(|error| not_ours().because(&error))?;
        Ok(match (number, report.home.as_str()) {
            (0, home) => Some(Namespace::new(home)?),
            (_, "") => None,
            (number, home) => Some(Namespace::new(&format!("{home}/db{number}"))?),
        })
    }

    pub(super) fn collect(
        &self,
        what: Collect,
        progress: &mut dyn FnMut(&CollectedReport),
    ) -> Result<CollectedReport, Failure> {
        self.job(&format!("/api/gc?dry_run={}", what == Collect::Plan), "collection", progress)
    }

    pub(super) fn examine(&self) -> Result<Vec<FindingReport>, Failure> {
        let mut found = Vec::new();
        let stats = self.stats()?;
        let ours = env!("CARGO_PKG_VERSION");
        if stats.version != ours {
            let finding = format!("it is version {}, and this command {ours}", stats.version);
            found.push(FindingReport::note("server", finding, "use one version of both where you can"));
        }
        found.extend(self.json::<Vec<FindingReport>>("GET", "/api/doctor")?);
        Ok(found)
    }

    /// Has the server do something that takes its time, and passes on how far it is.
    fn job<T: DeserializeOwned>(
        &self,
        target: &str,
        name: &str,
        progress: &mut dyn FnMut(&T),
    ) -> Result<T, Failure> {
        let body = self.ask("POST", target)?.into_body();
        for line in BufReader::new(body.into_reader()).lines() {
            let line = line.map_err(|error| Failure::new(format!("the {name} broke off")).because(&error))?;
            match serde_json::from_str(&line).map_err(|error| not_ours().because(&error))? {
                JobLine::Progress(report) => progress(&report),
                JobLine::Report(report) => return Ok(report),
                JobLine::Error(problem) => return Err(told(problem)),
            }
        }
        Err(Failure::new(format!("the {name} broke off: the server closed the connection")))
    }
}

impl Access for Server {
    fn stats(&self) -> Result<StatsReport, Failure> {
        self.json("GET", "/api/stats")
    }

    fn entries(&self, namespace: &Namespace, cursor: u64, limit: usize) -> Result<EntriesReport, Failure> {
        let namespace = self.escaped(namespace);
        self.json("GET", &format!("/api/entries?namespace={namespace}&cursor={cursor}&limit={limit}"))
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, Failure> {
        let response = self.send(self.request("GET", &self.entry(key)), &[])?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        whole(success(response)?).map(Some)
    }

    fn put(&self, key: &Key, artifact: Vec<u8>, ttl: Option<Duration>) -> Result<(), Failure> {
        let mut request = self.request("PUT", &self.entry(key));
        if let Some(ttl) = ttl {
            request = request.header("x-pilotlight-ttl-seconds", ttl.as_secs().max(1).to_string());
        }
        success(self.send(request, &artifact)?).map(|_| ())
    }

    fn delete(&self, key: &Key) -> Result<bool, Failure> {
        self.change("DELETE", &self.entry(key))
    }

    fn pin(&self, key: &Key) -> Result<bool, Failure> {
        self.change("PUT", &self.pinned(key))
    }

    fn unpin(&self, key: &Key) -> Result<bool, Failure> {
        self.change("DELETE", &self.pinned(key))
    }

    fn clear(&self, namespace: &Namespace) -> Result<u64, Failure> {
        #[derive(Deserialize)]
        struct Cleared {
            deleted: u64,
        }
        let target = format!("/api/entries?namespace={}", self.escaped(namespace));
        Ok(self.json::<Cleared>("DELETE", &target)?.deleted)
    }

    fn verify(&self, progress: &mut dyn FnMut(&CheckedReport)) -> Result<CheckedReport, Failure> {
        self.job("/api/verify", "verification", progress)
    }

    fn about(&self) -> Result<StoreReport, Failure> {
        self.json("GET", "/api/store")
    }

    fn export_page(
        &self,
        namespace: &Namespace,
        cursor: Cursor,
        selection: &Selection,
        each: &mut dyn FnMut(&Frame) -> Result<(), Failure>,
    ) -> Result<Mark, Failure> {
        let escaped = |text: &str| percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string();
        let mut target = format!(
            "/api/export?namespace={}&cursor={}&limit={EXPORT_PAGE}&kind={}",
            self.escaped(namespace),
            cursor.0,
            escaped(&selection.kinds.join(",")),
        );
        if let Some(pattern) = &selection.pattern {
            target += &format!("&pattern={}", escaped(pattern));
        }
        if let Some(since_ms) = selection.since_ms {
            target += &format!("&since_ms={since_ms}");
        }
        let body = self.ask("GET", &target)?.into_body();
        let mut frames = Reader::of_frames(body.into_reader());
        loop {
            let frame = frames.next_frame();
            let frame = frame.map_err(|trouble| broke_off().because(&trouble))?.ok_or_else(broke_off)?;
            if frame.frame_type() == FrameType::Mark {
                return Ok(Mark::of_frame(&frame)?);
            }
            each(&frame)?;
        }
    }

    fn import(&self, batch: &[Frame], conflict: Conflict, is_last: bool) -> Result<ImportedReport, Failure> {
        let mut body = Vec::new();
        for frame in batch {
            frame
                .write(&mut body)
                .map_err(|error| Failure::new("could not gather a batch").because(&error))?;
        }
        let target = format!("/api/import?replace={}&sync={is_last}", conflict == Conflict::Replace);
        let response = self.send(self.request("POST", &target), &body)?;
        if let (StatusCode::PAYLOAD_TOO_LARGE, [frame]) = (response.status(), batch) {
            let mut report = ImportedReport::default();
            report.refuse(&Portable::of_frame(frame)?, "larger than the server takes".to_owned());
            return Ok(report);
        }
        let body = whole(success(response)?)?;
        serde_json::from_slice(&body).map_err(|error| not_ours().because(&error))
    }

    fn quarantine(&self) -> Result<Vec<SetAsideReport>, Failure> {
        self.json("GET", "/api/quarantine")
    }

    fn purge_quarantine(&self, before_ms: Option<u64>) -> Result<PurgedReport, Failure> {
        let before = before_ms.map_or_else(String::new, |before_ms| format!("?before_ms={before_ms}"));
        self.json("DELETE", &format!("/api/quarantine{before}"))
    }
}

fn broke_off() -> Failure {
    Failure::new("the server broke the export off").with_hint("its log says why; go on with `--resume`")
}

fn whole(response: Response<Body>) -> Result<Vec<u8>, Failure> {
    let body = response.into_body().into_with_config().limit(u64::MAX).read_to_vec();
    body.map_err(|error| Failure::new("the answer broke off").because(&error))
}

fn success(response: Response<Body>) -> Result<Response<Body>, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let is_denied = status == StatusCode::UNAUTHORIZED;
    let body = whole(response).unwrap_or_default();
    let failure = match serde_json::from_slice(&body) {
        Ok(problem) => told(problem),
        Err(_) => Failure::new(format!("the server answered {status}")),
    };
    let hint = is_denied.then_some("give it with PILOTLIGHT_PASSWORD or `--password-file FILE`");
    Err(failure.with_hint_if(hint))
}

fn told(problem: Problem) -> Failure {
    Failure::new(problem.error).with_hint_if(problem.hint)
}

fn not_ours() -> Failure {
    Failure::new("the answer is not one of a Pilotlight server")
        .with_hint("`--server` takes the address of `serve --http`, port 6380 by default")
}
