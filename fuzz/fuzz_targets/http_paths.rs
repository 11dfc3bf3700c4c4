//! Whatever is asked over HTTP, the answer is HTTP, no failure of the server's, and the server is there for the next.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pilotlight_fuzz::{Then, server};

#[derive(Debug, Arbitrary)]
struct Asked {
    method: u8,
    page: u8,
    /// Behind the page, percent-encoded where it must be.
    path: Vec<u8>,
    header: u8,
    value: Vec<u8>,
    body: Vec<u8>,
    /// Instead of all of that.
    raw: Option<Vec<u8>>,
}

const METHODS: &[&str] = &["GET", "HEAD", "PUT", "DELETE", "POST", "OPTIONS", "PATCH"];
const PAGES: &[&str] = &[
    "/cache/",
    "/cache/ac/",
    "/cache/../",
    "/ac/",
    "/cas/",
    "/api/entries",
    "/api/entries?limit=",
    "/api/stats",
    "/api/pins/",
    "/api/export?kind=",
    "/api/import",
    "/api/quarantine",
    "/api/verify",
    "/api/gc",
    "/api/doctor",
    "/metrics",
    "/healthz",
    "/",
    "*",
];
const HEADERS: &[&str] = &[
    "range",
    "if-none-match",
    "if-match",
    "if-range",
    "authorization",
    "x-pilotlight-compile-ms",
    "content-type",
    "accept",
    "accept-encoding",
    "expect",
    "x-pilotlight-expires-ms",
    "cache-control",
    "te",
];

fn pick<'a>(from: &[&'a str], at: u8) -> &'a str {
    from[usize::from(at) % from.len()]
}

fn request(asked: &Asked) -> Vec<u8> {
    if let Some(raw) = &asked.raw {
        return raw.clone();
    }
    let mut request = format!("{} {}", pick(METHODS, asked.method), pick(PAGES, asked.page)).into_bytes();
    for byte in &asked.path {
        match byte {
            b'!'..=b'~' => request.push(*byte),
            _ => request.extend_from_slice(format!("%{byte:02x}").as_bytes()),
        }
    }
    request.extend_from_slice(
        format!(" HTTP/1.1\r\nhost: fuzz\r\nconnection: close\r\n{}: ", pick(HEADERS, asked.header))
            .as_bytes(),
    );
    request.extend(asked.value.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
    request.extend_from_slice(format!("\r\ncontent-length: {}\r\n\r\n", asked.body.len()).as_bytes());
    request.extend_from_slice(&asked.body);
    request
}

fuzz_target!(|asked: Asked| {
    let running = server();
    let then = if asked.raw.is_some() { Then::End } else { Then::Wait };
    let answer = running.http(&request(&asked), then);
    if !answer.is_empty() && asked.raw.is_none() {
        let status = answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = std::str::from_utf8(status.expect("HTTP")).expect("text");
        // 501 is what is not there, 507 what finds no room.
        assert!(!status.starts_with('5') || ["501", "503", "507"].contains(&status), "{status}");
    }
    let health =
        running.http(b"GET /healthz HTTP/1.1\r\nhost: fuzz\r\nconnection: close\r\n\r\n", Then::Wait);
    assert!(health.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&health));
});
