//! What operators, and the test suites of Redis and its clients, ask a server beside its commands.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use pilotlight_cache::{ManualClock, MemoryBackend, SystemClock};
use pilotlight_server::Config;

use crate::client::{Running, array, config};

#[test]
fn config_set_keeps_what_it_shows_and_refuses_what_it_cannot_do() {
    let running = Running::start();
    let mut client = running.connect();
    assert_eq!(client.ask("CONFIG SET hz 20 appendonly YES"), "+OK\r\n");
    assert_eq!(client.ask("CONFIG GET appendonly"), "*2\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n");
    // What describes the server may be set to what it is, as tools do that put back what they found.
    assert_eq!(client.ask("CONFIG SET maxmemory 1073741824"), "+OK\r\n");
    assert_eq!(
        client.ask("CONFIG SET hz 30 maxmemory 1"),
        "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - can't set immutable config\r\n"
    );
    assert_eq!(client.ask("CONFIG GET hz"), "*2\r\n$2\r\nhz\r\n$2\r\n20\r\n", "all or nothing");
}

#[test]
fn an_idle_timeout_that_a_client_sets_is_obeyed() {
    let running = Running::start();
    let mut client = running.connect();
    assert_eq!(client.ask("CONFIG SET timeout 1"), "+OK\r\n");
    assert_eq!(client.until_closed(), b"");
    assert!(running.connect().ask("CONFIG GET timeout").ends_with("$1\r\n1\r\n"));
}

#[test]
fn resetstat_sets_back_what_info_counts_but_not_what_metrics_count() {
    let running = Running::start();
    let mut client = running.connect();
    let count = |client: &mut crate::client::Client<std::net::TcpStream>| -> u64 {
        let info = client.ask("INFO stats");
        let found = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
        found.unwrap().parse().unwrap()
    };
    for _ in 0..10 {
        client.ask("PING");
    }
    assert_eq!(count(&mut client), 11);
    assert_eq!(client.ask("CONFIG RESETSTAT"), "+OK\r\n");
    assert_eq!(count(&mut client), 1);
    assert_eq!(running.server.stats.commands_total.load(Relaxed), 13);
}

#[test]
fn a_touch_is_a_use() {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let backend = Arc::new(MemoryBackend::with_clock(1 << 20, clock.clone()));
    let running = Running::with(backend, config(), clock.clone());
    let mut client = running.connect();
    client.ask("SET k v");
    clock.advance_ms(10_000);
    assert_eq!(client.ask("EXISTS k absent"), ":1\r\n");
    assert_eq!(client.ask("OBJECT IDLETIME k"), ":10\r\n");
    assert_eq!(client.ask("TOUCH k absent"), ":1\r\n");
    assert_eq!(client.ask("OBJECT IDLETIME k"), ":0\r\n");
}

#[test]
fn a_transaction_that_grows_without_end_is_called_off() {
    // An argument counts 64 bytes beside its own, and 64 MiB are allowed beside the largest entry.
    const JUST_OVER_HALF: usize = (64 << 20) / 64 / 2 + 1;
    let config = Config { entry_bytes_max: 64, ..config() };
    let running = Running::with(Arc::new(MemoryBackend::new(1 << 30)), config, Arc::new(SystemClock));
    let mut client = running.connect();
    assert_eq!(client.ask("MULTI"), "+OK\r\n");
    let mut long = vec!["EXISTS"];
    long.resize(JUST_OVER_HALF, "");
    let long = array(&long);
    client.send(&long);
    assert_eq!(client.reply(), b"+QUEUED\r\n");
    client.send(&long);
    let refused = "-ERR the transaction is above the limit of 67108928 bytes\r\n";
    assert_eq!(String::from_utf8(client.reply()).unwrap(), refused);
    // Not kept, and said by EXEC, as after any command that could not be queued.
    client.send(&long);
    assert_eq!(client.reply(), b"+QUEUED\r\n");
    assert!(client.ask("EXEC").starts_with("-EXECABORT "));
    assert_eq!(client.ask("MULTI"), "+OK\r\n");
    assert_eq!(client.ask("PING"), "+QUEUED\r\n");
    assert_eq!(client.ask("EXEC"), "*1\r\n+PONG\r\n");
}

#[test]
fn save_is_refused_inside_a_transaction() {
    let running = Running::start();
    let mut client = running.connect();
    client.ask("MULTI");
    assert_eq!(client.ask("SAVE"), "-ERR Command not allowed inside a transaction\r\n");
    assert!(client.ask("EXEC").starts_with("-EXECABORT "));
    assert_eq!(client.ask("SAVE"), "+OK\r\n");
}

#[test]
fn a_connection_that_lists_itself_shows_what_it_runs() {
    let running = Running::start();
    let mut client = running.connect();
    client.ask("PING");
    assert!(client.ask("CLIENT LIST").contains(" cmd=client|list "));
    assert!(client.ask("CLIENT INFO").contains(" cmd=client|info "));
    assert_eq!(client.ask("CLIENT KILL USER nobody"), "-ERR No such user 'nobody'\r\n");
}

#[test]
fn a_killed_client_is_gone_at_once() {
    let running = Running::start();
    let (mut one, mut other) = (running.connect(), running.connect());
    for round in 0..50 {
        let id = other.ask("CLIENT ID").trim_start_matches(':').trim().to_owned();
        assert_eq!(one.ask(&format!("CLIENT KILL ID {id}")), ":1\r\n");
        assert!(!one.ask("CLIENT LIST").contains(&format!("id={id} ")), "round {round}");
        assert_eq!(one.ask(&format!("CLIENT KILL ID {id}")), ":0\r\n");
        assert!(one.ask("INFO clients").contains("connected_clients:1\r\n"));
        assert_eq!(other.until_closed(), b"");
        other = running.connect();
    }
}

#[test]
fn a_client_that_kills_itself_gets_the_reply_and_runs_nothing_more() {
    let running = Running::start();
    let mut client = running.connect();
    client.send(b"CLIENT KILL TYPE normal SKIPME no\r\nSET after 1\r\n");
    assert_eq!(client.until_closed(), b":1\r\n");
    assert_eq!(running.connect().ask("EXISTS after"), ":0\r\n");
}

#[test]
fn debug_error_answers_with_the_error_as_it_is() {
    let running = Running::start();
    let mut client = running.connect();
    assert_eq!(client.call(&["DEBUG", "ERROR", "LOADING fake\r\nmessage"]), b"-LOADING fake  message\r\n");
    assert_eq!(client.ask("PING"), "+PONG\r\n");
}
