//! What the targets share: a server that runs as long as the process, and what its replies must look like.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pilotlight_cache::{Cache, MemoryBackend, SystemClock};
use pilotlight_server::{Config, Listeners, Server, run};

/// Nothing that works takes so long; a server that does is a finding.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than any reply to an input of libFuzzer's can be long.
const REPLY_MAX: u64 = 64 << 20;

/// Where the server is asked.
pub struct Running {
    resp: SocketAddr,
    http: SocketAddr,
}

/// The server, over memory, with limits that inputs can reach.
pub fn server() -> &'static Running {
    static RUNNING: OnceLock<Running> = OnceLock::new();
    RUNNING.get_or_init(|| {
        let config = Config {
            cores: 1,
            entry_bytes_max: 4096,
            lease_wait: Duration::from_millis(1),
            ..Config::default()
        };
        let cache = Arc::new(Cache::new(Arc::new(MemoryBackend::new(1 << 20))));
        let server = Arc::new(Server::new(cache, config, Arc::new(SystemClock)));
        let bind = || TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let (resp, http) = (bind(), bind());
        let running =
            Running { resp: resp.local_addr().expect("bound"), http: http.local_addr().expect("bound") };
        let listeners = Listeners { resp: vec![resp], http: vec![http], ..Listeners::default() };
        std::thread::spawn(move || run(server, listeners, std::future::pending()));
        running
    })
}

impl Running {
    /// Sends `input` to the RESP port and reads until the server closes.
    pub fn resp(&self, input: &[u8]) -> Vec<u8> {
        exchange(self.resp, input, Then::End)
    }

    /// The same, of the HTTP port. Who closes its side there is taken to want no answer any more: so only what may lack its
    /// end is ended.
    pub fn http(&self, input: &[u8], then: Then) -> Vec<u8> {
        exchange(self.http, input, then)
    }
}

/// What a client does that has sent all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing will follow, and the server is told so.
    End,
    /// It waits.
    Wait,
}

/// A reset is how the server ends what it will not read to its end; what came before that counts.
fn exchange(address: SocketAddr, input: &[u8], then: Then) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
    // Closed with what was read unread, sockets do not linger in the kernel by the thousands.
    let mut reply = Vec::new();
    let is_sent = stream.write_all(input).is_ok();
    if is_sent && (then == Then::Wait || stream.shutdown(Shutdown::Write).is_ok()) {
        let read = stream.take(REPLY_MAX).read_to_end(&mut reply);
        if let Err(error) = read {
            assert!(
                error.kind() != std::io::ErrorKind::WouldBlock,
                "no answer, and no end, for {PATIENCE:?}"
            );
        }
    }
    reply
}

/// The number of whole replies in `bytes`, which may end in the middle of one.
///
/// # Panics
/// For bytes that are no RESP.
pub fn replies(mut bytes: &[u8]) -> usize {
    let mut found = 0;
    while let Some(rest) = reply(bytes) {
        (bytes, found) = (rest, found + 1);
    }
    found
}

/// What follows the first reply; `None` where it is cut.
fn reply(bytes: &[u8]) -> Option<&[u8]> {
    let kind = *bytes.first()?;
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, mut rest) = (&bytes[1..end], &bytes[end + 2..]);
    let number = || -> i64 {
        let text = std::str::from_utf8(line).expect("a length is text");
        text.parse().unwrap_or_else(|_| panic!("{text:?} is no length"))
    };
    match kind {
        b'+' | b'-' | b':' | b',' | b'(' | b'#' => {
            assert!(!line.contains(&b'\n') && !line.contains(&b'\r'), "a line in a line: {line:?}");
            Some(rest)
        }
        b'_' => {
            assert!(line.is_empty());
            Some(rest)
        }
        b'$' | b'=' => match usize::try_from(number()) {
            Err(_) => Some(rest),
            Ok(len) => {
                let behind = rest.get(len..)?;
                let end = behind.get(..2)?;
                assert_eq!(end, b"\r\n", "behind a bulk of {len} bytes");
                behind.get(2..)
            }
        },
        b'*' | b'~' | b'>' | b'%' => {
            let times = if kind == b'%' { 2 } else { 1 };
            for _ in 0..number().max(0) * times {
                rest = reply(rest)?;
            }
            Some(rest)
        }
        other => panic!("no RESP: {:?}", char::from(other)),
    }
}
