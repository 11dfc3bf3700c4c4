//! The commands that look at a cache, against a running server.

use crate::harness::{Home, expect};

#[test]
fn an_artifact_goes_in_and_comes_out_byte_for_byte() {
    let home = Home::new();
    let server = home.serve(&[]);
    let url = server.url();
    let artifact: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let file = home.write("artifact", &artifact);
    expect(&home.run(&["put", "from file", &file, "--server", &url]), "exit 0\nerr: stored 293 KiB");
    let stdin = home.run_with(&["put", "from-stdin", "--server", &url], &artifact);
    expect(&stdin, "exit 0\nerr: stored 293 KiB");
    for key in ["from file", "from-stdin"] {
        assert!(home.output(&["get", key, "--server", &url], b"").stdout == artifact, "{key}");
    }
    let copy = home.path("copy");
    expect(&home.run(&["get", "from file", "-o", copy.to_str().unwrap(), "--server", &url]), "exit 0");
    assert!(std::fs::read(copy).unwrap() == artifact);
}

#[test]
fn a_miss_is_exit_code_1_and_an_empty_stdout() {
    let home = Home::new();
    let server = home.serve(&[]);
    let url = server.url();
    expect(&home.run(&["get", "k", "--server", &url]), "exit 1\nerr: miss: no entry under this key");
    expect(
        &home.run(&["get", "k", "--json", "--server", &url]),
        "exit 1\nout: {\nout:   \"found\": false,\nout:   \"artifact_bytes\": null\nout: }",
    );
}

#[test]
fn rm_deletes_what_is_there_and_says_what_is_not() {
    let home = Home::new();
    let server = home.serve(&[]);
    let url = server.url();
    for key in ["a", "b", "c"] {
        home.run_with(&["put", key, "--server", &url], b"x");
    }
    expect(&home.run(&["rm", "a", "--server", &url]), "exit 0\nerr: deleted 1 entry");
    expect(&home.run(&["rm", "a", "b", "--server", &url]), "exit 1\nerr: deleted 1 entry, 1 absent");
    home.run_with(&["put", "k", "--namespace", "team", "--server", &url], b"x");
    expect(&home.run(&["rm", "--all", "--yes", "--server", &url]), "exit 0\nerr: deleted 1 entry");
    assert!(home.run(&["get", "k", "--namespace", "team", "--server", &url]).starts_with("exit 0"));
}

#[test]
fn a_namespace_stays_under_its_quota() {
    let home = Home::new();
    let server = home.serve(&["--quota", "db1=200KB", "--quota", "team=1MiB"]);
    let url = server.url();
    let mut artifact = vec![0u8; 60_000];
    home.run_with(&["put", "other", "--server", &url], &artifact);
    for number in 0..10u64 {
        // Nothing that compresses.
        let mut state = number + 1;
        artifact.iter_mut().for_each(|byte| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        });
        let key = number.to_string();
        let put = home.run_with(&["put", &key, "--namespace", "db1", "--server", &url], &artifact);
        assert!(put.starts_with("exit 0"), "{put}");
    }
    let count = |namespace: &str| {
        let output = home.output(&["ls", "--json", "--namespace", namespace, "--server", &url], b"");
        serde_json::from_slice::<Vec<serde_json::Value>>(&output.stdout).unwrap().len()
    };
    assert_eq!((count("db1"), count("")), (3, 1));
}

#[test]
fn ls_filters_sorts_and_limits() {
    let home = Home::new();
    let server = home.serve(&[]);
    let url = server.url();
    for (key, len) in [("pt2:fx-graph-v1::f:c1", 10), ("small", 1), ("large", 2048), ("middle\u{1b}", 100)] {
        home.run_with(&["put", key, "--server", &url], &vec![0; len]);
    }
    let keys = |arguments: &[&str]| {
        let output = home.output(&[&["ls", "--json", "--server", &url], arguments].concat(), b"");
        let entries: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        entries.iter().map(|entry| entry["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&[]).len(), 4);
    assert_eq!(keys(&["--kind", "fx-graph"]), ["pt2:fx-graph-v1::f:c1"]);
    assert_eq!(keys(&["--sort", "size", "--limit", "2"]), ["large", "middle\u{1b}"]);
    assert_eq!(keys(&["--limit", "0"]), Vec::<String>::new());
    assert_eq!(keys(&["--namespace", "other"]), Vec::<String>::new());
    let page = home.run(&["ls", "--sort", "size", "--server", &url]);
    let lines: Vec<&str> = page.lines().collect();
    assert!(lines[1].starts_with("out: kind") && lines[1].ends_with("key"), "{page}");
    assert!(lines[2].contains("2 KiB") && lines[2].ends_with("large"), "{page}");
    assert!(page.contains("middle\\u{1b}"), "a key must not steer the terminal: {page}");
}

#[test]
fn stats_count_by_kind_what_was_done() {
    let home = Home::new();
    let server = home.serve(&["--memory", "0"]);
    let url = server.url();
    home.run_with(&["put", "pt2:fx-graph-v1::f:c1", "--server", &url], &[0; 2048]);
    home.run(&["get", "pt2:fx-graph-v1::f:c1", "--server", &url]);
    home.run(&["get", "pt2:fx-graph-v1::absent:c1", "--server", &url]);
    let page = home.run(&["stats", "--server", &url]);
    for line in [
        "out: kind      hits  misses  hit rate  puts  exceptions  served  received  saved",
        "out: fx-graph     1       1    50.0 %     1           0   2 KiB     2 KiB      -",
        "out: total        1       1    50.0 %     1           0   2 KiB     2 KiB      -",
        "out: entries       1",
        "out: compile time saved: 0s",
    ] {
        assert!(page.lines().any(|found| found == line), "no {line:?} in\n{page}");
    }
    let json = home.output(&["stats", "--json", "--server", &url], b"").stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["kinds"]["fx-graph"]["hit_rate"], 0.5);
}

#[test]
fn counters_begin_with_the_server_and_sizes_do_not() {
    let home = Home::new();
    let server = home.serve(&[]);
    home.run_with(&["put", "k", "--server", &server.url()], b"x");
    home.run(&["get", "k", "--server", &server.url()]);
    server.signal("TERM");
    assert_eq!(server.end().0, 0);
    let server = home.serve(&[]);
    let page = home.run(&["stats", "--server", &server.url()]);
    assert!(page.contains("\nout: counted since the start, "), "{page}");
    let json = home.output(&["stats", "--json", "--server", &server.url()], b"").stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&json["total"]["hits"], &json["total"]["puts"]), (&0.into(), &0.into()));
    assert_eq!(json["usage"]["entries"], 1);
    let json = home.output(&["ls", "--json", "--server", &server.url()], b"").stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json[0]["hits"], 0);
}

#[test]
fn an_expired_entry_is_a_miss_and_a_lasting_one_says_how_long() {
    let home = Home::new();
    let server = home.serve(&[]);
    let url = server.url();
    home.run_with(&["put", "k", "--ttl", "1d", "--server", &url], b"x");
    let page = home.run(&["ls", "--server", &url]);
    assert!(page.contains("23h 59m") || page.contains("1d 0h"), "{page}");
}

#[test]
fn the_password_is_taken_from_the_environment_or_a_file() {
    let home = Home::new().with("PILOTLIGHT_PASSWORD", "hunter2");
    let server = home.serve(&[]);
    assert!(server.announced.contains("redis://:PASSWORD@127.0.0.1"), "{}", server.announced);
    assert!(!server.announced.contains("hunter2"));
    let url = server.url();
    assert!(home.run(&["stats", "--server", &url]).starts_with("exit 0"));
    let other = Home::new();
    let file = other.write("password", "hunter2\n");
    assert!(other.run(&["stats", "--password-file", &file, "--server", &url]).starts_with("exit 0"));
    expect(
        &other.run(&["stats", "--server", &url]),
        "
exit 2
err: error: a password is needed
err:
err: hint: give it with PILOTLIGHT_PASSWORD or `--password-file FILE`",
    );
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let home = Home::new();
    let mut child = home
        .command(&["completions", "bash"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn the_server_is_found_through_the_environment() {
    let server_home = Home::new();
    let server = server_home.serve(&[]);
    let home = Home::new().with("PILOTLIGHT_HTTP_URL", &server.url());
    assert!(home.run_with(&["put", "k"], b"x").starts_with("exit 0"));
}

#[test]
fn a_stopped_directory_answers_as_its_server_did() {
    let home = Home::new();
    let server = home.serve(&[]);
    let url = server.url();
    home.run_with(&["put", "pt2:fx-graph-v1::f:c1", "--server", &url], &[7; 100_000]);
    home.run_with(&["put", "small", "--namespace", "team", "--server", &url], b"text\n");
    let listed = home.output(&["ls", "--json", "--server", &url], b"").stdout;
    let data = home.path(".local/share/pilotlight");
    let data = data.to_str().unwrap();
    let mut locked = home.run(&["stats", "--data-dir", data]);
    let process =
        locked.split_once(" in use by ").and_then(|(_, rest)| rest.lines().next()).unwrap().to_owned();
    assert!(process.starts_with("process ") && process.contains("serve"), "{process}");
    locked = locked.replace(&process, "[PROCESS]");
    expect(
        &locked,
        "
exit 2
err: error: `[HOME]/.local/share/pilotlight` is in use by [PROCESS]
err:
err: hint: ask the server there, with `--server URL`, or stop it first",
    );
    server.signal("TERM");
    assert_eq!(server.end().0, 0);

    assert!(home.output(&["get", "pt2:fx-graph-v1::f:c1", "--data-dir", data], b"").stdout == [7; 100_000]);
    expect(&home.run(&["get", "small", "--namespace", "team", "--data-dir", data]), "exit 0\nout: text");
    let keys = |json: &[u8]| -> Vec<serde_json::Value> {
        let entries: Vec<serde_json::Value> = serde_json::from_slice(json).unwrap();
        entries.iter().map(|entry| entry["key"].clone()).collect()
    };
    assert_eq!(keys(&home.output(&["ls", "--json", "--data-dir", data], b"").stdout), keys(&listed));
    let stats = home.run(&["stats", "--data-dir", data]);
    assert!(stats.contains("out: entries       2"), "{stats}");
    assert!(stats.contains("out: a directory that no server has open: nothing is counted"), "{stats}");
    let verified = home.run(&["verify", "--data-dir", data]);
    assert!(verified.starts_with("exit 0\nout: checked 2 entries, "), "{verified}");
    expect(&home.run(&["rm", "pt2:fx-graph-v1::f:c1", "--data-dir", data]), "exit 0\nerr: deleted 1 entry");

    // What was done to the directory is what the next server serves.
    expect(&home.run_with(&["put", "late", "--data-dir", data], b"late\n"), "exit 0\nerr: stored 5 B");
    let server = home.serve(&[]);
    expect(&home.run(&["get", "late", "--server", &server.url()]), "exit 0\nout: late");
    assert!(home.run(&["get", "pt2:fx-graph-v1::f:c1", "--server", &server.url()]).starts_with("exit 1"));
}

#[test]
fn verify_against_a_server_checks_every_entry() {
    let home = Home::new();
    let server = home.serve(&[]);
    let url = server.url();
    for key in ["a", "b", "c"] {
        home.run_with(&["put", key, "--server", &url], key.repeat(40_000).as_bytes());
    }
    let text = home.run(&["verify", "--server", &url]);
    assert!(text.starts_with("exit 0\nout: checked 3 entries, ") && text.contains("all whole"), "{text}");
    let json = home.output(&["verify", "--json", "--server", &url], b"").stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&json["entries_checked"], &json["damaged_count"]), (&3.into(), &0.into()));
}

#[test]
fn damage_on_the_disk_is_found_and_is_exit_code_1() {
    let home = Home::new();
    let server = home.serve(&[]);
    // Bytes that do not compress, so that they can be found in the file.
    let mut state = 1_u64;
    let artifact: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(200_000)
    .collect();
    home.run_with(&["put", "victim", "--server", &server.url()], &artifact);
    server.signal("TERM");
    assert_eq!(server.end().0, 0);
    let data = home.path(".local/share/pilotlight");
    flip(&data, &artifact[100_000..100_032]);
    let data = data.to_str().unwrap();
    let text = home.run(&["verify", "--data-dir", data]);
    assert!(text.starts_with("exit 1\nout: checked 1 entry, "), "{text}");
    assert!(text.contains("1 damaged\nout:   victim: "), "{text}");
    assert!(home.run(&["get", "victim", "--data-dir", data]).starts_with("exit 1\nerr: miss"));
    let listed = home.run(&["quarantine", "ls", "--data-dir", data]);
    assert!(listed.contains("yes  victim: its payload fails the check"), "{listed}");
    let kept = home.run(&["quarantine", "purge", "--older-than", "1d", "--data-dir", data]);
    expect(&kept, "exit 0\nerr: purged 0 entries, 0 B freed");
    let server = home.serve(&[]);
    let url = server.url();
    let json = home.output(&["quarantine", "ls", "--json", "--server", &url], b"").stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&json[0]["key"], &json[0]["is_kept"]), (&"victim".into(), &true.into()));
    let purged = home.run(&["quarantine", "purge", "--all", "--server", &url]);
    assert!(purged.starts_with("exit 0\nerr: purged 1 entry, 2"), "{purged}");
    expect(&home.run(&["quarantine", "ls", "--server", &url]), "exit 0\nerr: nothing was set aside");
}

/// Flips one bit of the file below `directory` that holds `needle`.
pub(crate) fn flip(directory: &std::path::Path, needle: &[u8]) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            flip(&path, needle);
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(place) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[place] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

#[test]
fn gc_gives_back_what_was_deleted_at_a_server_and_in_a_stopped_directory() {
    let home = Home::new();
    let server = home.serve(&[]);
    let url = server.url();
    for key in 0..200u32 {
        let artifact: Vec<u8> =
            (0..20_000u32).flat_map(|at| at.wrapping_mul(key + 7).to_le_bytes()).collect();
        home.run_with(&["put", &format!("k{key}"), "--server", &url], &artifact[..20_000]);
    }
    let keys: Vec<String> = (1..200u32).map(|key| format!("k{key}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    home.run(&[&["rm", "--server", &url], &keys[..]].concat());
    let report = |arguments: &[&str]| -> serde_json::Value {
        let output = home.output(&[&["gc", "--json"], arguments].concat(), b"");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let planned = report(&["--dry-run", "--server", &url]);
    assert!(planned["dead_bytes"].as_u64() > Some(100_000), "{planned}");
    let text = home.run(&["gc", "--dry-run", "--server", &url]);
    assert!(text.contains("out: Nothing was changed"), "{text}");
    let found = report(&["--server", &url]);
    assert!(
        found["after_bytes"].as_u64().unwrap() + 100_000 < found["before_bytes"].as_u64().unwrap(),
        "{found}"
    );
    let data = home.path(".local/share/pilotlight");
    let stray = data.join("blobs/00112233445566778899aabbccddeeff.ffff");
    let data = data.to_str().unwrap();
    assert!(home.run(&["gc", "--data-dir", data]).contains("is in use by process "));
    server.signal("TERM");
    assert_eq!(server.end().0, 0);
    std::fs::write(&stray, [7; 50_000]).unwrap();
    let planned = report(&["--dry-run", "--data-dir", data]);
    assert!(planned["orphans"] == 1 && stray.exists(), "{planned}");
    let found = report(&["--data-dir", data]);
    assert!(found["orphans"] == 1 && !stray.exists(), "{found}");
    assert!(
        found["after_bytes"].as_u64().unwrap() + 50_000 <= found["before_bytes"].as_u64().unwrap(),
        "{found}"
    );
    assert!(home.run(&["get", "k0", "--output", "/dev/null", "--data-dir", data]).starts_with("exit 0"));
}
