//! A server in this process and a client that shows raw bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pilotlight_cache::{Backend, Cache, Clock, DiskBackend, FailurePolicy, MemoryBackend, SystemClock};
use pilotlight_server::access::Access;
use pilotlight_server::{Config, Listeners, Server, run};
use tokio::sync::oneshot;

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server, stopped when dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) server: Arc<Server>,
    shutdown: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Running {
    /// Over memory, with two cores.
    pub(crate) fn start() -> Self {
        Self::with(Arc::new(MemoryBackend::new(1 << 30)), config(), Arc::new(SystemClock))
    }

    pub(crate) fn with(backend: Arc<dyn Backend>, config: Config, clock: Arc<dyn Clock>) -> Self {
        Self::of(Cache::new(backend), config, clock)
    }

    /// Over an embedded store.
    pub(crate) fn on(disk: &Arc<DiskBackend>) -> Self {
        let cache = Cache::new(disk.clone()).with_maintenance(Some(disk.clone()));
        Self::of(cache, config(), Arc::new(SystemClock))
    }

    fn of(cache: Cache, config: Config, clock: Arc<dyn Clock>) -> Self {
        let policy = if config.is_strict { FailurePolicy::Raise } else { FailurePolicy::Absorb };
        Self::run(Server::new(Arc::new(cache.with_policy(policy)), config, clock))
    }

    /// Over memory, with these users.
    pub(crate) fn for_users(access: Access, config: Config) -> Self {
        let policy = if config.is_strict { FailurePolicy::Raise } else { FailurePolicy::Absorb };
        let cache = Cache::new(Arc::new(MemoryBackend::new(1 << 30))).with_policy(policy);
        let mut server = Server::new(Arc::new(cache), config, Arc::new(SystemClock));
        server.access = Arc::new(access);
        Self::run(server)
    }

    fn run(server: Server) -> Self {
        let server = Arc::new(server);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, is_over) = oneshot::channel();
        let thread = {
            let server = Arc::clone(&server);
            let listeners = Listeners { resp: vec![listener], ..Listeners::default() };
            std::thread::spawn(move || {
                run(server, listeners, async {
                    let _ = is_over.await;
                })
            })
        };
        Self { address, server, shutdown: Some(shutdown), thread: Some(thread) }
    }

    pub(crate) fn connect(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client::new(stream)
    }

    /// Begins the shutdown without waiting for it.
    pub(crate) fn begin_shutdown(&mut self) {
        drop(self.shutdown.take());
    }

    /// Shuts down, and returns what `run` did.
    pub(crate) fn stop(&mut self) -> std::io::Result<()> {
        self.begin_shutdown();
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let stopped = self.stop();
        if !std::thread::panicking() {
            stopped.unwrap();
        }
    }
}

pub(crate) fn config() -> Config {
    Config { cores: 2, drain_timeout: Duration::from_secs(5), ..Config::default() }
}

/// Sends requests and shows replies as they are on the wire.
pub(crate) struct Client<S> {
    stream: S,
    /// Read and not yet part of a reply that was returned.
    ahead: Vec<u8>,
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// One whole reply, raw.
    pub(crate) fn reply(&mut self) -> Vec<u8> {
        loop {
            if let Some(len) = reply_len(&self.ahead) {
                let rest = self.ahead.split_off(len);
                return std::mem::replace(&mut self.ahead, rest);
            }
            let mut buffer = [0; 64 * 1024];
            let n = self.stream.read(&mut buffer).unwrap();
            assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&self.ahead));
            self.ahead.extend_from_slice(&buffer[..n]);
        }
    }

    /// Sends one command as an array and returns its reply.
    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Vec<u8> {
        self.send(&array(args));
        self.reply()
    }

    /// The same for a command written as words, with its reply as text.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        let args: Vec<&str> = line.split(' ').collect();
        String::from_utf8_lossy(&self.call(&args)).into_owned()
    }

    /// What comes until the server closes.
    pub(crate) fn until_closed(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.ahead);
        self.stream.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Gives back what the client itself keeps, for tests that weigh the server.
    pub(crate) fn shrink(&mut self) {
        self.ahead.shrink_to_fit();
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }
}

/// A command as clients send it.
pub(crate) fn array<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        bytes.extend(format!("${}\r\n", arg.len()).bytes());
        bytes.extend(arg);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// Length of the reply that `bytes` begin with, if it is whole.
pub(crate) fn reply_len(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|end| end == b"\r\n")?;
    let number = || std::str::from_utf8(&bytes[1..line]).unwrap().parse::<i64>().unwrap();
    let mut at = line + 2;
    let items = match bytes[0] {
        b'$' | b'=' => {
            if number() >= 0 {
                at += usize::try_from(number()).unwrap() + 2;
            }
            0
        }
        b'*' | b'~' => number().max(0),
        b'%' => number() * 2,
        _ => 0,
    };
    if at > bytes.len() {
        return None;
    }
    for _ in 0..items {
        at += reply_len(&bytes[at..])?;
    }
    Some(at)
}
