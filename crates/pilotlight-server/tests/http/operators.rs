//! What monitors and operators ask, and what keeps others out.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pilotlight_cache::portable::Portable;
use pilotlight_cache::{
    Backend, Checkup, Collect, Collected, Conflict, Cursor, Entry, Exported, Found, Head, Imported, Key,
    Maintenance, MemoryBackend, Namespace, Page, Purged, Put, RecompressReport, Result, SetAside, StoreAbout,
    Usage, VerifyReport, Version, When,
};
use pilotlight_server::Config;

use crate::harness::{Running, start, start_with};

/// Never answers.
#[derive(Debug)]
struct Hung;

impl std::fmt::Display for Hung {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hung")
    }
}

#[async_trait]
impl Backend for Hung {
    fn name(&self) -> &'static str {
        "Hung"
    }
    async fn get_many(&self, _keys: &[Key]) -> Vec<Result<Option<Found>>> {
        std::future::pending().await
    }
    async fn head(&self, _key: &Key) -> Result<Option<Head>> {
        Ok(None)
    }
    async fn touch(&self, _key: &Key) -> Result<Option<Head>> {
        Ok(None)
    }
    async fn put(&self, _key: &Key, _entry: Entry, _when: When) -> Result<Put> {
        std::future::pending().await
    }
    async fn stage(&self, _key: &Key, _entry: Entry, _when: When) -> Result<Put> {
        std::future::pending().await
    }
    async fn settle_many(&self, _versions: &[Version]) -> Vec<Result<()>> {
        std::future::pending().await
    }
    async fn set_expiry(&self, _key: &Key, _expires_ms: Option<u64>, _when: When) -> Result<Put> {
        std::future::pending().await
    }
    async fn delete(&self, _key: &Key, _when: When) -> Result<bool> {
        std::future::pending().await
    }
    async fn scan(&self, _namespace: &Namespace, _cursor: Cursor, _limit: usize) -> Result<Page> {
        std::future::pending().await
    }
    async fn clear(&self, _namespace: &Namespace) -> Result<u64> {
        std::future::pending().await
    }
    async fn usage(&self, _namespace: Option<&Namespace>) -> Result<Usage> {
        std::future::pending().await
    }
    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}

fn hung(request_timeout: Duration) -> Running {
    start_with(Config { request_timeout, ..Config::default() }, |_| Arc::new(Hung), |_| {})
}

#[test]
fn healthz_answers_while_the_cache_hangs() {
    let server = hung(Duration::from_secs(3600));
    let mut stuck = server.connect();
    stuck.write(b"GET /cache/k HTTP/1.1\r\nhost: t\r\n\r\n");
    assert_eq!(server.get("/healthz", &[]).text(), "alive\n");
    assert_eq!(server.get("/readyz", &[]).text(), "ready\n");
    // The sizes are missing, the counters are there.
    let metrics = server.get("/metrics", &[]).text();
    assert!(metrics.contains("pilotlight_operations_total{") && !metrics.contains("pilotlight_entries "));
    // A request without end must not hold up the shutdown of this test.
    drop(stuck);
}

#[test]
fn a_hung_cache_is_504_within_the_request_timeout() {
    let server = hung(Duration::from_millis(50));
    for (method, target) in
        [("GET", "/cache/k"), ("PUT", "/cache/k"), ("DELETE", "/cache/k"), ("GET", "/api/stats")]
    {
        let answer = server.ask(method, target, &[], b"");
        assert_eq!(answer.status, 504, "{method} {target}");
        assert!(answer.text().contains("took over 50 ms"), "{}", answer.text());
    }
    // What a compiler waits for is a miss instead, and counted.
    assert_eq!(server.get("/cache/pt2:fx-graph-v1::f:c1", &[]).status, 404);
    let metrics = server.get("/metrics", &[]).text();
    assert!(metrics.contains("pilotlight_absorbed_gets_total{reason=\"timeout\"} 1"), "{metrics}");
}

#[test]
fn a_running_request_is_finished_at_shutdown() {
    let mut server = start();
    let mut connection = server.connect();
    connection
        .write(b"PUT /cache/k HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(connection.answer("PUT").status, 100);
    server.stop();
    connection.write(b"12345");
    assert_eq!(connection.answer("PUT").status, 201);
    assert!(connection.is_closed());
}

#[test]
fn shutdown_does_not_wait_for_idle_connections() {
    let mut server = start();
    let mut idle = server.connect();
    assert_eq!(idle.ask("GET", "/healthz", &[], b"").status, 200);
    server.stop();
    assert!(idle.is_closed());
}

#[test]
fn stats_add_up_by_kind() {
    let server = start();
    server.put("/cache/pt2:fx-graph-v1::f:c1", &["X-Pilotlight-Compile-Ms: 2000"], &[0; 100]);
    server.get("/cache/pt2:fx-graph-v1::f:c1", &[]);
    server.get("/cache/pt2:fx-graph-v1::absent:c1", &[]);
    server.put("/cache/plain", &[], b"x");
    let stats = server.get("/api/stats", &[]).json();
    let fx = &stats["kinds"]["fx-graph"];
    assert_eq!((&fx["hits"], &fx["misses"], &fx["puts"]), (&1.into(), &1.into(), &1.into()));
    assert_eq!((&fx["hit_rate"], &fx["saved_seconds"]), (&0.5.into(), &0.0.into()));
    assert_eq!(stats["stock_graphs_seconds"], 2.0);
    assert_eq!((&fx["bytes_served"], &fx["bytes_received"]), (&100.into(), &100.into()));
    assert_eq!(stats["total"]["puts"], 2);
    assert_eq!(stats["usage"]["entries"], 2);
    assert_eq!(stats["stack"], "memory(1024 MiB)");
    assert_eq!(stats["connections"]["http_requests"], 5);
    assert!(stats["kinds"]["other"]["hit_rate"].is_null());
}

#[test]
fn entries_are_listed_page_by_page() {
    let server = start();
    for number in 0..25 {
        server.put(&format!("/cache/key{number}?namespace=n"), &[], b"abc");
    }
    let (mut cursor, mut keys) = (0, std::collections::BTreeSet::new());
    loop {
        let page = server.get(&format!("/api/entries?namespace=n&cursor={cursor}&limit=10"), &[]).json();
        for entry in page["entries"].as_array().unwrap() {
            assert_eq!((&entry["artifact_bytes"], &entry["kind"]), (&3.into(), &"other".into()));
            assert!(keys.insert(entry["key"].as_str().unwrap().to_owned()));
        }
        cursor = page["next_cursor"].as_u64().unwrap();
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(keys.len(), 25);
    assert_eq!(server.get("/api/entries?cursor=x", &[]).status, 400);
    assert_eq!(server.get("/api/entries", &[]).json()["entries"], serde_json::json!([]));
    assert_eq!(server.ask("DELETE", "/api/entries?namespace=n", &[], b"").json()["deleted"], 25);
}

#[test]
fn without_the_password_only_the_probes_answer() {
    let config = Config { password: Some("hunter2".to_owned()), ..Config::default() };
    let server = start_with(config, |clock| Arc::new(MemoryBackend::with_clock(1 << 20, clock)), |_| {});
    for target in ["/", "/cache/k", "/metrics", "/api/stats", "/api/entries"] {
        let answer = server.get(target, &[]);
        assert_eq!(answer.status, 401, "{target}");
        assert!(answer.header("www-authenticate").contains("Basic"), "{target}");
        assert_eq!(server.get(target, &["Authorization: Bearer wrong"]).status, 401, "{target}");
    }
    assert_eq!(server.put("/cache/k", &[], b"x").status, 401);
    assert_eq!(server.ask("POST", "/api/verify", &[], b"").status, 401);
    assert_eq!(server.get("/healthz", &[]).status, 200);
    assert_eq!(server.get("/readyz", &[]).status, 200);
    assert_eq!(server.put("/cache/k", &["Authorization: Bearer hunter2"], b"x").status, 201);
    // `user:hunter2`.
    assert_eq!(server.get("/cache/k", &["Authorization: Basic dXNlcjpodW50ZXIy"]).text(), "x");
}

/// A disk with 3 entries, one of them damaged; it checks one each time it is told to.
#[derive(Debug)]
struct Disk {
    go: Mutex<mpsc::Receiver<()>>,
    ended: Mutex<mpsc::Sender<u64>>,
}

impl Maintenance for Disk {
    fn verify(&self, progress: &mut dyn FnMut(&VerifyReport) -> ControlFlow<()>) -> Result<VerifyReport> {
        let mut report = VerifyReport { entries_total: 3, ..VerifyReport::default() };
        while report.entries_checked < 3 && self.go.lock().recv().is_ok() {
            report.entries_checked += 1;
            report.bytes_checked += 10;
            if report.entries_checked == 2 {
                report.damaged.push((Key::new("broken"), "digest".to_owned()));
            }
            if progress(&report).is_break() {
                break;
            }
        }
        let _ = self.ended.lock().send(report.entries_checked);
        Ok(report)
    }

    fn recompress(
        &self,
        _idle_before_ms: u64,
        _progress: &mut dyn FnMut(&RecompressReport) -> ControlFlow<()>,
    ) -> Result<RecompressReport> {
        Ok(RecompressReport::default())
    }

    fn pin(&self, key: &Key) -> Result<bool> {
        Ok(key.bytes() == "there")
    }

    fn unpin(&self, key: &Key) -> Result<bool> {
        self.pin(key)
    }

    fn group(&self, _leader: &Key, _keys: &[Key]) -> Result<usize> {
        Ok(0)
    }

    fn set_quota(&self, _namespace: &Namespace, _bytes_max: u64) -> Result<()> {
        Ok(())
    }

    fn collect(
        &self,
        what: Collect,
        progress: &mut dyn FnMut(&Collected) -> ControlFlow<()>,
    ) -> Result<Collected> {
        let found = Collected { orphans: if what == Collect::Run { 2 } else { 1 }, ..Collected::default() };
        let _ = progress(&Collected::default());
        Ok(found)
    }

    fn checkup(&self) -> Result<Checkup> {
        Ok(Checkup { orphans: 3, lost_files: 1, set_aside: 2, is_read_only: true, ..Checkup::default() })
    }

    fn about(&self) -> Result<StoreAbout> {
        Ok(StoreAbout { id: 7, namespaces: vec![Namespace::default()] })
    }

    fn export_page(
        &self,
        _namespace: &Namespace,
        _cursor: Cursor,
        _limit: usize,
        _is_wanted: &dyn Fn(&Key, &Head) -> bool,
        _each: &mut dyn FnMut(&Portable) -> ControlFlow<()>,
    ) -> Result<Exported> {
        Ok(Exported { next: Cursor::START, damaged: 2 })
    }

    fn import(&self, _portable: &Portable, _conflict: Conflict) -> Result<Imported> {
        Ok(Imported::New)
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn set_aside(&self, _key: &Key, _version: Version, _reason: &str) -> Result<bool> {
        Ok(true)
    }

    fn quarantine(&self) -> Result<Vec<SetAside>> {
        let key = Some(Key::new("pt2:fx-graph-v1::f:c1"));
        let reason = "digest".to_owned();
        Ok(vec![SetAside { number: 1, key, set_aside_ms: Some(5), bytes: 6, is_kept: true, reason }])
    }

    fn purge_quarantine(&self, before_ms: Option<u64>) -> Result<Purged> {
        Ok(Purged { count: before_ms.map_or(1, |before_ms| u64::from(before_ms > 5)), freed_bytes: 7 })
    }
}

fn with_disk() -> (Running, mpsc::Sender<()>, mpsc::Receiver<u64>) {
    let (go, wait) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    let disk = Disk { go: Mutex::new(wait), ended: Mutex::new(ended) };
    let server = start_with(
        Config::default(),
        |clock| Arc::new(MemoryBackend::with_clock(1 << 20, clock)),
        |server| server.maintenance = Some(Arc::new(disk)),
    );
    (server, go, end)
}

#[test]
fn pins_are_set_and_lifted_where_there_is_an_entry_and_a_disk() {
    let (server, ..) = with_disk();
    for method in ["PUT", "DELETE"] {
        assert_eq!(server.ask(method, "/api/pins/there", &[], b"").status, 204);
        let answer = server.ask(method, "/api/pins/not%2Fthere", &[], b"");
        assert_eq!((answer.status, answer.text().contains("no entry under this key")), (404, true));
    }
    let server =
        start_with(Config::default(), |clock| Arc::new(MemoryBackend::with_clock(1 << 20, clock)), |_| {});
    assert_eq!(server.ask("PUT", "/api/pins/there", &[], b"").status, 501);
}

#[test]
fn the_quarantine_is_listed_and_purged_by_age() {
    let (server, ..) = with_disk();
    let listed = server.get("/api/quarantine", &[]).json();
    let expected = serde_json::json!([{
        "number": 1, "key": "pt2:fx-graph-v1::f:c1", "namespace": "", "kind": "fx-graph", "set_aside_ms": 5,
        "bytes": 6, "is_kept": true, "reason": "digest",
    }]);
    assert_eq!(listed, expected);
    for (target, count) in [("", 1), ("?before_ms=5", 0), ("?before_ms=6", 1)] {
        let purged = server.ask("DELETE", &format!("/api/quarantine{target}"), &[], b"").json();
        assert_eq!(purged, serde_json::json!({"count": count, "freed_bytes": 7}));
    }
    assert_eq!(server.ask("DELETE", "/api/quarantine?before_ms=x", &[], b"").status, 400);
    assert_eq!(start().get("/api/quarantine", &[]).status, 501);
}

#[test]
fn the_doctor_says_what_is_wrong_and_what_to_do() {
    let (server, ..) = with_disk();
    let found = server.get("/api/doctor", &[]).json();
    let found = found.as_array().unwrap();
    let problems: Vec<_> = found.iter().filter(|one| one["is_problem"] == true).collect();
    let subjects: Vec<_> = problems.iter().map(|one| one["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["disk", "payload files", "payload files"]);
    assert!(found.iter().all(|one| one["hint"].is_string()), "{found:?}");
    assert_eq!(found.last().unwrap()["subject"], "quarantine");
    assert_eq!(start().get("/api/doctor", &[]).status, 501);
}

#[test]
fn a_collection_runs_or_is_only_planned_and_tells_progress() {
    let (server, ..) = with_disk();
    for (target, orphans) in [("/api/gc", 2), ("/api/gc?dry_run=false", 2), ("/api/gc?dry_run=true", 1)] {
        let text = server.ask("POST", target, &[], b"").text();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(
            (&lines[0]["progress"]["orphans"], &lines[1]["report"]["orphans"]),
            (&0.into(), &orphans.into())
        );
    }
    assert_eq!(server.ask("POST", "/api/gc?dry_run=perhaps", &[], b"").status, 400);
}

#[test]
fn verify_tells_progress_then_the_report() {
    let (server, go, _end) = with_disk();
    for _ in 0..3 {
        go.send(()).unwrap();
    }
    let answer = server.ask("POST", "/api/verify", &[], b"");
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-ndjson"));
    let text = answer.text();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.first().unwrap()["progress"]["entries_checked"], 1);
    let report = &lines.last().unwrap()["report"];
    assert_eq!((&report["entries_checked"], &report["damaged_count"]), (&3.into(), &1.into()));
    assert_eq!(report["damaged"], serde_json::json!([{"key": "broken", "reason": "digest"}]));
}

#[test]
fn verify_runs_once_at_a_time_and_stops_when_nobody_listens() {
    let (server, go, end) = with_disk();
    let mut first = server.connect();
    first.write(b"POST /api/verify HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(first.line(), "HTTP/1.1 200 OK");
    assert_eq!(server.ask("POST", "/api/verify", &[], b"").status, 409);
    drop(first);
    // The server notices the closed connection on its own time; entries are checked until it has.
    drop(go);
    assert!(end.recv_timeout(Duration::from_secs(60)).unwrap() < 3);
}

#[test]
fn verify_without_a_disk_is_501() {
    assert_eq!(start().ask("POST", "/api/verify", &[], b"").status, 501);
}
