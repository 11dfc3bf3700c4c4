//! A server on a port of its own and a client that writes what it is told, right or wrong.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pilotlight_cache::{Backend, Cache, FailurePolicy, ManualClock, MemoryBackend};
use pilotlight_server::{Config, Listeners, Server};

/// 2024-01-02 03:04:05 UTC.
pub(crate) const NOW_MS: u64 = 1_704_164_645_000;

/// Far above what any test takes: a test fails rather than hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server; dropping it shuts it down and waits for the end.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) clock: Arc<ManualClock>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A server over a memory backend.
pub(crate) fn start() -> Running {
    start_with(Config::default(), |clock| Arc::new(MemoryBackend::with_clock(1 << 30, clock)), |_| {})
}

/// A server with these settings over this backend, changed by `change` before it starts.
pub(crate) fn start_with(
    config: Config,
    backend: impl FnOnce(Arc<ManualClock>) -> Arc<dyn Backend>,
    change: impl FnOnce(&mut Server),
) -> Running {
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let cache = Cache::new(backend(Arc::clone(&clock))).with_policy(FailurePolicy::Absorb);
    let config = Config { cores: 1, ..config };
    let mut server = Server::new(Arc::new(cache), config, Arc::clone(&clock) as _);
    change(&mut server);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let listeners = Listeners { http: vec![listener], ..Listeners::default() };
        let shutdown = async {
            let _ = stopped.await;
        };
        pilotlight_server::run(Arc::new(server), listeners, shutdown).unwrap();
    });
    Running { address, clock, stop: Some(stop), thread: Some(thread) }
}

impl Running {
    /// Asks for shutdown without waiting for it.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    pub(crate) fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection { stream: BufReader::new(stream) }
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
        self.connect().ask(method, target, headers, body)
    }

    pub(crate) fn get(&self, target: &str, headers: &[&str]) -> Answer {
        self.ask("GET", target, headers, b"")
    }

    pub(crate) fn put(&self, target: &str, headers: &[&str], body: &[u8]) -> Answer {
        self.ask("PUT", target, headers, body)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server panicked");
        }
    }
}

pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }
}

impl Connection {
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    pub(crate) fn ask(&mut self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: test\r\n");
        for header in headers {
            head += &format!("{header}\r\n");
        }
        if !body.is_empty() || method == "PUT" {
            head += &format!("content-length: {}\r\n", body.len());
        }
        self.write(format!("{head}\r\n").as_bytes());
        // A server that has refused already may have closed: what counts is its answer.
        let _ = self.stream.get_mut().write_all(body);
        self.answer(method)
    }

    /// Reads one answer to `method`.
    pub(crate) fn answer(&mut self, method: &str) -> Answer {
        let status_line = self.line();
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status: u16 = status.unwrap_or_else(|| panic!("no status line: {status_line:?}"));
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        if status == 100 {
            return Answer { status, headers, body: Vec::new() };
        }
        let body = if method == "HEAD" || matches!(status, 204 | 304) {
            Vec::new()
        } else if headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
            self.chunks()
        } else {
            let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).unwrap();
            body
        };
        Answer { status, headers, body }
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let length = usize::from_str_radix(&self.line(), 16).unwrap();
            let mut chunk = vec![0; length + 2];
            self.stream.read_exact(&mut chunk).unwrap();
            body.extend_from_slice(&chunk[..length]);
            if length == 0 {
                return body;
            }
        }
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Writes as much of `bytes` as is taken before the server closes.
    pub(crate) fn write_what_is_taken(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// Reads until the server closes, which must be within the patience of [`Running::connect`].
    pub(crate) fn until_closed(&mut self) {
        let ended = self.stream.read_to_end(&mut Vec::new());
        let is_timeout = |kind| matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!ended.is_err_and(|error| is_timeout(error.kind())), "the connection stays open");
    }

    /// Whether an answer has begun to come, or comes in a moment.
    pub(crate) fn is_answered(&mut self) -> bool {
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let is_answered = stream.peek(&mut [0]).is_ok();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        is_answered
    }

    /// Whether the server closes the connection without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }
}
