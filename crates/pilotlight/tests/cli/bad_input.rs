//! What each command says to input it cannot use.

use crate::harness::{Home, expect};

#[test]
fn every_command_refuses_unknown_flags_with_its_usage() {
    let home = Home::new();
    for command in
        ["serve", "stats", "ls", "get", "put", "rm", "pin", "unpin", "verify", "config", "completions", "man"]
    {
        let text = home.run(&[command, "--no-such-flag"]);
        assert!(text.starts_with("exit 2\nerr: error: unexpected argument '--no-such-flag' found"), "{text}");
        assert!(text.contains(&format!("Usage: pilotlight {command}")), "{text}");
    }
}

#[test]
fn a_url_that_is_none_is_refused_before_anything_is_sent() {
    for url in ["localhost:6380", "ftp://host", "http://", "https://"] {
        expect(
            &Home::new().run(&["stats", "--server", url]),
            &format!(
                "exit 2\n\
                 err: error: `{url}` is no address of a server\n\
                 err:\n\
                 err: hint: give one as `--server http://HOST:PORT`, the address of `serve --http`, or as in PILOTLIGHT_URL"
            ),
        );
    }
}

#[test]
fn a_server_that_is_not_there_is_named_with_three_ways_on() {
    // Port 1 is reserved; nobody listens there.
    expect(
        &Home::new().run(&["get", "key", "--server", "http://127.0.0.1:1"]),
        "
exit 2
err: error: could not reach a server at http://127.0.0.1:1
err:   caused by: io: Connection refused (os error 111)
err:
err: hint: start one with `pilotlight serve`, name another with PILOTLIGHT_URL or `--server URL`, or look into the directory of a stopped one with `--data-dir DIR`",
    );
}

#[test]
fn what_is_too_large_to_put_is_told_with_the_limit() {
    let home = Home::new();
    let server = home.serve(&["--max-entry-size", "1KiB"]);
    for (key, len) in [("k", 1025), ("k", 10 << 20), ("pt2:fx-graph-v1::f:c1", 10 << 20)] {
        let file = home.write("file", vec![0; len]);
        expect(
            &home.run(&["put", key, &file, "--server", &server.url()]),
            &format!(
                "exit 2\n\
                 err: error: entry of {len} bytes, expected at most 1024\n\
                 err:\n\
                 err: hint: raise `--max-entry-size`, or `--max-size` if that is the smaller"
            ),
        );
    }
    let stats = home.run(&["stats", "--server", &server.url()]);
    assert!(stats.contains("out: puts refused: 1 too-large"), "{stats}");
}

#[test]
fn a_directory_that_is_not_there_is_not_made() {
    let home = Home::new();
    expect(
        &home.run(&["stats", "--data-dir", home.path("nothing").to_str().unwrap()]),
        "
exit 2
err: error: there is no directory `[HOME]/nothing`
err:
err: hint: `--data-dir` takes the directory that `serve` was given or named at its start",
    );
    assert!(!home.path("nothing").exists());
}

#[test]
fn a_directory_that_jobs_share_is_told_from_a_server_s() {
    let home = Home::new();
    home.write("shared/pilotlight-1/00/x.entry", "");
    let directory = home.path("shared");
    for command in ["stats", "ls", "verify", "doctor", "gc"] {
        expect(
            &home.run(&[command, "--data-dir", directory.to_str().unwrap()]),
            "
exit 2
err: error: `[HOME]/shared` is a directory that jobs share (`file://[HOME]/shared`), and no server's
err:
err: hint: jobs keep it by themselves; `--data-dir` takes the directory that `serve` named at its start",
        );
    }
}

#[test]
fn a_server_or_a_directory_but_not_both() {
    let text = Home::new().run(&["ls", "--server", "http://x:1", "--data-dir", "/x"]);
    assert!(text.contains("'--server <URL>' cannot be used with '--data-dir <DIR>'"), "{text}");
}

#[test]
fn rm_all_must_be_confirmed() {
    let text = Home::new().run(&["rm", "--all"]);
    assert!(text.starts_with("exit 2") && text.contains("--yes"), "{text}");
    let text = Home::new().run(&["rm"]);
    assert!(text.starts_with("exit 2") && text.contains("<KEY>"), "{text}");
}

#[test]
fn values_out_of_range_are_refused() {
    let home = Home::new();
    for (arguments, expected) in [
        (&["ls", "--kind", "cat"][..], "[possible values: fx-graph, aot-autograd,"),
        (&["ls", "--sort", "colour"], "[possible values: size, age, hits]"),
        (&["ls", "--limit", "-1"], "unexpected argument '-1'"),
        (&["put", "k", "--ttl", "soon"], "expected a duration such as `4s`"),
        (&["put", "k", "--ttl", "0s"], "expected more than 0"),
        (&["put", "k", "--ttl", "60"], "expected a unit as well: `60s` or `60m`"),
        (&["get", ""], "the key is empty"),
        (&["put", "k", "/no/such/file"], "could not read `/no/such/file`"),
        (&["completions", "tcsh"], "possible values: bash, elvish, fish, powershell, zsh"),
        (&["config"], "<--reference|--example>"),
    ] {
        let text = home.run(arguments);
        assert!(text.starts_with("exit 2\n") && text.contains(expected), "{arguments:?}: {text}");
    }
}
