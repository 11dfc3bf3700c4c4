//! The life of a server: start, trouble, end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::harness::{Home, expect};

#[test]
fn the_start_says_where_what_and_what_to_export() {
    let home = Home::new();
    let server = home.serve(&["--max-size", "1GiB", "--memory", "64MiB"]);
    let redis = server.addresses["redis"][0].as_str().unwrap().to_owned();
    let http = server.addresses["http"][0].as_str().unwrap().to_owned();
    let text = server.announced.replace(home.directory.path().to_str().unwrap(), "[HOME]");
    let said =
        |expected: &str| assert!(text.lines().any(|line| line == expected), "no {expected:?} in\n{text}");
    said(&format!("pilotlight {}", env!("CARGO_PKG_VERSION")));
    said(&format!("  redis       redis://{redis}"));
    said(&format!("  http        http://{http}"));
    said("  data        [HOME]/.local/share/pilotlight");
    said("  limits      1 GiB on disk, 64 MiB in memory, 512 MiB an entry");
    said("  durability  relaxed (kill -9 loses nothing; synced every second)");
    said("  password    none");
    said(&format!("  export PILOTLIGHT_URL=pilotlight://{redis}"));
    said(&format!(
        "  export TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE=1 TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE=1 \
         TORCHINDUCTOR_REDIS_URL=redis://{redis}"
    ));
    assert!(text.contains("  stack       hot(64 MiB, "), "{text}");
}

#[test]
fn the_readme_shows_the_start_as_it_is() {
    let home = Home::new();
    let server = home.serve(&[]);
    let mut text = server.announced.replace(home.directory.path().to_str().unwrap(), "/home/you");
    for (name, usual) in [("redis", "127.0.0.1:6379"), ("http", "127.0.0.1:6380")] {
        text = text.replace(server.addresses[name][0].as_str().unwrap(), usual);
    }
    let readme = include_str!("../../../../README.md");
    let (_, shown) = readme.split_once("$ pilotlight serve\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    expect(&text, shown);
}

#[test]
fn a_server_on_a_unix_socket_alone_says_its_url() {
    let home = Home::new();
    let path = home.path("socket");
    let server = home.serve(&["--listen", &format!("unix:{}", path.display())]);
    let export = format!("  export PILOTLIGHT_URL=unix://{}\n", path.display());
    assert!(server.announced.contains(&export), "{}", server.announced);
}

#[test]
fn the_first_signal_ends_it_with_a_summary() {
    for signal in ["TERM", "INT"] {
        let home = Home::new();
        let server = home.serve(&[]);
        home.run_with(&["put", "k", "--server", &server.url()], b"x");
        home.run(&["get", "k", "--server", &server.url()]);
        server.signal(signal);
        let (code, said) = server.end();
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("served 1 hit, 0 misses and 1 put in "), "{said}");
    }
}

#[test]
fn the_second_signal_ends_it_at_once() {
    let home = Home::new();
    let mut server = home.serve(&["--drain-timeout", "1h"]);
    // An upload that never ends holds the shutdown up.
    let mut upload = TcpStream::connect(server.addresses["http"][0].as_str().unwrap()).unwrap();
    upload
        .write_all(b"PUT /cache/k HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n")
        .unwrap();
    // The server asks for the body: the request is running.
    upload.read_exact(&mut [0; 12]).unwrap();
    server.signal("TERM");
    assert_eq!(server.line(), "shutting down; once more to end at once");
    server.signal("TERM");
    assert_eq!(server.end().0, 130);
}

#[test]
fn a_port_in_use_is_named_with_a_way_on() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, other) in [("--listen", "--http"), ("--http", "--listen")] {
        let text = home.run(&["serve", flag, &address, other, "127.0.0.1:0"]).replace(&address, "[ADDRESS]");
        expect(
            &text,
            &format!(
                "exit 2\n\
                 err: error: could not listen on [ADDRESS]\n\
                 err:   caused by: Address already in use (os error 98)\n\
                 err:\n\
                 err: hint: another server has this port, maybe another Pilotlight or a Redis; choose one with `{flag} HOST:PORT`"
            ),
        );
    }
}

#[test]
fn a_unix_socket_is_made_announced_and_removed() {
    let home = Home::new();
    let path = home.path("socket");
    let unix = format!("unix:{}", path.display());
    let server = home.serve(&["--listen", &unix, "--listen", "127.0.0.1:0"]);
    assert!(path.exists());
    assert!(server.announced.contains(&unix));
    let second = home.run(&["serve", "--listen", &unix, "--http", "off"]);
    assert!(second.contains("another server listens on unix:[HOME]/socket"), "{second}");
    server.signal("TERM");
    assert_eq!(server.end().0, 0);
    assert!(!path.exists());
}

#[test]
fn an_open_door_without_a_password_is_refused() {
    expect(
        &Home::new().run(&["serve", "--listen", "0.0.0.0:0"]),
        "
exit 2
err: error: 0.0.0.0:0 can be reached from other machines, and there is no password
err:
err: hint: set one with PILOTLIGHT_PASSWORD or `--password-file FILE`, name users with `--users FILE`, or accept that everybody who can connect can run code in your jobs: `--insecure`",
    );
}

#[test]
fn a_data_directory_that_cannot_be_is_named() {
    let home = Home::new();
    let file = home.write("file", "x");
    let below = format!("{file}/below");
    let text = home.run(&["serve", "--listen", "127.0.0.1:0", "--http", "off", "--data-dir", &below]);
    assert!(
        text.starts_with("exit 2\nerr: error: could not open the store in `[HOME]/file/below`"),
        "{text}"
    );
    assert!(text.contains("\nerr: hint: "), "{text}");
}

#[test]
fn a_bound_that_cannot_be_kept_is_refused_with_the_least_that_can() {
    let home = Home::new();
    let text = home.run(&["serve", "--listen", "127.0.0.1:0", "--http", "off", "--max-size", "1MiB"]);
    assert!(text.starts_with("exit 2\n"), "{text}");
    assert!(text.contains("caused by: a bound of 1048576 bytes, expected at least "), "{text}");
    assert!(text.contains("hint: use `--max-size "), "{text}");
}

#[test]
fn what_was_put_survives_kill_9() {
    let home = Home::new();
    let server = home.serve(&[]);
    home.run_with(&["put", "k", "--server", &server.url()], b"survivor\n");
    server.signal("KILL");
    drop(server);
    let server = home.serve(&[]);
    expect(&home.run(&["get", "k", "--server", &server.url()]), "exit 0\nout: survivor");
}

#[test]
fn a_recorded_trace_is_what_the_simulator_reads() {
    let home = Home::new();
    let file = home.path("trace");
    let server = home.serve(&["--record-trace", file.to_str().unwrap()]);
    home.run_with(&["put", "k", "--server", &server.url()], b"x");
    for _ in 0..2 {
        home.run(&["get", "k", "--server", &server.url()]);
    }
    home.run(&["get", "absent", "--server", &server.url()]);
    home.run(&["rm", "k", "--server", &server.url()]);
    server.signal("TERM");
    assert_eq!(server.end().0, 0);
    let text = std::fs::read_to_string(&file).unwrap();
    let mut lines = text.lines();
    let simulator = include_str!("../../../../bench/simulator/src/trace.rs");
    let columns = lines.next().unwrap();
    assert!(simulator.contains(&format!("const COLUMNS: &str = \"{columns}\";")), "{columns}");
    let lines: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert!(lines.iter().all(|line| line.len() == columns.split(',').count()), "{text}");
    let operations: Vec<_> = lines.iter().map(|line| line[1]).collect();
    assert_eq!(operations, ["put", "get", "get", "get", "delete"], "{text}");
    assert!(lines[..3].iter().all(|line| line[2] == lines[0][2] && line[3] != "0"), "{text}");
    assert_eq!(lines[3][3], "0", "a miss");
    // What was recorded is not written over.
    let text = home.run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--http",
        "off",
        "--record-trace",
        file.to_str().unwrap(),
    ]);
    assert!(text.contains("hint: name a file that is not there yet"), "{text}");
}
