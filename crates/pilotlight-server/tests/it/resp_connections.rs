//! Connections: many, slow, rude.

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pilotlight_cache::{Cache, MemoryBackend, SystemClock};
use pilotlight_server::{Config, Listeners, Server, run};

use crate::client::{Client, Running, array, config};
use crate::weight;

#[test]
fn idle_connections_cost_under_20_kib_each() {
    weight::alone("resp_connections::weigh_idle_connections");
}

#[test]
#[ignore = "run by idle_connections_cost_under_20_kib_each, alone in its process"]
fn weigh_idle_connections() {
    let running = Running::start();
    let each = weight::of_idle(&running.server, 400, || running.connect());
    println!("{each} bytes each, both ends");
    assert!(each < 20 * 1024, "{each} bytes each");
}

#[test]
fn slow_reader_does_not_stall_others() {
    // One core, so that both are on it.
    let config = Config { cores: 1, ..config() };
    let running = Running::with(Arc::new(MemoryBackend::new(1 << 30)), config, Arc::new(SystemClock));
    let mut slow = running.connect();
    let long = vec![b'x'; 8 << 20];
    slow.call(&[b"SET".as_slice(), b"k", &long]);
    // 80 MiB of replies that nobody reads yet: more than any socket buffers.
    for _ in 0..10 {
        slow.send(&array(&["GET", "k"]));
    }
    let mut other = running.connect();
    for _ in 0..100 {
        assert_eq!(other.ask("PING"), "+PONG\r\n");
    }
    for _ in 0..10 {
        assert_eq!(slow.reply().len(), long.len() + "$8388608\r\n\r\n".len());
    }
}

#[test]
fn at_the_limit_a_connection_waits_for_another_to_close() {
    let config = Config { connections_max: 2, ..config() };
    let running = Running::with(Arc::new(MemoryBackend::new(1 << 20)), config, Arc::new(SystemClock));
    let (mut one, mut two) = (running.connect(), running.connect());
    assert_eq!(one.ask("PING"), "+PONG\r\n");
    assert_eq!(two.ask("PING"), "+PONG\r\n");
    let mut three = running.connect();
    three.send(b"PING\r\n");
    three.stream().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(three.stream().peek(&mut [0]).is_err(), "answered above the limit");
    three.stream().set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    drop(one);
    assert_eq!(three.reply(), b"+PONG\r\n");
}

#[test]
fn an_idle_connection_is_closed_where_that_is_asked_for() {
    let config = Config { idle_timeout: Some(Duration::from_millis(20)), ..config() };
    let running = Running::with(Arc::new(MemoryBackend::new(1 << 20)), config, Arc::new(SystemClock));
    let mut client = running.connect();
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn a_killed_connection_is_closed() {
    let running = Running::start();
    let (mut one, mut two) = (running.connect(), running.connect());
    let id = two.ask("CLIENT ID");
    let id = id.trim_start_matches(':').trim();
    assert!(one.ask("CLIENT LIST").contains(&format!("id={id} ")));
    assert_eq!(one.ask(&format!("CLIENT KILL ID {id}")), ":1\r\n");
    assert_eq!(two.until_closed(), b"");
    let id = one.ask("CLIENT ID");
    let id = id.trim_start_matches(':').trim();
    assert_eq!(one.ask(&format!("CLIENT KILL ID {id} SKIPME no")), ":1\r\n");
    assert_eq!(one.until_closed(), b"");
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_request_leaves_nothing_behind() {
    let running = Running::start();
    for cut in
        ["*", "*2\r\n$3\r\nGE", "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\nxx", "MULTI\r\n", "WATCH k\r\n"]
    {
        running.connect().send(cut.as_bytes());
    }
    let mut client = running.connect();
    let stats = &running.server.stats;
    while stats.connections_total.load(Relaxed) < 6 || stats.connections_open.load(Relaxed) > 1 {
        client.ask("PING");
    }
    assert!(client.ask("CLIENT LIST").lines().filter(|line| line.starts_with("id=")).count() == 1);
}

#[test]
fn what_a_web_page_has_a_browser_send_is_not_taken_for_commands() {
    let running = Running::start();
    for request in [
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\nSET k v\r\nSET k v\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\r\nSET k v\r\n",
        "PUT / HTTP/1.1\r\nhost: x\r\n\r\nSET k v\r\n",
    ] {
        let mut client = running.connect();
        client.send(request.as_bytes());
        let replies = String::from_utf8(client.until_closed()).unwrap();
        assert!(replies.ends_with("-ERR Protocol error: HTTP is spoken on another port\r\n"), "{replies}");
    }
    assert_eq!(running.connect().ask("GET k"), "$-1\r\n");
}

#[test]
fn unix_sockets_are_served_as_tcp_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pilotlight.sock");
    let listeners = Listeners { resp_unix: vec![UnixListener::bind(&path).unwrap()], ..Listeners::default() };
    let cache = Arc::new(Cache::new(Arc::new(MemoryBackend::new(1 << 20))));
    let server = Arc::new(Server::new(cache, config(), Arc::new(SystemClock)));
    let (shutdown, is_over) = tokio::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            run(server, listeners, async {
                let _ = is_over.await;
            })
        });
        let mut client = Client::new(UnixStream::connect(&path).unwrap());
        assert_eq!(client.ask("SET k v"), "+OK\r\n");
        assert_eq!(client.ask("GET k"), "$1\r\nv\r\n");
        drop(shutdown);
        running.join().unwrap().unwrap();
        assert_eq!(client.until_closed(), b"");
    });
}

#[test]
fn transactions_on_all_cores_do_not_wait_for_each_other_for_ever() {
    let running = Running::start();
    let mut clients: Vec<_> = (0..8).map(|_| running.connect()).collect();
    for round in 0..50 {
        for client in &mut clients {
            client.send(b"MULTI\r\nINCR n\r\nEXEC\r\nINCR n\r\nMSET a 1 b 2\r\n");
        }
        for client in &mut clients {
            let replies: Vec<_> = (0..5).map(|_| client.reply()).collect();
            assert!(replies[3].starts_with(b":"), "round {round}");
        }
    }
    assert_eq!(running.connect().ask("GET n"), "$3\r\n800\r\n");
}
