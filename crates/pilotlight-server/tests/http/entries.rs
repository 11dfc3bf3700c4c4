//! `GET`, `HEAD`, `PUT`, `DELETE` of `/cache/KEY`.

use std::sync::Arc;

use pilotlight_cache::MemoryBackend;
use pilotlight_server::Config;

use crate::harness::{Running, start, start_with};

/// Every byte value, over and over.
fn artifact(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8).collect()
}

fn put(server: &Running, target: &str, body: &[u8]) -> String {
    let answer = server.put(target, &[], body);
    assert!(matches!(answer.status, 201 | 204), "{answer:?}");
    answer.header("etag").to_owned()
}

#[test]
fn an_entry_comes_back_whole_with_its_facts() {
    let server = start();
    for len in [0, 1, 100, 70_000, 5 << 20] {
        let body = artifact(len);
        let tag = put(&server, "/cache/ac/key", &body);
        server.clock.advance_ms(2500);
        let answer = server.get("/cache/ac/key", &[]);
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{len} bytes");
        assert_eq!(answer.header("etag"), tag);
        assert_eq!(answer.header("age"), "2");
        assert_eq!(answer.header("accept-ranges"), "bytes");
        assert_eq!(answer.header("content-length"), len.to_string());
        assert!(answer.header("last-modified").starts_with("Tue, 02 Jan 2024 03:04:"), "{answer:?}");
    }
}

#[test]
fn head_is_get_without_the_artifact_and_counts_no_lookup() {
    let server = start();
    put(&server, "/cache/k", b"12345");
    let head = server.ask("HEAD", "/cache/k", &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, "5"));
    let stats = server.get("/api/stats", &[]).json();
    assert_eq!(stats["total"]["hits"], 0);
    let get = server.get("/cache/k", &[]);
    for name in ["etag", "content-type", "last-modified", "content-length", "accept-ranges"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    assert_eq!(server.ask("HEAD", "/cache/absent", &[], b"").status, 404);
}

#[test]
fn put_says_whether_it_created_or_replaced() {
    let server = start();
    assert_eq!(server.put("/cache/k", &[], b"a").status, 201);
    assert_eq!(server.put("/cache/k", &[], b"b").status, 204);
    assert_eq!(server.get("/cache/k", &[]).body, b"b");
}

#[test]
fn an_absent_key_is_404_and_delete_says_so_too() {
    let server = start();
    let answer = server.get("/cache/k", &[]);
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["error"], "no entry under this key");
    put(&server, "/cache/k", b"a");
    assert_eq!(server.ask("DELETE", "/cache/k", &[], b"").status, 204);
    assert_eq!(server.ask("DELETE", "/cache/k", &[], b"").status, 404);
}

#[test]
fn if_none_match_star_refuses_an_overwrite() {
    let server = start();
    assert_eq!(server.put("/cache/k", &["If-None-Match: *"], b"first").status, 201);
    assert_eq!(server.put("/cache/k", &["If-None-Match: *"], b"second").status, 412);
    assert_eq!(server.get("/cache/k", &[]).body, b"first");
}

#[test]
fn if_none_match_on_get_is_304_while_the_entry_is_the_same() {
    let server = start();
    let tag = put(&server, "/cache/k", b"first");
    let condition = format!("If-None-Match: {tag}");
    let answer = server.get("/cache/k", &[&condition]);
    assert_eq!((answer.status, answer.header("etag")), (304, tag.as_str()));
    put(&server, "/cache/k", b"second");
    assert_eq!(server.get("/cache/k", &[&condition]).body, b"second");
}

#[test]
fn if_match_writes_only_over_the_entry_it_names() {
    let server = start();
    let first = format!("If-Match: {}", put(&server, "/cache/k", b"first"));
    let second = format!("If-Match: {}", put(&server, "/cache/k", b"second"));
    assert_eq!(server.put("/cache/k", &[&first], b"third").status, 412);
    assert_eq!(server.ask("DELETE", "/cache/k", &[&first], b"").status, 412);
    assert_eq!(server.put("/cache/k", &[&second], b"third").status, 204);
    assert_eq!(server.put("/cache/absent", &["If-Match: *"], b"x").status, 412);
    assert_eq!(server.get("/cache/k", &[]).body, b"third");
}

#[test]
fn a_range_is_a_part_and_several_are_the_whole() {
    let server = start();
    put(&server, "/cache/k", b"0123456789");
    for (range, status, body, content_range) in [
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=-3", 206, "789", "bytes 7-9/10"),
        ("bytes=8-", 206, "89", "bytes 8-9/10"),
        ("bytes=8-100", 206, "89", "bytes 8-9/10"),
        ("bytes=0-1,4-5", 200, "0123456789", ""),
        ("lines=1-2", 200, "0123456789", ""),
    ] {
        let answer = server.get("/cache/k", &[&format!("Range: {range}")]);
        let found = (answer.status, answer.text(), answer.header("content-range").to_owned());
        assert_eq!(found, (status, body.to_owned(), content_range.to_owned()), "{range}");
    }
}

#[test]
fn a_range_past_the_end_is_416() {
    let server = start();
    put(&server, "/cache/k", b"0123456789");
    let answer = server.get("/cache/k", &["Range: bytes=10-"]);
    assert_eq!((answer.status, answer.header("content-range")), (416, "bytes */10"));
}

#[test]
fn if_range_of_another_entry_answers_the_whole() {
    let server = start();
    let old = put(&server, "/cache/k", b"old");
    let new = put(&server, "/cache/k", b"0123456789");
    let get = |tag: &str| server.get("/cache/k", &["Range: bytes=0-1", &format!("If-Range: {tag}")]);
    assert_eq!(get(&new).text(), "01");
    assert_eq!(get(&old).text(), "0123456789");
}

#[test]
fn an_entry_expires_when_its_put_said() {
    let server = start();
    for (target, header) in [
        ("/cache/a", "X-Pilotlight-TTL-Seconds: 10"),
        ("/cache/b", "Cache-Control: no-transform, max-age=10"),
    ] {
        server.put(target, &[header], b"x");
        assert!(server.get(target, &[]).header("expires").ends_with(" GMT"));
        server.clock.advance_ms(9_999);
        assert_eq!(server.get(target, &[]).status, 200);
        server.clock.advance_ms(1);
        assert_eq!(server.get(target, &[]).status, 404);
    }
    server.put("/cache/c", &["Cache-Control: max-age=0"], b"x");
    assert_eq!(server.get("/cache/c", &[]).status, 200);
    for wrong in ["0", "-1", "soon", "1.5"] {
        let answer = server.put("/cache/d", &[&format!("X-Pilotlight-TTL-Seconds: {wrong}")], b"x");
        assert_eq!(answer.status, 400, "{wrong}");
    }
    // The largest number there is: no overflow, and a date that can be written.
    let ever = format!("X-Pilotlight-TTL-Seconds: {}", u64::MAX);
    assert_eq!(server.put("/cache/e", &[&ever], b"x").status, 201);
    assert_eq!(server.get("/cache/e", &[]).header("expires"), "Fri, 31 Dec 9999 23:59:59 GMT");
}

#[test]
fn the_compile_time_travels_with_the_entry() {
    let server = start();
    server.put("/cache/k", &["X-Pilotlight-Compile-Ms: 1500"], b"x");
    assert_eq!(server.get("/cache/k", &[]).header("x-pilotlight-compile-ms"), "1500");
    assert_eq!(server.get("/api/stats", &[]).json()["total"]["saved_seconds"], 1.5);
}

#[test]
fn namespaces_do_not_see_each_other() {
    let server = start();
    put(&server, "/cache/k", b"default");
    put(&server, "/cache/k?namespace=team", b"team");
    assert_eq!(server.get("/cache/k", &[]).text(), "default");
    assert_eq!(server.get("/cache/k?namespace=team", &[]).text(), "team");
    assert_eq!(server.get("/cache/k?namespace=other", &[]).status, 404);
}

#[test]
fn a_key_may_hold_any_bytes() {
    let server = start();
    put(&server, "/cache/%00%FF%0D%0A/x", b"odd");
    assert_eq!(server.get("/cache/%00%ff%0d%0a%2Fx", &[]).text(), "odd");
    let entry = &server.get("/api/entries", &[]).json()["entries"][0];
    assert_eq!(entry["key_base64"], "AP8NCi94");
}

#[test]
fn a_put_over_the_limit_is_413_announced_or_not() {
    let config = Config { entry_bytes_max: 1000, ..Config::default() };
    let server = start_with(config, |clock| Arc::new(MemoryBackend::with_clock(1 << 20, clock)), |_| {});
    assert_eq!(server.put("/cache/k", &[], &[0; 1000]).status, 201);
    let refused = server.put("/cache/k2", &[], &[0; 1001]);
    assert_eq!(refused.status, 413);
    assert_eq!(refused.json()["error"], "entry of 1001 bytes, expected at most 1000");
    assert_eq!(refused.json()["hint"], "raise `--max-entry-size`, or `--max-size` if that is the smaller");
    let mut connection = server.connect();
    connection.write(b"PUT /cache/k3 HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n");
    for _ in 0..2 {
        connection.write(format!("258\r\n{}\r\n", "x".repeat(600)).as_bytes());
    }
    assert_eq!(connection.answer("PUT").status, 413);
    assert_eq!(server.get("/cache/k3", &[]).status, 404);
}

#[test]
fn a_client_that_asks_first_need_not_send_what_is_refused() {
    let server = start();
    put(&server, "/cache/k", b"here");
    let mut connection = server.connect();
    let head = "PUT /cache/k HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\nexpect: 100-continue\r\n";
    connection.write(format!("{head}if-none-match: *\r\n\r\n").as_bytes());
    assert_eq!(connection.answer("PUT").status, 412);
    let mut connection = server.connect();
    connection.write(format!("{head}\r\n").as_bytes());
    assert_eq!(connection.answer("PUT").status, 100);
    connection.write(b"12345");
    assert_eq!(connection.answer("PUT").status, 204);
}

#[test]
fn a_chunked_upload_arrives_whole() {
    let server = start();
    let mut connection = server.connect();
    connection.write(b"PUT /cache/k HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n");
    for _ in 0..100 {
        connection.write(b"a\r\n0123456789\r\n");
    }
    connection.write(b"0\r\n\r\n");
    assert_eq!(connection.answer("PUT").status, 201);
    assert_eq!(server.get("/cache/k", &[]).text(), "0123456789".repeat(100));
}

#[test]
fn a_full_cache_is_507_also_where_redis_clients_are_told_nil() {
    let server =
        start_with(Config::default(), |clock| Arc::new(MemoryBackend::with_clock(10, clock)), |_| {});
    for key in ["plain", "pt2:fx-graph-v1::f:c1"] {
        assert_eq!(server.put(&format!("/cache/{key}"), &[], &[0; 100]).status, 507, "{key}");
    }
    assert_eq!(server.get("/api/stats", &[]).json()["refused_puts"]["full"], 1);
}
