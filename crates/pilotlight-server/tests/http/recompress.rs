//! Entries recompressed while the server runs.

use std::sync::Arc;
use std::time::Duration;

use pilotlight_cache::{Backend, DiskBackend, DiskOptions, Durability, Hot, Inline};
use pilotlight_server::Config;

use crate::harness::{Running, start_with};

/// A server over a disk, and that disk for whoever asks it past the server.
fn start_on_disk(dir: &std::path::Path, config: Config) -> (Running, Arc<DiskBackend>) {
    let disk = std::cell::OnceCell::new();
    let server = start_with(
        config,
        |clock| {
            let options = DiskOptions {
                dir: dir.to_owned(),
                max_bytes: 64 << 20,
                durability: Durability::Relaxed,
                clock,
                blocking: Arc::new(Inline),
                signers: None,
            };
            let opened = disk.get_or_init(|| DiskBackend::open(options).unwrap());
            Arc::new(Hot::new(opened.clone(), 1 << 20))
        },
        |server| server.maintenance = disk.get().map(|disk| disk.clone() as _),
    );
    (server, disk.into_inner().unwrap())
}

fn graph(number: u64) -> Vec<u8> {
    let line = |i: u64| format!("buf{i} = mul({}, 2)\n", (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44);
    let mut lines: Vec<String> = (0..2000).map(line).collect();
    lines.insert(1000, format!("# compiled by job {number}\n"));
    lines.concat().into_bytes()
}

#[test]
fn entries_that_nobody_used_are_recompressed_and_answer_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let after = Duration::from_secs(1);
    let (server, disk) =
        start_on_disk(dir.path(), Config { recompress_after: Some(after), ..Config::default() });
    let paths = ["/cache/a", "/cache/b", "/cache/c"];
    for (number, path) in (0..).zip(paths) {
        assert_eq!(server.put(path, &[], &graph(number)).status, 201);
    }
    let answers = || {
        paths.map(|path| {
            let answer = server.get(path, &[]);
            (
                answer.status,
                answer.header("etag").to_owned(),
                answer.header("last-modified").to_owned(),
                answer.body,
            )
        })
    };
    let usage = || server.get("/api/stats", &[]).json()["usage"].clone();
    let before = answers();
    assert_eq!(usage()["recompressed"], 0);
    server.clock.advance_ms(2000);
    // Past the server, whose thread rests longer while it is asked; waiting for that is what this test is about.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    while runtime.block_on(disk.usage(None)).unwrap().recompressed < 3 {
        std::thread::yield_now();
    }
    drop(disk);
    assert!(usage()["recompressed_bytes"].as_u64() > Some(20_000), "{}", usage());
    assert_eq!(usage()["deltas"], 2);
    assert_eq!(answers(), before);
    let metrics = server.get("/metrics", &[]).text();
    assert!(metrics.contains("pilotlight_recompressed_entries_total 3\n"), "{metrics}");
    assert!(metrics.contains("pilotlight_delta_entries 2\n"), "{metrics}");
    // A server that is opened again has nothing warm.
    drop(server);
    let (server, _) = start_on_disk(dir.path(), Config::default());
    for (path, (status, etag, _, body)) in paths.iter().zip(before) {
        let answer = server.get(path, &[]);
        assert_eq!((answer.status, answer.header("etag"), &answer.body), (status, &*etag, &body));
    }
    assert_eq!(server.get("/api/stats", &[]).json()["usage"]["deltas"], 2);
}
