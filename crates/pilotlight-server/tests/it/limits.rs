//! What clients may take of a server, and what those see that want more: a test for each row of docs/limits.md.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pilotlight_cache::{ErrorKind, KEY_LEN_MAX, MemoryBackend, SystemClock};
use pilotlight_server::Config;

use crate::client::{Client, Running, array, config};

const MIB: usize = 1 << 20;
/// Of a kind for which a compiler waits.
const GRAPH: &str = "pt2:fx-graph-v1::aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:c1";

fn start(config: Config) -> Running {
    Running::with(Arc::new(MemoryBackend::new(1 << 30)), config, Arc::new(SystemClock))
}

fn impatient() -> Config {
    Config { client_grace: Duration::from_millis(100), ..config() }
}

fn slow(running: &Running) -> u64 {
    running.server.stats.slow_connections_total.load(Relaxed)
}

/// A request that lacks its end: a `SET` whose value of `len` bytes wants its last one.
fn unfinished(running: &Running, key: &str, len: usize) -> Client<TcpStream> {
    let mut client = running.connect();
    // Its core has it: from here on what it sends is read in its turn.
    assert_eq!(client.ask("PING"), "+PONG\r\n");
    let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${len}\r\n", key.len());
    client.send(head.as_bytes());
    client.send(&vec![b'x'; len - 1]);
    client
}

#[test]
fn a_request_that_stops_in_the_middle_is_refused_and_the_connection_closed() {
    let running = start(impatient());
    for part in ["P", "*2\r\n$3\r\nGE", "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\nxxx"] {
        let mut client = running.connect();
        client.send(part.as_bytes());
        assert_eq!(client.until_closed(), b"-ERR Protocol error: the request came too slowly\r\n", "{part}");
    }
    assert_eq!(slow(&running), 3);
}

#[test]
fn a_request_that_drips_is_refused_though_it_never_stops() {
    let running = start(impatient());
    let client = running.connect();
    let mut dripping = client.stream().try_clone().unwrap();
    let drip = std::thread::spawn(move || {
        // Ends when the server has closed.
        while dripping.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    drip.join().unwrap();
    assert_eq!(slow(&running), 1);
}

#[test]
fn a_client_that_does_not_say_who_it_is_is_not_waited_for() {
    let running = start(Config { password: Some("secret".to_owned()), ..impatient() });
    let mut silent = running.connect();
    assert_eq!(silent.until_closed(), b"");
    let mut known = running.connect();
    assert_eq!(known.ask("AUTH secret"), "+OK\r\n");
    // It may be idle for as long as it likes: longer, here, than the other was.
    let mut other = running.connect();
    assert_eq!(other.until_closed(), b"");
    assert_eq!(known.ask("PING"), "+PONG\r\n");
}

#[test]
fn a_client_that_takes_nothing_of_its_replies_is_cut_off() {
    let running = start(impatient());
    let mut client = running.connect();
    client.call(&[b"SET".as_slice(), b"k", &vec![b'x'; 8 * MIB]]);
    let requests: Vec<u8> = (0..8).flat_map(|_| array(&["GET", "k"])).collect();
    client.send(&requests);
    while slow(&running) == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn large_requests_beyond_what_all_may_hold_are_read_past_and_refused() {
    let config = Config { cores: 1, entry_bytes_max: MIB as u64, connection_memory_bytes: 0, ..config() };
    let running = start(config);
    // Two of the largest entries is what there is.
    let held = [unfinished(&running, "a", MIB - 1000), unfinished(&running, "b", MIB - 1000)];
    wait_until_held(&running, 2 * (MIB as u64) - 4000);
    let mut client = running.connect();
    let refused: &[u8] = b"-ERR room for requests in flight, 2 MiB in all, is unavailable\r\n";
    for (key, expected) in [(GRAPH, &b"$-1\r\n"[..]), ("k", refused)] {
        let mut other = unfinished(&running, key, MIB / 2);
        // The one core reads what was there before this came, and answers it then.
        for _ in 0..10 {
            client.ask("PING");
        }
        other.send(b"x\r\n");
        assert_eq!(other.reply(), expected, "{key}");
        // What follows it is read as ever.
        assert_eq!(other.ask("PING"), "+PONG\r\n");
    }
    let sum = running.server.cache.stats().snapshot();
    assert_eq!(sum.refused_puts[ErrorKind::Unavailable as usize], 1);
    // Small ones are always served, and all of them again once there is room.
    assert_eq!(client.ask("SET small v"), "+OK\r\n");
    assert_eq!(client.ask("GET small"), "$1\r\nv\r\n");
    drop(held);
    wait_until_held_at_most(&running, 0);
    let mut client = unfinished(&running, "k", MIB / 2);
    client.send(b"x\r\n");
    assert_eq!(client.reply(), b"+OK\r\n");
}

#[test]
fn lookups_are_misses_while_unread_replies_hold_all_there_is() {
    let config = Config { entry_bytes_max: MIB as u64, connection_memory_bytes: 0, ..config() };
    let running = start(config);
    let mut client = running.connect();
    for key in ["k", GRAPH] {
        client.call(&[b"SET".as_slice(), key.as_bytes(), &vec![b'x'; MIB]]);
    }
    let requests: Vec<u8> = (0..40).flat_map(|_| array(&["GET", "k"])).collect();
    let mut unread: Vec<_> = (0..3).map(|_| running.connect()).collect();
    unread.iter_mut().for_each(|client| client.send(&requests));
    wait_until_held(&running, 2 * MIB as u64);
    assert_eq!(client.call(&["GET", GRAPH]), b"$-1\r\n");
    assert_eq!(client.ask("SET short v"), "+OK\r\n");
    assert_eq!(client.ask("GET short"), "$1\r\nv\r\n", "what any client may always have");
    assert_eq!(client.call(&["MGET", GRAPH, GRAPH]), b"*2\r\n$-1\r\n$-1\r\n");
    assert!(client.call(&["GET", "k"]).starts_with(b"-ERR room for requests in flight"));
    assert_eq!(client.ask("PING"), "+PONG\r\n");
    // Whoever reads gets an answer to all it asked, in order: what there was room for, and errors.
    for client in &mut unread {
        for _ in 0..40 {
            let reply = client.reply();
            assert!(reply.len() > MIB || reply.starts_with(b"-ERR room"), "{} bytes", reply.len());
        }
    }
    wait_until_held_at_most(&running, 0);
    assert_eq!(client.call(&["GET", GRAPH]).len(), MIB + "$1048576\r\n\r\n".len());
}

fn held(running: &Running) -> u64 {
    // As an operator sees it.
    running.server.in_flight_bytes()
}

fn wait_until_held(running: &Running, bytes: u64) {
    while held(running) < bytes {
        std::thread::yield_now();
    }
}

fn wait_until_held_at_most(running: &Running, bytes: u64) {
    while held(running) > bytes {
        std::thread::yield_now();
    }
}

#[test]
fn a_request_holds_no_more_than_one_entry_and_a_little() {
    let running = start(Config { entry_bytes_max: MIB as u64, ..config() });
    let mut client = running.connect();
    // 70 values of the largest size.
    client.send(b"*141\r\n$4\r\nMSET\r\n");
    let mut value = format!("$1\r\nk\r\n${MIB}\r\n").into_bytes();
    value.resize(value.len() + MIB, b'x');
    value.extend(b"\r\n");
    let mut sending = client.stream().try_clone().unwrap();
    let sent = std::thread::spawn(move || {
        // The server closes before all of it is sent.
        (0..70).all(|_| sending.write_all(&value).is_ok())
    });
    let mut told = Vec::new();
    // What it says is lost where the connection is reset because more was on its way.
    let _ = client.stream().read_to_end(&mut told);
    sent.join().unwrap();
    assert!(told.is_empty() || told == b"-ERR Protocol error: request is too large\r\n");
    assert_eq!(running.server.stats.protocol_errors_total.load(Relaxed), 1);
}

#[test]
fn as_many_keys_are_watched_as_may_be() {
    let running = Running::start();
    let mut client = running.connect();
    for number in 0..1024 {
        assert_eq!(client.ask(&format!("WATCH k{number}")), "+OK\r\n");
    }
    assert_eq!(client.ask("WATCH k0"), "+OK\r\n");
    assert_eq!(client.ask("WATCH k1024"), "-ERR too many watched keys\r\n");
    assert_eq!(client.ask("UNWATCH"), "+OK\r\n");
    assert_eq!(client.ask("WATCH k1024"), "+OK\r\n");
    client.ask("UNWATCH");
    let long = |number: usize| format!("{number:05}{}", "x".repeat(KEY_LEN_MAX - 5));
    let watched = (0..1000).take_while(|number| client.ask(&format!("WATCH {}", long(*number))) == "+OK\r\n");
    assert_eq!(watched.count(), MIB / (KEY_LEN_MAX + 64));
}

#[test]
fn names_are_short() {
    let running = Running::start();
    let mut client = running.connect();
    let (fits, long) = ("n".repeat(256), "n".repeat(257));
    assert_eq!(client.ask(&format!("CLIENT SETNAME {fits}")), "+OK\r\n");
    assert_eq!(
        client.ask(&format!("CLIENT SETNAME {long}")),
        "-ERR Client names cannot be longer than 256 bytes.\r\n"
    );
    assert!(client.ask(&format!("HELLO 2 SETNAME {long}")).starts_with("-ERR Client names"));
    assert!(client.ask(&format!("CLIENT SETINFO LIB-NAME {long}")).starts_with("-ERR lib-name"));
    assert!(client.ask("CLIENT LIST").contains(&format!(" name={fits} ")));
}

#[test]
fn lookups_of_many_keys_bring_what_has_room_and_the_rest_is_missed() {
    let running = start(Config { entry_bytes_max: MIB as u64, ..config() });
    let mut client = running.connect();
    client.call(&[b"SET".as_slice(), GRAPH.as_bytes(), &vec![b'x'; MIB]]);
    client.call(&[b"SET".as_slice(), b"k", &vec![b'x'; MIB]]);
    let (artifact, room) = (MIB + "$1048576\r\n\r\n".len(), 65);
    let keys: Vec<&str> = std::iter::once("MGET").chain(std::iter::repeat_n(GRAPH, 100)).collect();
    let expected = "*100\r\n".len() + room * artifact + (100 - room) * "$-1\r\n".len();
    assert_eq!(client.call(&keys).len(), expected);
    let keys: Vec<&str> = std::iter::once("MGET").chain(std::iter::repeat_n("k", 100)).collect();
    assert!(client.call(&keys).starts_with(b"-ERR room"));
    // In a transaction as well.
    client.ask("MULTI");
    for _ in 0..100 {
        client.call(&["GET", GRAPH]);
    }
    let expected = "*100\r\n".len() + room * artifact + (100 - room) * "$-1\r\n".len();
    assert_eq!(client.call(&["EXEC"]).len(), expected);
    assert_eq!(client.call(&["GET", GRAPH]).len(), artifact);
    // What else is asked ends at the limit too, and what changes something does not.
    client.ask("MULTI");
    for _ in 0..3000 {
        client.ask("COMMAND");
    }
    client.ask("SET last v");
    let replies = client.call(&["EXEC"]);
    assert!(replies.ends_with(b"above the limit, or late\r\n+OK\r\n"));
    assert_eq!(client.ask("GET last"), "$1\r\nv\r\n");
}

#[test]
fn keys_gives_no_more_names_than_have_room() {
    let running = start(Config { entry_bytes_max: KEY_LEN_MAX as u64, ..config() });
    let mut client = running.connect();
    let name = |number: usize| format!("{number:06}{}", "x".repeat(KEY_LEN_MAX - 6));
    for number in 0..4200 {
        client.send(&array(&["SET", &name(number), "v"]));
    }
    for _ in 0..4200 {
        assert_eq!(client.reply(), b"+OK\r\n");
    }
    let told = "-ERR too many keys for one reply, SCAN gives them in parts\r\n";
    assert_eq!(client.ask("KEYS *"), told);
    assert!(client.ask("KEYS 0000*").starts_with("*100\r\n"));
    let page = client.ask("SCAN 0 COUNT 100000");
    assert!(page.len() < 17 * MIB, "{}", page.len());
}

#[test]
fn an_address_has_as_many_connections_as_it_may() {
    let running = start(Config { connections_per_address_max: Some(2), ..config() });
    let mut held: Vec<_> = (0..2).map(|_| running.connect()).collect();
    for client in &mut held {
        assert_eq!(client.ask("PING"), "+PONG\r\n");
    }
    // Closed without a word.
    assert_eq!(running.connect().until_closed(), b"");
    assert_eq!(running.server.stats.refused_connections_total.load(Relaxed), 1);
    drop(held.pop());
    while running.server.stats.connections_open.load(Relaxed) > 1 {
        std::thread::yield_now();
    }
    // The count goes a moment after the connection: who is early is refused once more.
    let is_served = || {
        let client = running.connect();
        let (mut stream, mut answer) = (client.stream(), [0; 7]);
        stream.write_all(b"PING\r\n").and_then(|()| stream.read_exact(&mut answer)).is_ok()
    };
    assert!((0..10_000).any(|_| is_served()));
}

#[test]
fn lists_of_clients_are_filtered_in_one_pass() {
    let running = Running::start();
    let mut client = running.connect();
    let id = client.ask("CLIENT ID");
    let id = id.trim_start_matches(':').trim().to_owned();
    let ids: Vec<String> = (1000..101_000).map(|id| id.to_string()).chain([id.clone()]).collect();
    let mut command = vec!["CLIENT", "LIST", "ID"];
    command.extend(ids.iter().map(String::as_str));
    let list = String::from_utf8(client.call(&command)).unwrap();
    assert_eq!(list.lines().filter(|line| line.starts_with("id=")).count(), 1);
    let many = ["TYPE", "normal"].repeat(65);
    let command: Vec<&str> = ["CLIENT", "KILL"].into_iter().chain(many).collect();
    assert_eq!(client.call(&command), b"-ERR syntax error\r\n");
}
