//! Which server a command asks, and what is said of a URL that names none.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::harness::{Home, Serving, expect};

fn redis(server: &Serving) -> &str {
    server.addresses["redis"][0].as_str().unwrap()
}

#[test]
fn what_jobs_are_told_is_enough_for_commands() {
    let home = Home::new();
    let socket = home.path("socket");
    let unix = format!("unix:{}", socket.display());
    let server = home.serve(&["--listen", "127.0.0.1:0", "--listen", &unix]);
    let urls = [
        format!("pilotlight://{}", redis(&server)),
        format!("redis://{}/0", redis(&server)),
        format!("pilotlight://:of-another-server@{}", redis(&server)),
        format!("unix://{}", socket.display()),
    ];
    for url in urls {
        let job = Home::new().with("PILOTLIGHT_URL", &url);
        expect(&job.run_with(&["put", "k"], b"x"), "exit 0\nerr: stored 1 B");
        expect(&Home::new().run(&["get", "k", "--server", &url]), "exit 0\nout: x");
    }
    // An HTTP address was meant for commands.
    let job = Home::new().with("PILOTLIGHT_URL", "file:///shared").with("PILOTLIGHT_HTTP_URL", &server.url());
    expect(&job.run(&["get", "k"]), "exit 0\nout: x");
}

#[test]
fn the_database_in_the_url_is_the_namespace_and_an_empty_one_points_to_others() {
    let server_home = Home::new();
    let server = server_home.serve(&[]);
    let url = format!("pilotlight://{}/3", redis(&server));
    let job = Home::new().with("PILOTLIGHT_URL", &url);
    expect(&job.run_with(&["put", "k"], b"x"), "exit 0\nerr: stored 1 B");
    expect(&job.run(&["get", "k", "--namespace", "db3"]), "exit 0\nout: x");
    assert!(job.run(&["get", "k", "--namespace", ""]).starts_with("exit 1\n"));
    assert!(job.run(&["ls"]).ends_with(" k\n"));
    let text = job.run(&["ls", "--namespace", "3"]);
    let hint = "err: hint: nothing in the namespace 3; look into another: '', db3\n";
    assert!(text.ends_with(hint), "{text}");
    assert!(!job.run(&["ls", "--namespace", "3", "--json"]).contains("hint"));
}

#[test]
fn the_password_in_the_url_is_used() {
    let home = Home::new().with("PILOTLIGHT_PASSWORD", "hunter2");
    let socket = home.path("socket");
    let unix = format!("unix:{}", socket.display());
    let server = home.serve(&["--listen", "127.0.0.1:0", "--listen", &unix]);
    let run = |url: &str| {
        Home::new().with("PILOTLIGHT_URL", url).run(&["stats"]).replace(redis(&server), "[ADDRESS]")
    };
    assert!(run(&format!("pilotlight://:hunter2@{}", redis(&server))).starts_with("exit 0\n"));
    assert!(run(&format!("unix://:hunter2@{}", socket.display())).starts_with("exit 0\n"));
    let file = home.write("password", "hunter2\n");
    let by_file = Home::new()
        .with("PILOTLIGHT_URL", &format!("pilotlight://{}", redis(&server)))
        .with("PILOTLIGHT_PASSWORD_FILE", &file);
    assert!(by_file.run(&["stats"]).starts_with("exit 0\n"));
    expect(
        &run(&format!("pilotlight://:wrong@{}", redis(&server))),
        "
exit 2
err: error: the server at pilotlight://:***@[ADDRESS] refuses: WRONGPASS invalid username-password pair or user is disabled.
err:
err: hint: write the password into the URL, `pilotlight://:PASSWORD@HOST`, or give it with PILOTLIGHT_PASSWORD or `--password-file FILE`",
    );
    let without = run(&format!("unix://{}", socket.display()));
    assert!(without.contains("refuses: NOAUTH "), "{without}");
    assert!(without.contains("hint: write the password into the URL, `unix://:PASSWORD@/PATH`"), "{without}");
}

#[test]
fn a_url_that_leads_to_no_server_is_told_with_a_way_on() {
    let home = Home::new();
    let server = home.serve(&[]);
    let http = server.url().replace("http://", "pilotlight://");
    for (url, expected, hint) in [
        (http.as_str(), "names the HTTP port of a server", "6379 by default"),
        (
            "file:///shared/dir",
            "PILOTLIGHT_URL is the directory `/shared/dir`, and no server to ask",
            "--server http://",
        ),
        ("foo://x", "PILOTLIGHT_URL: unknown scheme `foo`", "write pilotlight://host:6379"),
        // Port 1 is reserved; nobody listens there.
        ("rediss://127.0.0.1:1", "could not reach the server of PILOTLIGHT_URL", "pilotlight serve"),
        ("pilotlight://127.0.0.1:1", "could not reach the server of PILOTLIGHT_URL", "pilotlight serve"),
    ] {
        let text = Home::new().with("PILOTLIGHT_URL", url).run(&["ls"]);
        assert!(text.starts_with("exit 2\n") && text.contains(expected), "{text}");
        assert!(text.split_once("\nerr: hint: ").is_some_and(|(_, found)| found.contains(hint)), "{text}");
    }
}

#[test]
fn a_redis_is_told_from_a_pilotlight() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let redis = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; b"*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n".len()]).unwrap();
        stream.write_all(b"$22\r\nredis_version:7.0.15\r\n\r\n").unwrap();
    });
    let text = Home::new().with("PILOTLIGHT_URL", &url).run(&["stats"]);
    redis.join().unwrap();
    assert!(text.starts_with("exit 2\n") && text.contains("is no Pilotlight\n"), "{text}");
}

#[test]
fn a_command_is_not_run_with_a_url_that_is_none() {
    let run = ["run", "--url", "foo://u:hunter2@x", "--", "/bin/sh", "-c", "echo ran"];
    expect(
        &Home::new().run(&run),
        "
exit 2
err: error: --url: unknown scheme `foo`
err:
err: hint: write pilotlight://host:6379, redis://user:password@host:6379/0, pilotlights:// or rediss://host for TLS, unix:///path/to/socket or file:///directory",
    );
    let text =
        Home::new().with("PILOTLIGHT_URL", "cache:6379").run(&["run", "--", "/bin/sh", "-c", "echo ran"]);
    assert!(text.starts_with("exit 2\nerr: error: PILOTLIGHT_URL: the URL has no scheme\n"), "{text}");
}
