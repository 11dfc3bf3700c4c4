//! `pin` and `unpin`.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::{Home, Serving, expect};

#[test]
fn pins_are_set_and_lifted_and_seen() {
    let home = Home::new();
    let server = home.serve(&[]);
    let url = server.url();
    for key in ["a/b", "c"] {
        home.run_with(&["put", key, "--server", &url], b"x");
    }
    let pinned = || -> Vec<String> {
        let output = home.output(&["ls", "--json", "--server", &url], b"");
        let entries: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        let pinned = entries.iter().filter(|entry| entry["is_pinned"] == true);
        pinned.map(|entry| entry["key"].as_str().unwrap().to_owned()).collect()
    };
    expect(&home.run(&["pin", "a/b", "--server", &url]), "exit 0\nerr: pinned 1 entry");
    assert_eq!(pinned(), ["a/b"]);
    expect(&home.run(&["pin", "c", "d", "--server", &url]), "exit 1\nerr: pinned 1 entry, 1 absent");
    expect(&home.run(&["unpin", "a/b", "c", "--server", &url]), "exit 0\nerr: unpinned 2 entries");
    assert!(pinned().is_empty());
}

#[test]
fn more_pins_than_half_of_the_space_are_refused_with_two_ways_on() {
    let home = Home::new();
    let server = home.serve(&["--max-size", "64MiB"]);
    // Nothing that compresses.
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    });
    let noise: Vec<u8> = noise.take(10 << 20).flat_map(u32::to_le_bytes).collect();
    let file = home.write("noise", noise);
    let put = home.run(&["put", "k", &file, "--server", &server.url()]);
    assert!(put.starts_with("exit 0"), "{put}");
    let text = home.run(&["pin", "k", "--server", &server.url()]);
    assert!(
        text.starts_with("exit 2\n") && text.contains(" bytes would be pinned, expected at most "),
        "{text}"
    );
    assert!(text.contains("hint: unpin other entries") && text.contains("`--max-size`"), "{text}");
}

/// The ETag of the entry `k`.
fn tag(server: &Serving) -> String {
    let address = server.addresses["http"][0].as_str().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"HEAD /cache/k HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned()
}

#[test]
fn a_pin_and_its_end_change_the_etag() {
    let home = Home::new();
    let server = home.serve(&[]);
    home.run_with(&["put", "k", "--server", &server.url()], b"x");
    let mut tags = vec![tag(&server)];
    for command in ["pin", "unpin"] {
        assert!(home.run(&[command, "k", "--server", &server.url()]).starts_with("exit 0\n"));
        tags.push(tag(&server));
        // Once more changes nothing.
        home.run(&[command, "k", "--server", &server.url()]);
        assert_eq!(tags.last(), Some(&tag(&server)));
    }
    tags.dedup();
    assert_eq!(tags.len(), 3, "{tags:?}");
}
