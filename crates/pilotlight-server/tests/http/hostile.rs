//! Requests that no honest client sends.

use crate::harness::start;

#[test]
fn a_path_that_climbs_is_a_key_like_any_other() {
    let server = start();
    for target in ["/cache/../../etc/passwd", "/cache/%2e%2e/%2e%2e/etc/passwd", "/cache//etc/passwd"] {
        assert_eq!(server.get(target, &[]).status, 404, "{target}");
    }
    assert_eq!(server.put("/cache/../secret", &[], b"x").status, 201);
    assert_eq!(server.get("/secret", &[]).status, 404);
    assert_eq!(server.get("/cache/..%2Fsecret", &[]).text(), "x");
}

#[test]
fn nonsense_is_refused_and_the_connection_closed() {
    let server = start();
    for nonsense in
        ["\r\n\r\n\r\nGARBAGE\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "*1\r\n$4\r\nPING\r\n\r\n"]
    {
        let mut connection = server.connect();
        connection.write(nonsense.as_bytes());
        assert_eq!(connection.answer("GET").status, 400, "{nonsense:?}");
        assert!(connection.is_closed(), "{nonsense:?}");
    }
    assert_eq!(server.get("/healthz", &[]).status, 200);
}

#[test]
fn a_request_line_without_end_is_refused() {
    let server = start();
    let mut connection = server.connect();
    connection.write(format!("GET /cache/{} HTTP/1.1\r\n\r\n", "k".repeat(70_000)).as_bytes());
    assert_eq!(connection.answer("GET").status, 414);
    // The longest key fits in percent-encoding.
    assert_eq!(server.get(&format!("/cache/{}", "%00".repeat(16 << 10)), &[]).status, 404);
    assert_eq!(server.get(&format!("/cache/{}", "k".repeat((16 << 10) + 1)), &[]).status, 414);
}

#[test]
fn headers_without_end_are_refused() {
    let server = start();
    let mut connection = server.connect();
    let headers: String = (0..200).map(|number| format!("h{number}: x\r\n")).collect();
    connection.write(format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes());
    assert_eq!(connection.answer("GET").status, 431);
}

#[test]
fn a_body_that_breaks_off_stores_nothing() {
    let server = start();
    let mut connection = server.connect();
    connection.write(b"PUT /cache/k HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\nonly this");
    drop(connection);
    let mut connection = server.connect();
    connection.write(b"PUT /cache/k HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n");
    assert_eq!(connection.answer("PUT").status, 400);
    assert_eq!(server.get("/cache/k", &[]).status, 404);
}

#[test]
fn what_a_web_page_has_a_browser_send_changes_nothing() {
    let server = start();
    server.put("/cache/k", &[], b"kept");
    // Of a foreign page, of one without an origin, and of one whose name was made to lead here.
    for origin in ["https://evil.example", "null", "http://test"] {
        for (method, target) in [
            ("PUT", "/cache/k"),
            ("DELETE", "/cache/k"),
            ("DELETE", "/api/entries"),
            ("POST", "/api/import"),
            ("POST", "/api/gc"),
        ] {
            let answer = server.ask(method, target, &[&format!("origin: {origin}")], b"evil");
            assert_eq!(answer.status, 403, "{method} {target} of {origin}");
            assert_eq!(answer.json()["error"], "a web page may change nothing here");
        }
    }
    // Asked beforehand whether pages may do more, it does not say that they may.
    let asked = server.ask("OPTIONS", "/cache/k", &["access-control-request-method: PUT"], b"");
    assert_eq!((asked.status, asked.header("access-control-allow-origin")), (405, ""));
    assert_eq!(server.get("/cache/k", &["origin: https://evil.example"]).text(), "kept");
}

#[test]
fn unknown_paths_and_methods_say_where_to_look() {
    let server = start();
    for (method, target, status) in [
        ("GET", "/nowhere", 404),
        ("GET", "/cache", 404),
        ("GET", "/cache/", 404),
        ("POST", "/cache/k", 405),
        ("DELETE", "/metrics", 405),
        ("GET", "/api/verify", 405),
        ("TRACE", "/healthz", 405),
    ] {
        let answer = server.ask(method, target, &[], b"");
        assert_eq!(answer.status, status, "{method} {target}");
        assert_eq!(answer.json()["hint"], "`GET /` lists what there is", "{method} {target}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = start();
    server.put("/cache/a", &[], b"first");
    server.put("/cache/b", &[], b"second");
    let mut connection = server.connect();
    connection.write(b"GET /cache/a HTTP/1.1\r\nhost: t\r\n\r\nGET /cache/b HTTP/1.1\r\nhost: t\r\n\r\n");
    assert_eq!(connection.answer("GET").text(), "first");
    assert_eq!(connection.answer("GET").text(), "second");
}

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `GET / http`, to the authority `t`: from HPACK's static table.
const HTTP2_GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b't'];

#[test]
fn http2_clients_are_told_how_much_they_may_have_at_a_time() {
    let server = start();
    let mut connection = server.connect();
    connection.write(&[HTTP2_PREFACE, &frame(4, 0, 0, &[])].concat());
    let head = connection.bytes(9);
    assert_eq!(head[3], 4, "settings come first: {head:?}");
    let settings = connection.bytes(usize::from(head[2]));
    let told = |id: u8| {
        let pair = settings.chunks(6).find(|pair| pair[..2] == [0, id]).unwrap();
        u32::from_be_bytes(pair[2..].try_into().unwrap())
    };
    let (streams, window, headers) = (told(3), told(4), told(6));
    assert_eq!((streams, window, headers), (128, 1 << 20, 64 << 10));
    // Of all streams together: what is added to the 65,535 bytes that a connection begins with.
    let added = loop {
        let head = connection.bytes(9);
        let payload = connection.bytes(usize::from(head[2]));
        if head[3] == 8 && head[5..] == [0; 4] {
            break u32::from_be_bytes(payload.try_into().unwrap());
        }
    };
    assert_eq!(added + 65_535, 4 << 20);
}

#[test]
fn streams_that_are_reset_at_once_end_the_connection() {
    let server = start();
    let mut connection = server.connect();
    connection.write(&[HTTP2_PREFACE, &frame(4, 0, 0, &[])].concat());
    let streams = (0..10_000_u32).map(|number| number * 2 + 1);
    let attack: Vec<u8> = streams
        .flat_map(|stream| [frame(1, 5, stream, HTTP2_GET), frame(3, 0, stream, &[0, 0, 0, 8])].concat())
        .collect();
    connection.write_what_is_taken(&attack);
    connection.until_closed();
    assert_eq!(server.get("/healthz", &[]).status, 200);
}

#[test]
fn headers_that_go_on_without_end_are_refused_over_http2_too() {
    let server = start();
    let mut connection = server.connect();
    connection.write(&[HTTP2_PREFACE, &frame(4, 0, 0, &[]), &frame(1, 1, 1, HTTP2_GET)].concat());
    // A literal header without indexing, `x: xxx...`, in one CONTINUATION after the other, none of them the last.
    let value = [&[0, 1, b'x', 0x7f, 0x80, 0x1f][..], &[b'x'; 4000]].concat();
    let flood: Vec<u8> = (0..4000).flat_map(|_| frame(9, 0, 1, &value)).collect();
    connection.write_what_is_taken(&flood);
    connection.until_closed();
    assert_eq!(server.get("/healthz", &[]).status, 200);
}
