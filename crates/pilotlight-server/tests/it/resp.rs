//! Commands, byte for byte. What real Redis answers is checked in `resp_differential`.

use std::sync::Arc;
use std::thread;

use pilotlight_cache::{Key, ManualClock, MemoryBackend, Outcome};
use pilotlight_server::Config;

use crate::client::{Running, array, config};

const FX: &str = "pt2:fx-graph-v1::fabc:c1";

#[test]
fn set_then_get_returns_the_bytes() {
    let running = Running::start();
    let mut client = running.connect();
    for len in [0, 1, 4095, 4096, 16 * 1024, 65_536, 70_000, 1 << 20, 9 << 20] {
        let artifact: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8).collect();
        assert_eq!(client.call(&[b"SET".as_slice(), b"k", &artifact]), b"+OK\r\n", "{len}");
        let mut expected = format!("${len}\r\n").into_bytes();
        expected.extend(&artifact);
        expected.extend(b"\r\n");
        assert!(client.call(&["GET", "k"]) == expected, "{len}");
    }
}

#[test]
fn pipelined_commands_answer_in_order() {
    let running = Running::start();
    let mut client = running.connect();
    let mut stream = Vec::new();
    let mut expected = String::new();
    for i in 1..=3000 {
        stream.extend(array(&["INCR", "n"]));
        stream.extend(format!("ECHO {i}\r\n").bytes());
        let text = i.to_string();
        expected += &format!(":{i}\r\n${}\r\n{text}\r\n", text.len());
    }
    stream.extend(array(&["QUIT"]));
    expected += "+OK\r\n";
    client.send(&stream);
    assert_eq!(String::from_utf8(client.until_closed()).unwrap(), expected);
}

#[test]
fn hello_3_answers_with_the_map_that_clients_look_for() {
    let running = Running::start();
    let mut client = running.connect();
    let map = client.ask("HELLO 3 SETNAME me");
    assert!(map.starts_with("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"), "{map}");
    assert!(map.contains("$5\r\nproto\r\n:3\r\n"), "{map}");
    assert_eq!(client.ask("GET absent"), "_\r\n");
    assert_eq!(client.ask("CLIENT GETNAME"), "$2\r\nme\r\n");
    // What redis-py 8 sends next; its errors must leave the connection open.
    assert!(client.ask("CLIENT MAINT_NOTIFICATIONS ON").starts_with("-ERR unknown subcommand"));
    assert_eq!(client.ask("CLIENT SETINFO LIB-NAME redis-py"), "+OK\r\n");
    assert_eq!(client.ask("CLIENT SETINFO LIB-VER 8.1.0"), "+OK\r\n");
    assert!(client.ask("CLIENT INFO").contains("lib-name=redis-py lib-ver=8.1.0"));
}

#[test]
fn a_password_is_asked_for_before_anything_else() {
    let config = Config { password: Some("secret".into()), ..config() };
    let running = Running::with(Arc::new(MemoryBackend::new(1 << 20)), config, Arc::new(ManualClock::at(1)));
    let mut client = running.connect();
    assert_eq!(client.ask("GET k"), "-NOAUTH Authentication required.\r\n");
    assert!(client.ask("HELLO 3").starts_with("-NOAUTH HELLO must be called"));
    assert_eq!(
        client.ask("AUTH wrong"),
        "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
    );
    assert!(client.ask("AUTH other secret").starts_with("-WRONGPASS"));
    assert!(client.ask("HELLO 3 AUTH default secret").starts_with('%'));
    assert_eq!(client.ask("RESET"), "+RESET\r\n");
    // In one packet: the limits for strangers must end with the AUTH in front of the long bulk.
    let long = "x".repeat(20_000);
    let mut stream = array(&["AUTH", "secret"]);
    stream.extend(array(&["SET", "k", &long]));
    client.send(&stream);
    assert_eq!(client.reply(), b"+OK\r\n");
    assert_eq!(client.reply(), b"+OK\r\n");
    let mut stranger = running.connect();
    stranger.send(b"*11\r\n");
    assert_eq!(stranger.until_closed(), b"-ERR Protocol error: unauthenticated multibulk length\r\n");
}

#[test]
fn keys_expire_when_they_should() {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let backend = Arc::new(MemoryBackend::with_clock(1 << 20, clock.clone()));
    let running = Running::with(backend, config(), clock.clone());
    let mut client = running.connect();
    assert_eq!(client.ask("SET k v EX 10"), "+OK\r\n");
    assert_eq!(client.ask("SET k w KEEPTTL"), "+OK\r\n");
    assert_eq!(client.ask("TTL k"), ":10\r\n");
    assert_eq!(client.ask("EXPIRETIME k"), ":1700000010\r\n");
    clock.advance_ms(9_999);
    assert_eq!(client.ask("PTTL k"), ":1\r\n");
    assert_eq!(client.ask("GET k"), "$1\r\nw\r\n");
    clock.advance_ms(1);
    assert_eq!(client.ask("GET k"), "$-1\r\n");
    assert_eq!(client.ask("PTTL k"), ":-2\r\n");
}

#[test]
fn a_watched_key_that_changes_calls_the_transaction_off() {
    let running = Running::start();
    let (mut one, mut other) = (running.connect(), running.connect());
    one.ask("SET k 1");
    assert_eq!(one.ask("WATCH k"), "+OK\r\n");
    assert_eq!(one.ask("MULTI"), "+OK\r\n");
    assert_eq!(one.ask("SET k 2"), "+QUEUED\r\n");
    other.ask("SET k 1");
    assert_eq!(one.ask("EXEC"), "*-1\r\n");
    assert_eq!(one.ask("GET k"), "$1\r\n1\r\n");
}

#[test]
fn no_command_comes_between_those_of_a_transaction() {
    const ROUNDS: usize = 300;
    let running = Running::start();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = running.connect();
                for _ in 0..ROUNDS {
                    client.send(b"MULTI\r\nINCR a\r\nINCR b\r\nEXEC\r\n");
                    for _ in 0..4 {
                        client.reply();
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut client = running.connect();
            for _ in 0..ROUNDS {
                // MGET runs beside other commands, but never inside a transaction.
                let reply = client.ask("MGET a b");
                let lines: Vec<&str> = reply.split("\r\n").collect();
                let values: Vec<_> = lines.iter().filter(|line| line.parse::<u32>().is_ok()).collect();
                assert!(values.is_empty() || values[0] == values[1], "{reply}");
            }
        });
    });
    assert_eq!(running.connect().ask("GET a"), format!("$3\r\n{}\r\n", 2 * ROUNDS));
}

#[test]
fn counters_lose_no_increment() {
    let running = Running::start();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = running.connect();
                for _ in 0..250 {
                    client.ask("INCR n");
                }
            });
        }
    });
    assert_eq!(running.connect().ask("GET n"), "$4\r\n1000\r\n");
}

#[test]
fn databases_are_apart() {
    let running = Running::start();
    let mut client = running.connect();
    client.ask("SET k zero");
    assert_eq!(client.ask("SELECT 1"), "+OK\r\n");
    assert_eq!(client.ask("GET k"), "$-1\r\n");
    assert_eq!(client.ask("SET k one"), "+OK\r\n");
    assert_eq!(client.ask("MOVE k 2"), ":1\r\n");
    assert_eq!(client.ask("FLUSHDB"), "+OK\r\n");
    assert_eq!(client.ask("SELECT 2"), "+OK\r\n");
    assert_eq!(client.ask("GET k"), "$3\r\none\r\n");
    assert_eq!(client.ask("SELECT 16"), "-ERR DB index is out of range\r\n");
    assert_eq!(client.ask("FLUSHALL"), "+OK\r\n");
    assert_eq!(client.ask("DBSIZE"), ":0\r\n");
}

#[test]
fn a_scan_visits_every_key_once() {
    let running = Running::start();
    let mut client = running.connect();
    for i in 0..250 {
        client.ask(&format!("SET key:{i} v"));
    }
    let mut seen = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let reply = client.ask(&format!("SCAN {cursor} COUNT 20 MATCH key:*"));
        let mut lines = reply.split("\r\n").skip(2);
        cursor = lines.next().unwrap().to_owned();
        seen.extend(lines.filter(|line| line.starts_with("key:")).map(str::to_owned));
        if cursor == "0" {
            break;
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 250);
    assert_eq!(client.ask("KEYS key:1?"), client.ask("KEYS key:1[0-9]"));
    assert!(client.ask("RANDOMKEY").contains("key:"));
}

#[test]
fn torch_s_compile_time_is_kept_with_the_entry() {
    let running = Running::start();
    let mut client = running.connect();
    assert_eq!(client.call(&["SET", FX, r#"{"data": "eA==", "time_taken_ms": 1500}"#]), b"+OK\r\n");
    client.ask(&format!("GET {FX}"));
    let kind = Key::new(FX).kind();
    let sum = running.server.cache.stats().snapshot();
    assert_eq!((sum.saved_ms[kind as usize], sum.stock_graphs_ms), (0, 1500));
    client.ask(&format!("PILOTLIGHT.MGET {FX}"));
    let sum = running.server.cache.stats().snapshot();
    assert_eq!((sum.saved_ms[kind as usize], sum.stock_graphs_ms), (1500, 1500));
    assert_eq!(sum.cache[kind as usize][Outcome::Hit as usize], 2);
}

#[test]
fn replies_can_be_switched_off() {
    let running = Running::start();
    let mut client = running.connect();
    client.send(b"CLIENT REPLY SKIP\r\nPING a\r\nPING b\r\nCLIENT REPLY OFF\r\nPING c\r\nCLIENT REPLY ON\r\nPING d\r\n");
    let replies: Vec<_> = (0..3).map(|_| String::from_utf8(client.reply()).unwrap()).collect();
    assert_eq!(replies, ["$1\r\nb\r\n", "+OK\r\n", "$1\r\nd\r\n"]);
}

#[test]
fn command_describes_every_command_from_the_table() {
    let running = Running::start();
    let mut client = running.connect();
    let count: usize = client.ask("COMMAND COUNT").trim_start_matches(':').trim().parse().unwrap();
    assert!(client.ask("COMMAND").starts_with(&format!("*{count}\r\n")));
    assert_eq!(client.ask("COMMAND GETKEYS MSET a 1 b 2"), "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    assert!(client.ask("COMMAND DOCS GET").starts_with("*2\r\n$3\r\nget\r\n*6\r\n"));
    assert!(client.ask("INFO server").contains("redis_version:7.2.0\r\n"));
    assert!(client.ask("INFO").contains("# Keyspace\r\n"));
    assert_eq!(client.ask("CONFIG GET maxclients"), "*2\r\n$10\r\nmaxclients\r\n$5\r\n20000\r\n");
    assert_eq!(client.ask("EVAL x 0"), "-ERR unknown command 'EVAL', with args beginning with: 'x' '0' \r\n");
}

#[test]
fn no_arguments_make_a_command_panic() {
    const WEIRD: [&str; 12] = [
        "",
        "k",
        "0",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
        "1e400",
        "*",
        "[",
        "\0\r\n\u{e9}",
        "EX",
        "ID",
    ];
    const SUBCOMMANDS: [&str; 12] = [
        "get", "set", "usage", "encoding", "freq", "kill", "list", "docs", "getkeys", "info", "unblock",
        "setinfo",
    ];
    let running = Running::start();
    let mut client = running.connect();
    let names = client.ask("COMMAND LIST");
    let names = names.split("\r\n").filter(|line| !line.is_empty() && !line.starts_with(['*', '$']));
    for name in names.filter(|name| *name != "quit") {
        for len in 0..6 {
            for shift in 0..WEIRD.len() {
                let first = if len > 0 && shift % 2 == 0 { SUBCOMMANDS[shift] } else { WEIRD[shift] };
                let mut args = vec![name, first];
                args.extend((0..len).map(|i| WEIRD[(shift + i * 5) % WEIRD.len()]));
                args.truncate(len + 1);
                // A panic would close the connection instead of answering.
                client.call(&args);
            }
        }
        client.ask("RESET");
    }
}
