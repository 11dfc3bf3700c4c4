//! Users over HTTP: who asks, and what they may.

use std::sync::Arc;

use pilotlight_cache::MemoryBackend;
use pilotlight_server::Config;
use pilotlight_server::access::{Access, Audit, Secret};

use crate::harness::{Running, start_with};

const USERS: &str = r#"
[users.root]
secret = "SECRET(root)"
grants = ["rwa *"]
[users.ci]
secret = "SECRET(ci)"
home = "ci"
grants = ["rw ci", "r release:fx-graph"]
[users.none]
secret = "SECRET(none)"
[users.fast]
secret = "SECRET(fast)"
grants = ["r *"]
rate = "1/min"
[namespaces.ci]
trust = "low"
reads = ["release"]
"#;
const GRAPH: &str = "pt2%3Afx-graph-v1%3A%3Af%3Ac1";

struct Users {
    directory: tempfile::TempDir,
    running: Running,
    secrets: Vec<(&'static str, Secret)>,
}

fn start() -> Users {
    let secrets: Vec<_> =
        ["root", "ci", "none", "fast"].into_iter().map(|name| (name, Secret::generate().unwrap())).collect();
    let directory = tempfile::tempdir().unwrap();
    let mut text = USERS.to_owned();
    for (name, secret) in &secrets {
        text = text.replace(&format!("SECRET({name})"), &secret.hash().to_string());
    }
    let path = directory.path().join("users.toml");
    std::fs::write(&path, text).unwrap();
    let audit = Audit::open(&directory.path().join("audit")).unwrap();
    let access = Access::of_file(&path, None).unwrap().with_audit(audit);
    let running = start_with(
        Config::default(),
        |clock| Arc::new(MemoryBackend::with_clock(1 << 30, clock)),
        |server| server.access = Arc::new(access),
    );
    Users { directory, running, secrets }
}

impl Users {
    fn status(&self, name: &str, method: &str, target: &str) -> u16 {
        self.ask(name, method, target).status
    }

    fn ask(&self, name: &str, method: &str, target: &str) -> crate::harness::Answer {
        let (_, secret) = self.secrets.iter().find(|(other, _)| *other == name).unwrap();
        let header = format!("Authorization: Bearer {}", secret.as_str());
        let body: &[u8] = if method == "PUT" { name.as_bytes() } else { b"" };
        self.running.ask(method, target, &[&header], body)
    }
}

#[test]
fn every_route_asks_for_the_right_that_it_needs() {
    let users = start();
    for (method, target, root, ci, none) in [
        ("GET", "/", 200, 200, 200),
        ("GET", "/api/user", 200, 200, 200),
        ("PUT", "/cache/k", 201, 201, 403),
        ("GET", "/cache/k", 200, 200, 403),
        ("HEAD", "/cache/k", 200, 200, 403),
        ("GET", "/cache/k?namespace=", 200, 403, 403),
        ("GET", "/cache/k?namespace=other", 404, 403, 403),
        ("PUT", "/cache/k?namespace=release", 201, 403, 403),
        ("GET", "/cache/k?namespace=release", 200, 403, 403),
        ("GET", "/cache/pt2%3Afx-graph-v1%3A%3Ax%3Ac1?namespace=release", 404, 404, 403),
        ("PUT", "/api/pins/k", 501, 403, 403),
        ("DELETE", "/api/pins/k", 501, 403, 403),
        ("GET", "/api/entries", 200, 200, 403),
        ("GET", "/api/entries?namespace=other", 200, 403, 403),
        ("GET", "/api/stats", 200, 200, 403),
        ("GET", "/metrics", 200, 200, 403),
        ("GET", "/api/export", 501, 403, 403),
        ("POST", "/api/import", 501, 403, 403),
        ("POST", "/api/verify", 501, 403, 403),
        ("POST", "/api/gc", 501, 403, 403),
        ("GET", "/api/doctor", 501, 403, 403),
        ("GET", "/api/store", 501, 403, 403),
        ("GET", "/api/quarantine", 501, 403, 403),
        ("DELETE", "/api/quarantine", 501, 403, 403),
        ("DELETE", "/api/entries", 200, 403, 403),
    ] {
        for (name, expected) in [("root", root), ("ci", ci), ("none", none)] {
            assert_eq!(users.status(name, method, target), expected, "{name}: {method} {target}");
        }
        let stranger = users.running.ask(method, target, &[], b"");
        assert_eq!(stranger.status, 401, "{method} {target}");
        assert!(stranger.header("www-authenticate").contains("Bearer"));
    }
    for open in ["/healthz", "/readyz"] {
        assert_eq!(users.running.get(open, &[]).status, 200);
    }
}

#[test]
fn a_user_is_at_home_where_no_namespace_is_named() {
    let users = start();
    assert_eq!(users.status("ci", "PUT", "/cache/k"), 201);
    assert_eq!(users.ask("root", "GET", "/cache/k?namespace=ci").text(), "ci");
    assert_eq!(users.status("root", "GET", "/cache/k"), 404);
    let listed = users.ask("ci", "GET", "/api/entries").json();
    assert_eq!(listed["entries"][0]["key"], "k");
    let who = users.ask("ci", "GET", "/api/user").json();
    assert_eq!(
        who,
        serde_json::json!({"name": "ci", "home": "ci", "grants": ["rw ci", "r release:fx-graph"]})
    );
}

#[test]
fn what_was_put_first_stays_but_for_administrators() {
    let users = start();
    let at = "/cache/k?namespace=ci";
    assert_eq!(users.status("ci", "PUT", at), 201);
    let refused = users.ask("ci", "PUT", at);
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("in namespace `ci` who puts first wins"), "{}", refused.text());
    assert_eq!(users.status("ci", "DELETE", at), 403);
    assert_eq!(users.status("ci", "DELETE", "/cache/absent?namespace=ci"), 403);
    assert_eq!(users.ask("ci", "GET", at).text(), "ci");
    assert_eq!(users.status("root", "PUT", at), 204);
    assert_eq!(users.status("root", "DELETE", at), 204);
}

#[test]
fn a_miss_goes_on_and_so_does_a_look_at_the_head() {
    let users = start();
    let (release, home) = (format!("/cache/{GRAPH}?namespace=release"), format!("/cache/{GRAPH}"));
    assert_eq!(users.status("root", "PUT", &release), 201);
    let found = users.ask("ci", "GET", &home);
    assert_eq!((found.status, found.text().as_str()), (200, "root"));
    assert_eq!(users.ask("ci", "HEAD", &home).header("etag"), found.header("etag"));
    let (_, secret) = &users.secrets[1];
    let headers = [
        format!("Authorization: Bearer {}", secret.as_str()),
        format!("If-None-Match: {}", found.header("etag")),
    ];
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    assert_eq!(users.running.get(&home, &headers).status, 304);
    // A kind that was not granted there.
    assert_eq!(users.status("root", "PUT", "/cache/cpp-kernel%3Ak?namespace=release"), 201);
    assert_eq!(users.status("ci", "GET", "/cache/cpp-kernel%3Ak"), 404);
    assert_eq!(users.status("ci", "PUT", &home), 201, "its own namespace has none");
    assert_eq!(users.ask("root", "GET", &release).text(), "root");
}

#[test]
fn who_asks_too_often_is_told_when_to_come_back() {
    let users = start();
    assert_eq!(users.status("fast", "GET", "/cache/k"), 404);
    let refused = users.ask("fast", "GET", "/cache/k");
    assert_eq!(refused.status, 429);
    assert!(refused.text().contains("rate"), "{}", refused.text());
    assert_eq!(users.ask("root", "GET", "/api/stats").json()["connections"]["throttled"], 1);
}

#[test]
fn what_was_refused_and_changed_is_counted_and_noted() {
    let users = start();
    users.status("ci", "PUT", "/cache/precious");
    users.status("ci", "GET", "/cache/precious");
    users.status("none", "GET", "/cache/precious?namespace=ci");
    users.status("root", "POST", "/api/verify");
    users.running.get("/cache/k", &["Authorization: Bearer wrong"]);
    let stats = users.ask("root", "GET", "/api/stats").json();
    assert_eq!(stats["connections"]["denied"], 1);
    assert_eq!(stats["connections"]["logins_failed"], 1);
    let metrics = users.ask("root", "GET", "/metrics").text();
    assert!(
        metrics.contains("\npilotlight_denied_total 1\n")
            && metrics.contains("\npilotlight_logins_failed_total 1\n")
    );
    let path = users.directory.path().join("audit");
    drop(users.running);
    let text = std::fs::read_to_string(path).unwrap();
    let told: Vec<String> = text
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let field = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
            format!("{} {} {} {}", field("user"), field("action"), field("namespace"), field("outcome"))
        })
        .collect();
    assert_eq!(
        told,
        [
            "ci PUT /cache ci ok",
            "none GET /cache ci denied",
            "root POST /api/verify  failed",
            "? login - denied",
        ],
        "{text}"
    );
    assert!(!text.contains("precious") && !text.contains("wrong"), "{text}");
}

#[test]
fn guessing_over_http_waits_too() {
    let config = Config { password: Some("hunter2".to_owned()), ..Config::default() };
    let running = start_with(config, |clock| Arc::new(MemoryBackend::with_clock(1 << 20, clock)), |_| {});
    for number in 0..6 {
        let header = format!("Authorization: Bearer guess{number}");
        assert_eq!(running.get("/cache/k", &[&header]).status, 401);
    }
    let began = std::time::Instant::now();
    assert_eq!(running.get("/cache/k", &["Authorization: Bearer hunter2"]).status, 404);
    assert!(began.elapsed().as_millis() >= 200, "{:?}", began.elapsed());
}
