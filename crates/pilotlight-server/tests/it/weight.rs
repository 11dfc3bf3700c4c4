//! What idle connections weigh: both ends of them, which are in this process.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;

use pilotlight_server::Server;

use crate::client::Client;

/// Runs the ignored test `name` in a process of its own: what other tests allocate would be counted too.
pub(crate) fn alone(name: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// The bytes that each of `count` connections to `server` takes while it is idle, after it was busy with something large. Both
/// ends take file descriptors of one limit, which is often 1024.
pub(crate) fn of_idle<S: Read + Write>(server: &Server, count: u64, connect: impl Fn() -> Client<S>) -> u64 {
    let value = "x".repeat(60_000);
    connect().call(&["SET", "k", &value]);
    let before = resident_bytes();
    let clients: Vec<_> = (0..count)
        .map(|_| {
            let mut client = connect();
            client.call(&["GET", "k"]);
            client.call(&["SET", "k", &value]);
            client.shrink();
            client
        })
        .collect();
    let each = resident_bytes().saturating_sub(before) / count;
    assert!(server.stats.connections_open.load(Relaxed) >= count);
    drop(clients);
    each
}

/// Resident memory of this process, in bytes.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
