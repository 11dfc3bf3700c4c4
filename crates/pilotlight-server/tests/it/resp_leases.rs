//! Compile once per fleet: stock clients that wait without knowing, and our own client's leases.

use std::net::TcpStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pilotlight_cache::leases::LeaseCounts;
use pilotlight_cache::{ErrorKind, Kind, MemoryBackend, Outcome, SystemClock};
use pilotlight_server::Config;

use crate::client::{Client, Running, array, config};
use crate::faults::Faulty;

const FX: &str = "pt2:fx-graph-v1::fabc:c1";
const OTHER_FX: &str = "pt2:fx-graph-v1::fxyz:c1";
const KERNEL: &str = "cpp-kernel:abc";
const NIL: &str = "$-1\r\n";

/// Far beyond what a test takes, so that only what ends a wait early can end it.
fn patient() -> Running {
    with_wait(Duration::from_secs(600))
}

fn with_wait(lease_wait: Duration) -> Running {
    let config = Config { lease_wait, ..config() };
    Running::with(Arc::new(MemoryBackend::new(1 << 30)), config, Arc::new(SystemClock))
}

fn counts(running: &Running) -> LeaseCounts {
    running.server.cache.leases().counts()
}

/// Asks on a connection of its own, and returns once `waiting` lookups wait.
fn ask_and_wait(running: &Running, line: &str, waiting: u64) -> JoinHandle<(Client<TcpStream>, String)> {
    let (mut client, line) = (running.connect(), line.to_owned());
    let asking = std::thread::spawn(move || {
        let reply = client.ask(&line);
        (client, reply)
    });
    until(|| counts(running).waiting == waiting);
    asking
}

fn until(holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "it never came to that");
        std::thread::yield_now();
    }
}

fn get(key: &str) -> String {
    format!("GET {key}")
}

fn set(key: &str) -> String {
    format!("SET {key} value")
}

const VALUE: &str = "$5\r\nvalue\r\n";

#[test]
fn a_get_of_what_somebody_compiles_waits_for_the_put() {
    let running = patient();
    let mut leader = running.connect();
    assert_eq!(leader.ask(&get(FX)), NIL);
    let followers: Vec<_> = (1..=3).map(|n| ask_and_wait(&running, &get(FX), n)).collect();
    assert_eq!(leader.ask(&set(FX)), "+OK\r\n");
    for follower in followers {
        assert_eq!(follower.join().unwrap().1, VALUE);
    }
    let counts = counts(&running);
    assert_eq!((counts.granted, counts.followed, counts.looked, counts.open), (1, 3, 3, 0));
    let seen = running.server.cache.stats().snapshot().cache[Kind::FxGraph as usize];
    assert_eq!((seen[Outcome::Miss as usize], seen[Outcome::Hit as usize]), (1, 3), "each is one lookup");
}

#[test]
fn the_compile_time_of_what_followers_got_is_counted() {
    let running = patient();
    let mut leader = running.connect();
    assert_eq!(leader.ask(&get(FX)), NIL);
    let follower = ask_and_wait(&running, &get(FX), 1);
    let json = format!("{{\"data\": \"{}\", \"time_taken_ms\": 1500}}", "QUJD".repeat(100));
    leader.call(&["SET", FX, &json]);
    follower.join().unwrap();
    until(|| counts(&running).saved_ms == 1500);
}

#[test]
fn the_leaders_next_lookup_of_that_kind_passes_the_lease_on() {
    let running = patient();
    let mut leader = running.connect();
    assert_eq!(leader.ask(&get(FX)), NIL);
    let first = ask_and_wait(&running, &get(FX), 1);
    let second = ask_and_wait(&running, &get(FX), 2);
    assert_eq!(leader.ask(&get(KERNEL)), NIL, "of another kind");
    assert_eq!(counts(&running).waiting, 2);
    assert_eq!(leader.ask(&get(OTHER_FX)), NIL);
    let (mut next, reply) = first.join().unwrap();
    assert_eq!(reply, NIL, "it compiles now");
    assert_eq!(next.ask(&set(FX)), "+OK\r\n");
    assert_eq!(second.join().unwrap().1, VALUE);
    assert_eq!(counts(&running).given_up, 1);
}

#[test]
fn who_disconnects_leads_no_more() {
    let running = patient();
    let mut leader = running.connect();
    assert_eq!(leader.ask(&get(FX)), NIL);
    let follower = ask_and_wait(&running, &get(FX), 1);
    drop(leader);
    assert_eq!(follower.join().unwrap().1, NIL);
    assert_eq!(counts(&running).gone, 1);
    until(|| counts(&running).open == 0);
}

#[test]
fn a_follower_that_disconnected_does_not_keep_the_next_from_leading() {
    let running = patient();
    let mut leader = running.connect();
    assert_eq!(leader.ask(&get(FX)), NIL);
    let mut gone = running.connect();
    gone.send(&array(&["GET", FX]));
    until(|| counts(&running).waiting == 1);
    drop(gone);
    let follower = ask_and_wait(&running, &get(FX), 2);
    drop(leader);
    assert_eq!(follower.join().unwrap().1, NIL);
    assert_eq!(counts(&running).gone, 2);
}

#[test]
fn nobody_waits_longer_than_the_setting() {
    let running = with_wait(Duration::from_millis(20));
    let mut leader = running.connect();
    assert_eq!(leader.ask(&get(FX)), NIL);
    assert_eq!(running.connect().ask(&get(FX)), NIL);
    let seen = counts(&running);
    assert_eq!((seen.timed_out, seen.waiting, seen.open), (1, 0, 1));
    assert!(seen.waited_ms >= 20);
    assert_eq!(leader.ask(&set(FX)), "+OK\r\n");
}

#[test]
fn nobody_waits_for_a_compile_that_takes_longer_than_the_setting() {
    let running = with_wait(Duration::from_millis(1));
    let mut leader = running.connect();
    assert_eq!(leader.ask(&get(FX)), NIL);
    until(|| {
        running.server.cache.leases().age(&pilotlight_cache::Key::new(FX)) > Some(Duration::from_millis(50))
    });
    assert_eq!(leader.ask(&set(FX)), "+OK\r\n");
    assert_eq!(leader.ask(&get(OTHER_FX)), NIL);
    assert_eq!(running.connect().ask(&get(OTHER_FX)), NIL);
    assert_eq!(counts(&running).followed, 0);
}

#[test]
fn a_put_that_is_not_kept_lets_everybody_go_on() {
    let faulty = Faulty::new();
    let config = Config { lease_wait: Duration::from_secs(600), ..config() };
    let running = Running::with(faulty.clone(), config, Arc::new(SystemClock));
    let mut leader = running.connect();
    assert_eq!(leader.ask(&get(FX)), NIL);
    let followers: Vec<_> = (1..=2).map(|n| ask_and_wait(&running, &get(FX), n)).collect();
    faulty.fail_with(Some(ErrorKind::Full));
    assert_eq!(leader.ask(&set(FX)), NIL);
    for follower in followers {
        assert_eq!(follower.join().unwrap().1, NIL);
    }
    assert_eq!(counts(&running).alone, 2);
}

#[test]
fn aot_autograd_entries_and_strangers_are_never_waited_for() {
    let running = patient();
    for key in
        ["pt2:autograd-experimental::a:c1", "pt2:dynamo-pgo::job:None::c1", "triton:A:k.cubin", "other"]
    {
        let mut first = running.connect();
        assert_eq!(first.ask(&get(key)), NIL);
        assert_eq!(running.connect().ask(&get(key)), NIL);
        assert_eq!(first.ask(&format!("PILOTLIGHT.LEASE {key} 1000 1000")), "*1\r\n$5\r\nalone\r\n");
    }
    assert_eq!(counts(&running), LeaseCounts::default());
}

#[test]
fn nothing_waits_in_a_transaction_with_puts_that_are_not_settled_or_when_it_is_off() {
    let running = patient();
    let mut leader = running.connect();
    assert_eq!(leader.ask(&get(FX)), NIL);
    let mut client = running.connect();
    assert_eq!(client.ask("MULTI"), "+OK\r\n");
    assert_eq!(client.ask(&get(FX)), "+QUEUED\r\n");
    assert_eq!(client.ask("EXEC"), "*1\r\n$-1\r\n");
    client.send(&[array(&["SET", "other", "value"]), array(&["GET", FX])].concat());
    assert_eq!((client.reply(), client.reply()), (b"+OK\r\n".to_vec(), NIL.into()));
    assert_eq!(counts(&running).followed, 0);

    let running = with_wait(Duration::ZERO);
    for _ in 0..2 {
        assert_eq!(running.connect().ask(&get(FX)), NIL);
    }
    assert_eq!(counts(&running).granted, 0);
}

fn lease(key: &str, lasts_ms: u64, wait_ms: u64) -> String {
    format!("PILOTLIGHT.LEASE {key} {lasts_ms} {wait_ms}")
}

/// The token of a reply that says `lead`.
fn token(reply: &str) -> i64 {
    let token = reply.strip_prefix("*2\r\n$4\r\nlead\r\n:").expect(reply);
    token.trim_end().parse().unwrap()
}

#[test]
fn our_client_leads_renews_releases_and_is_followed() {
    let running = patient();
    let mut leader = running.connect();
    let first = token(&leader.ask(&lease(FX, 60_000, 0)));
    assert_eq!(token(&leader.ask(&lease(FX, 60_000, 0))), first, "it leads already");
    let mut other = running.connect();
    let waits = other.ask(&lease(FX, 60_000, 1));
    assert!(waits.starts_with("*3\r\n$4\r\nwait\r\n:") && waits.ends_with("\r\n:-1\r\n"), "{waits}");
    for (verb, token, expected) in [
        ("RENEW", first, 1),
        ("RENEW", first + 99, 0),
        ("RELEASE", first + 99, 0),
        ("RELEASE", first, 1),
        ("RENEW", first, 0),
    ] {
        // Whatever it is released by, only the one who leads can.
        assert_eq!(other.ask(&format!("PILOTLIGHT.{verb} {FX} {token}")), ":0\r\n");
        if (verb, expected) != ("RELEASE", 0) {
            assert_eq!(
                leader.ask(&format!("PILOTLIGHT.{verb} {FX} {token}")),
                format!(":{expected}\r\n"),
                "{verb}"
            );
        }
    }
    token(&other.ask(&lease(FX, 60_000, 0)));
    let follower = ask_and_wait(&running, &get(FX), 1);
    assert_eq!(other.ask(&set(FX)), "+OK\r\n");
    assert_eq!(follower.join().unwrap().1, VALUE);
    assert_eq!(leader.ask(&lease(FX, 60_000, 2000)), "*1\r\n$4\r\nlook\r\n");
}

#[test]
fn a_leader_that_is_not_heard_of_loses_its_lease_and_its_late_put_is_a_put() {
    let running = patient();
    let mut stopped = running.connect();
    let late = token(&stopped.ask(&lease(FX, 100, 0)));
    let mut next = running.connect();
    let current = token(&next.ask(&lease(FX, 60_000, 2000)));
    assert_ne!(current, late);
    assert_eq!(counts(&running).expired, 1);
    assert_eq!(stopped.ask(&format!("PILOTLIGHT.RENEW {FX} {late}")), ":0\r\n");
    let follower = ask_and_wait(&running, &get(FX), 1);
    assert_eq!(stopped.ask(&set(FX)), "+OK\r\n");
    assert_eq!(follower.join().unwrap().1, VALUE);
    assert_eq!(next.ask(&set(FX)), "+OK\r\n", "who lost it to a put is not kept from putting");
}

#[test]
fn an_entry_that_came_between_the_miss_and_the_lease_is_looked_at() {
    let running = patient();
    assert_eq!(running.connect().ask(&set(FX)), "+OK\r\n");
    assert_eq!(running.connect().ask(&lease(FX, 60_000, 2000)), "*1\r\n$4\r\nlook\r\n");
    assert_eq!(counts(&running).open, 0);
}

#[test]
fn a_connection_leads_so_much_and_no_more() {
    let running = patient();
    let mut client = running.connect();
    for n in 0..64 {
        token(&client.ask(&lease(&format!("cpp-kernel:{n}"), 60_000, 0)));
    }
    assert_eq!(client.ask(&lease("cpp-kernel:64", 60_000, 0)), "*1\r\n$5\r\nalone\r\n");
    assert_eq!(client.ask(&set("cpp-kernel:0")), "+OK\r\n");
    token(&client.ask(&lease("cpp-kernel:64", 60_000, 0)));
    drop(client);
    until(|| counts(&running).open == 0);
}

#[test]
fn a_bad_lease_is_an_error() {
    let running = patient();
    let mut client = running.connect();
    for line in [
        "PILOTLIGHT.LEASE cpp-kernel:a -1 0",
        "PILOTLIGHT.LEASE cpp-kernel:a x 0",
        "PILOTLIGHT.LEASE cpp-kernel:a 1 1 NO",
    ] {
        assert!(client.ask(line).starts_with("-ERR"), "{line}");
    }
    assert_eq!(counts(&running).granted, 0);
}
