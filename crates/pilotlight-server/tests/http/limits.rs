//! What HTTP clients may take of a server: rows of docs/limits.md that `hostile.rs` has not.

use std::sync::Arc;

use pilotlight_cache::{Backend, DiskBackend, DiskOptions, Durability, Inline, MemoryBackend};
use pilotlight_server::Config;

use crate::harness::{Running, start_with};

const MIB: usize = 1 << 20;

fn start(config: Config) -> Running {
    start_with(config, |clock| Arc::new(MemoryBackend::with_clock(1 << 30, clock)), |_| {})
}

/// Over a disk in `dir`.
fn start_on_disk(dir: &std::path::Path, config: Config) -> Running {
    let disk = std::cell::OnceCell::new();
    start_with(
        config,
        |clock| {
            let options = DiskOptions {
                dir: dir.to_owned(),
                max_bytes: 256 << 20,
                durability: Durability::Relaxed,
                clock,
                blocking: Arc::new(Inline),
                signers: None,
            };
            let opened: &Arc<DiskBackend> = disk.get_or_init(|| DiskBackend::open(options).unwrap());
            Arc::clone(opened) as Arc<dyn Backend>
        },
        |server| server.maintenance = disk.get().map(|disk| disk.clone() as _),
    )
}

/// A number that operators see.
fn metric(server: &Running, name: &str) -> u64 {
    let text = server.get("/metrics", &[]).text();
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// What does not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}

#[test]
fn at_the_limit_a_connection_waits_for_another_to_close() {
    let server = start(Config { connections_max: 1, ..Config::default() });
    let mut first = server.connect();
    assert_eq!(first.ask("GET", "/healthz", &[], b"").status, 200);
    let mut second = server.connect();
    second.write(b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n");
    assert!(!second.is_answered(), "answered above the limit");
    drop(first);
    assert_eq!(second.answer("GET").status, 200);
}

#[test]
fn an_address_has_as_many_connections_as_it_may() {
    let server = start(Config { connections_per_address_max: Some(2), ..Config::default() });
    let mut held = [server.connect(), server.connect()];
    for connection in &mut held {
        assert_eq!(connection.ask("GET", "/healthz", &[], b"").status, 200);
    }
    assert!(server.connect().is_closed());
    let counted = held[0].ask("GET", "/metrics", &[], b"").text();
    assert!(counted.contains("pilotlight_refused_connections_total 1\n"), "{counted}");
}

#[test]
fn a_head_is_no_longer_than_128_kib() {
    let server = start(Config::default());
    let ask = |len| server.get("/healthz", &[&format!("x: {}", "x".repeat(len))]).status;
    assert_eq!(ask(100 << 10), 200);
    assert_eq!(ask(129 << 10), 431);
}

#[test]
fn an_import_batch_holds_one_entry_and_a_little() {
    let dir = tempfile::tempdir().unwrap();
    let server = start_on_disk(dir.path(), Config { entry_bytes_max: MIB as u64, ..Config::default() });
    let refused = server.ask("POST", "/api/import", &["expect: 100-continue"], &vec![0; 9 * MIB + 1]);
    assert_eq!(refused.status, 413);
    // As long as it may be, it is read, and found to be none.
    assert_eq!(server.ask("POST", "/api/import", &[], &vec![0; 9 * MIB]).status, 400);
}

#[test]
fn what_an_export_holds_is_bounded_counted_and_given_back() {
    let dir = tempfile::tempdir().unwrap();
    // Two of the largest entries is what all clients together may hold.
    let config = Config { entry_bytes_max: MIB as u64, connection_memory_bytes: 0, ..Config::default() };
    let server = start_on_disk(dir.path(), config);
    for number in 0..48 {
        assert_eq!(server.put(&format!("/cache/{number}"), &[], &noise(number, MIB)).status, 201);
    }
    let mut slow = server.connect();
    slow.write(b"GET /api/export HTTP/1.1\r\nhost: t\r\n\r\n");
    // As much as it takes ahead of a client that reads nothing: two entries wait, and the export waits with a third.
    let in_flight = || metric(&server, "pilotlight_in_flight_bytes");
    while in_flight() < 3 * MIB as u64 {
        std::thread::yield_now();
    }
    let refused = server.get("/api/export", &[]);
    assert_eq!((refused.status, refused.text().contains("room for requests in flight")), (503, true));
    assert!(in_flight() < 5 * MIB as u64, "{}", in_flight());
    // It goes on all the same, and says all of it.
    let whole = slow.answer("GET");
    assert!((48 * MIB..49 * MIB).contains(&whole.body.len()), "{} bytes", whole.body.len());
    let mut gone = server.connect();
    gone.write(b"GET /api/export HTTP/1.1\r\nhost: t\r\n\r\n");
    while in_flight() < 3 * MIB as u64 {
        std::thread::yield_now();
    }
    drop(gone);
    while in_flight() > 0 {
        std::thread::yield_now();
    }
}
