//! What a client is told when something fails. To stock PyTorch an error on `SET` is a crashed compile.

use std::sync::Arc;
use std::time::Duration;

use pilotlight_cache::{ErrorKind, Key, MemoryBackend, Outcome, SystemClock};
use pilotlight_server::Config;

use crate::client::{Running, array, config};
use crate::faults::Faulty;

/// A key of every compile-cache kind.
const COMPILE_KEYS: [&str; 6] = [
    "pt2:fx-graph-v1::f:c1",
    "pt2:autograd-experimental::a:c1",
    "pt2:bundled-autotune-v1::b:c1",
    "pt2:dynamo-pgo::job:None::c1",
    "triton:A:kernel.cubin",
    "cpp-kernel:a",
];

fn over(faulty: &Arc<Faulty>, config: Config) -> Running {
    Running::with(faulty.clone(), config, Arc::new(SystemClock))
}

#[test]
fn a_refused_put_answers_nil_never_an_error() {
    let faulty = Faulty::new();
    let running = over(&faulty, config());
    let mut client = running.connect();
    for kind in ErrorKind::ALL {
        faulty.fail_with(Some(kind));
        for key in COMPILE_KEYS {
            for put in [
                "SET {} v",
                "SET {} v EX 10",
                "SETEX {} 10 v",
                "SET {} v NX GET",
                "SET {} v KEEPTTL",
                "MSET {} v",
            ] {
                let put = put.replace("{}", key);
                assert_eq!(client.ask(&put), "$-1\r\n", "{put} {kind:?}");
            }
            assert_eq!(client.ask(&format!("SETNX {key} v")), ":0\r\n");
        }
        let refused = running.server.cache.stats().snapshot().refused_puts[kind as usize];
        assert_eq!(refused, 7 * COMPILE_KEYS.len() as u64);
    }
}

#[test]
fn a_put_that_cannot_be_settled_is_refused_in_its_place() {
    let faulty = Faulty::new();
    let running = over(&faulty, config());
    let mut client = running.connect();
    let key = COMPILE_KEYS[0];
    let mut answers = |commands: &[String]| -> Vec<String> {
        let bytes: Vec<u8> =
            commands.iter().flat_map(|line| array(&line.split(' ').collect::<Vec<_>>())).collect();
        client.send(&bytes);
        commands.iter().map(|_| String::from_utf8_lossy(&client.reply()).into_owned()).collect()
    };
    let puts = || running.server.cache.stats().snapshot().cache.map(|kind| kind[Outcome::Put as usize]);
    let error = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    let set = format!("SET {key} v");
    let pipeline = [set.clone(), "SET other v".into(), "ECHO a".into(), set.clone(), "ECHO b".into()];
    faulty.fail_settling_with(Some(ErrorKind::Full));
    assert_eq!(answers(&pipeline), ["$-1\r\n", error, "$1\r\na\r\n", "$-1\r\n", "$1\r\nb\r\n"]);
    let transaction = ["MULTI".into(), set, "ECHO a".into(), "SET other v".into(), "EXEC".into()];
    assert_eq!(answers(&transaction)[4], format!("*3\r\n$-1\r\n$1\r\na\r\n{error}"));
    assert_eq!(running.server.cache.stats().snapshot().refused_puts[ErrorKind::Full as usize], 3);
    assert_eq!(puts().iter().sum::<u64>(), 0, "a refused put is no put");
    faulty.fail_settling_with(None);
    assert_eq!(answers(&pipeline), ["+OK\r\n", "+OK\r\n", "$1\r\na\r\n", "+OK\r\n", "$1\r\nb\r\n"]);
    assert_eq!(puts().iter().sum::<u64>(), 3);
}

#[test]
fn a_get_that_fails_is_a_miss() {
    let faulty = Faulty::new();
    let running = over(&faulty, config());
    let mut client = running.connect();
    for key in COMPILE_KEYS {
        client.ask(&format!("SET {key} v"));
    }
    for kind in ErrorKind::ALL {
        faulty.fail_with(Some(kind));
        for key in COMPILE_KEYS {
            assert_eq!(client.ask(&format!("GET {key}")), "$-1\r\n");
            assert_eq!(client.ask(&format!("MGET {key} {key}")), "*2\r\n$-1\r\n$-1\r\n");
        }
    }
    faulty.fail_with(None);
    assert_eq!(client.ask(&format!("GET {}", COMPILE_KEYS[0])), "$1\r\nv\r\n");
}

#[test]
fn other_kinds_get_redis_errors() {
    let faulty = Faulty::new();
    let running = over(&faulty, config());
    let mut client = running.connect();
    for (kind, expected) in [
        (ErrorKind::Full, "-OOM command not allowed when used memory > 'maxmemory'.\r\n"),
        (ErrorKind::ReadOnly, "-READONLY You can't write against a read only replica.\r\n"),
        (ErrorKind::Denied, "-NOPERM injected\r\n"),
        (ErrorKind::Unavailable, "-ERR injected\r\n"),
    ] {
        faulty.fail_with(Some(kind));
        assert_eq!(client.ask("SET k v"), expected);
        assert_eq!(client.ask("INCR k"), expected);
    }
}

#[test]
fn strict_answers_errors_to_compilers_too() {
    let faulty = Faulty::new();
    let running = over(&faulty, Config { is_strict: true, ..config() });
    faulty.fail_with(Some(ErrorKind::Full));
    let mut client = running.connect();
    assert!(client.ask(&format!("SET {} v", COMPILE_KEYS[0])).starts_with("-OOM "));
}

#[test]
fn a_full_cache_refuses_puts_and_keeps_serving() {
    let backend = Arc::new(MemoryBackend::new(1000));
    let running = Running::with(backend, config(), Arc::new(SystemClock));
    let mut client = running.connect();
    let key = COMPILE_KEYS[0];
    client.ask(&format!("SET {key} v"));
    assert_eq!(client.call(&["SET", COMPILE_KEYS[1], &"x".repeat(1000)]), b"$-1\r\n");
    assert_eq!(client.ask(&format!("GET {key}")), "$1\r\nv\r\n");
}

#[test]
fn a_late_answer_is_a_miss_or_a_refusal_and_the_connection_stays() {
    let faulty = Faulty::new();
    let running = over(&faulty, Config { request_timeout: Duration::from_millis(20), ..config() });
    let mut client = running.connect();
    let _arrivals = faulty.hang();
    let key = COMPILE_KEYS[0];
    assert_eq!(client.ask(&format!("GET {key}")), "$-1\r\n");
    assert_eq!(client.ask(&format!("SET {key} v")), "$-1\r\n");
    assert_eq!(client.ask(&format!("MGET {key} {key}")), "*2\r\n$-1\r\n$-1\r\n");
    client.send(format!("MULTI\r\nSET {key} v\r\nEXEC\r\n").as_bytes());
    let replies: Vec<_> = (0..3).map(|_| client.reply()).collect();
    assert_eq!(replies[2], b"*1\r\n$-1\r\n");
    assert_eq!(client.ask("PING"), "+PONG\r\n");
    let sum = running.server.cache.stats().snapshot();
    assert_eq!(sum.absorbed_gets[ErrorKind::Timeout as usize], 3);
    assert_eq!(sum.refused_puts[ErrorKind::Timeout as usize], 2);
}

#[test]
fn a_late_answer_to_anyone_else_is_an_error_and_the_end_of_the_connection() {
    let faulty = Faulty::new();
    let running = over(&faulty, Config { request_timeout: Duration::from_millis(20), ..config() });
    let mut client = running.connect();
    let _arrivals = faulty.hang();
    client.send(b"GET k\r\nPING\r\n");
    assert_eq!(client.until_closed(), b"-ERR get took over 20 ms\r\n");
}

#[test]
fn a_put_that_is_too_large_is_refused_and_the_connection_stays() {
    let running = Running::with(
        Arc::new(MemoryBackend::new(1 << 30)),
        Config { entry_bytes_max: 100_000, ..config() },
        Arc::new(SystemClock),
    );
    let mut client = running.connect();
    let long = "x".repeat(100_001);
    assert_eq!(client.call(&["SET", COMPILE_KEYS[0], &long]), b"$-1\r\n");
    assert_eq!(client.call(&["SET", "k", &long]), b"-ERR entry of 100001 bytes, expected at most 100000\r\n");
    assert_eq!(client.call(&["APPEND", "k", &long[..60_000]]), b":60000\r\n");
    assert!(client.call(&["APPEND", "k", &long[..60_000]]).starts_with(b"-ERR string exceeds maximum"));
    let sum = running.server.cache.stats().snapshot();
    assert_eq!(sum.refused_puts[ErrorKind::TooLarge as usize], 1);
}

#[test]
fn a_key_that_is_too_long_is_a_miss_for_a_compiler() {
    let running = Running::start();
    let mut client = running.connect();
    let long = format!("{}{}", COMPILE_KEYS[4], "x".repeat(pilotlight_cache::KEY_LEN_MAX));
    assert!(Key::new(long.clone()).kind().is_compile_cache());
    assert_eq!(client.call(&["SET", &long, "v"]), b"$-1\r\n");
    assert_eq!(client.call(&["GET", &long]), b"$-1\r\n");
    assert_eq!(client.call(&["MGET", &long, "k"]), b"*2\r\n$-1\r\n$-1\r\n");
    let long = "x".repeat(pilotlight_cache::KEY_LEN_MAX + 1);
    assert!(client.call(&["SET", &long, "v"]).starts_with(b"-ERR key of 16385 bytes"));
}

#[test]
fn shutdown_finishes_the_running_command() {
    let faulty = Faulty::new();
    let mut running = over(&faulty, config());
    let mut client = running.connect();
    let arrivals = faulty.hang();
    client.send(&array(&["SET", "k", "v"]));
    arrivals.recv().unwrap();
    running.begin_shutdown();
    faulty.release();
    assert_eq!(client.until_closed(), b"+OK\r\n");
    running.stop().unwrap();
    assert_eq!(faulty.syncs.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[test]
fn shutdown_does_not_wait_longer_than_the_drain_timeout() {
    let faulty = Faulty::new();
    let config = Config { drain_timeout: Duration::from_millis(20), ..config() };
    let mut running = over(&faulty, Config { request_timeout: Duration::from_secs(600), ..config });
    let mut client = running.connect();
    let arrivals = faulty.hang();
    client.send(&array(&["SET", "k", "v"]));
    arrivals.recv().unwrap();
    running.stop().unwrap();
    assert_eq!(client.until_closed(), b"");
}
