//! `PILOTLIGHT.GROUP`: entries that are evicted together or not at all.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use pilotlight_cache::{
    DiskBackend, DiskOptions, Durability, GROUP_ENTRIES_MAX, Inline, KEY_LEN_MAX, SystemClock,
};

use crate::client::{Client, Running};

fn open(dir: &Path) -> Arc<DiskBackend> {
    let options = DiskOptions {
        dir: dir.to_owned(),
        max_bytes: 12 << 20,
        durability: Durability::Relaxed,
        clock: Arc::new(SystemClock),
        blocking: Arc::new(Inline),
        signers: None,
    };
    DiskBackend::open(options).unwrap()
}

const AOT: &str = "pt2:autograd-experimental::aabc:c1";
const MEMBERS: [&str; 4] = [AOT, "pt2:fx-graph-v1::fabc:c1", "pt2:fx-graph-v1::fdef:c1", "pilotlight:cpp:k1"];

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn set(client: &mut Client<TcpStream>, key: &str, seed: u64, len: usize) {
    let value = noise(seed, len);
    assert_eq!(client.call(&[b"SET".as_slice(), key.as_bytes(), &value]), b"+OK\r\n");
}

fn group(client: &mut Client<TcpStream>, keys: &[&str]) -> String {
    let args: Vec<&str> = ["PILOTLIGHT.GROUP"].iter().chain(keys).copied().collect();
    String::from_utf8(client.call(&args)).unwrap()
}

fn exist(client: &mut Client<TcpStream>) -> String {
    client.ask(&format!("EXISTS {}", MEMBERS.join(" ")))
}

/// More than the store holds, and used: it pushes out what is not.
fn storm(client: &mut Client<TcpStream>, round: u64) {
    for index in 0..400 {
        set(client, &format!("storm-{round}-{index}"), round << 32 | index, 60_000);
        client.ask(&format!("TOUCH storm-{round}-{index}"));
    }
}

#[test]
fn a_group_is_evicted_as_a_whole_and_kept_as_a_whole_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(&open(dir.path()));
    let mut client = running.connect();
    for (seed, key) in (0..).zip(MEMBERS) {
        set(&mut client, key, seed, if seed % 2 == 0 { 500 } else { 50_000 });
    }
    assert_eq!(group(&mut client, &MEMBERS), ":4\r\n");
    drop(running);
    let disk = open(dir.path());
    let running = Running::on(&disk);
    let mut client = running.connect();
    assert_eq!(group(&mut client, &MEMBERS), ":4\r\n", "they are in it still");
    // One that may not leave keeps the others.
    let pinned = pilotlight_cache::Key::new(MEMBERS[2]);
    pilotlight_cache::Maintenance::pin(&*disk, &pinned).unwrap();
    storm(&mut client, 1);
    assert_eq!(exist(&mut client), ":4\r\n");
    pilotlight_cache::Maintenance::unpin(&*disk, &pinned).unwrap();
    storm(&mut client, 2);
    storm(&mut client, 3);
    assert_eq!(exist(&mut client), ":0\r\n");
}

#[test]
fn who_is_not_there_or_in_another_group_is_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(&open(dir.path()));
    let mut client = running.connect();
    assert_eq!(group(&mut client, &["absent", "a"]), ":0\r\n");
    for key in ["a", "b", "c", "d"] {
        set(&mut client, key, 1, 100);
    }
    assert_eq!(group(&mut client, &["absent", "a"]), ":0\r\n");
    assert_eq!(group(&mut client, &["a", "b", "absent"]), ":2\r\n");
    assert_eq!(group(&mut client, &["c", "b", "d"]), ":2\r\n", "b is needed by both");
    assert_eq!(group(&mut client, &["a", "b"]), ":1\r\n");
    // Each database has its own.
    assert_eq!(client.ask("SELECT 1"), "+OK\r\n");
    assert_eq!(group(&mut client, &["a", "c"]), ":0\r\n");
    // What is put over an entry is in its group.
    client.ask("SELECT 0");
    set(&mut client, "a", 2, 70_000);
    set(&mut client, "d", 2, 70_000);
    assert_eq!(group(&mut client, &["c", "d", "a"]), ":2\r\n");
}

#[test]
fn what_was_staged_in_the_same_pipeline_joins_too() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(&open(dir.path()));
    let mut client = running.connect();
    client.send(b"SET a 1\r\nSET b 2\r\nPILOTLIGHT.GROUP a b\r\n");
    let replies: Vec<Vec<u8>> = (0..3).map(|_| client.reply()).collect();
    assert_eq!(replies, [b"+OK\r\n".as_slice(), b"+OK\r\n", b":2\r\n"]);
}

#[test]
fn too_many_or_too_long_keys_are_refused_and_memory_has_no_groups() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(&open(dir.path()));
    let mut client = running.connect();
    let keys: Vec<String> = (0..=GROUP_ENTRIES_MAX).map(|index| format!("k{index}")).collect();
    let mut keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    assert_eq!(group(&mut client, &keys), "-ERR at most 1024 keys are a group\r\n");
    keys.pop();
    assert_eq!(group(&mut client, &keys), ":0\r\n");
    let long = "k".repeat(KEY_LEN_MAX + 1);
    assert!(group(&mut client, &["a", &long]).starts_with("-ERR key"));
    assert!(client.ask("PILOTLIGHT.GROUP a").starts_with("-ERR wrong number of arguments"));
    let running = Running::start();
    let mut client = running.connect();
    client.ask("MSET a 1 b 2");
    assert_eq!(group(&mut client, &["a", "b"]), ":0\r\n");
}
