//! Export and import.

use std::path::Path;

use crate::harness::{Home, Serving, expect};

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed + 1;
    let byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(byte).take(len).collect()
}

/// A home with a server that has 300 entries in three namespaces, of all sizes, one of them pinned and one that expires.
fn filled() -> (Home, Serving, String) {
    let home = Home::new();
    let server = home.serve(&["--memory", "0"]);
    let url = server.url();
    for (key, namespace, artifact) in entries() {
        let put = ["put", &key, "--namespace", &namespace, "--ttl", "2d", "--server", &url];
        let put = if key == "expires" { &put[..] } else { &[&put[..4], &put[6..]].concat() };
        assert!(home.run_with(put, &artifact).starts_with("exit 0"));
    }
    assert!(home.run(&["pin", "k3", "--server", &url]).starts_with("exit 0"));
    (home, server, url)
}

fn entries() -> Vec<(String, String, Vec<u8>)> {
    let mut entries = vec![
        ("expires".to_owned(), String::new(), b"soon".to_vec()),
        ("pt2:fx-graph-v1::f:c1".to_owned(), String::new(), noise(1, 200_000)),
        ("empty".to_owned(), "team".to_owned(), Vec::new()),
        ("large".to_owned(), "db1".to_owned(), noise(2, 6 << 20)),
    ];
    for number in 0..30u64 {
        let artifact = noise(number, if number % 5 == 0 { 50_000 } else { 700 });
        entries.push((format!("k{number}"), String::new(), artifact));
    }
    entries
}

fn holds_all(home: &Home, target: &[&str]) {
    for (key, namespace, artifact) in entries() {
        let get = [&["get", &key, "--namespace", &namespace], target].concat();
        assert!(home.output(&get, b"").stdout == artifact, "{key}");
    }
    let listed = home.output(&[&["ls", "--json"], target].concat(), b"").stdout;
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed).unwrap();
    let find = |key: &str| listed.iter().find(|entry| entry["key"] == key).unwrap();
    assert_eq!((&find("k3")["is_pinned"], &find("k4")["is_pinned"]), (&true.into(), &false.into()));
    assert!(
        find("expires")["expires_ms"].as_u64().unwrap() > find("expires")["created_ms"].as_u64().unwrap()
    );
    assert!(find("k3")["expires_ms"].is_null());
}

fn stop(server: Serving) {
    server.signal("TERM");
    assert_eq!(server.end().0, 0);
}

fn report(home: &Home, arguments: &[&str]) -> serde_json::Value {
    let output = home.output(arguments, b"");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_was_exported_is_imported_with_all_that_is_known_of_it() {
    let (home, server, url) = filled();
    let exported = report(&home, &["export", "live.plx", "--json", "--server", &url]);
    assert_eq!((&exported["entries"], &exported["damaged"]), (&34.into(), &0.into()));
    let created = |target: &[&str]| -> std::collections::BTreeMap<String, u64> {
        let listed = home.output(&[&["ls", "--json"], target].concat(), b"").stdout;
        let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed).unwrap();
        listed.iter().map(|entry| (entry["key"].to_string(), entry["created_ms"].as_u64().unwrap())).collect()
    };
    let hits = home.output(&["ls", "--json", "--server", &url], b"").stdout;
    assert!(String::from_utf8(hits).unwrap().matches("\"hits\": 0").count() == 32, "an export is no use");
    let created_there = created(&["--server", &url]);
    let data = home.path(".local/share/pilotlight");
    let data = data.to_str().unwrap().to_owned();
    stop(server);
    let stopped = report(&home, &["export", "stopped.plx", "--json", "--data-dir", &data]);
    assert_eq!(stopped["entries"], 34);

    // Into a running server, and into a directory that is not there yet.
    let other = Home::new();
    let server = other.serve(&[]);
    let (live, stopped) = (home.path("live.plx"), home.path("stopped.plx"));
    let (live, stopped) = (live.to_str().unwrap(), stopped.to_str().unwrap());
    let url = server.url();
    let imported = report(&other, &["import", stopped, "--json", "--server", &url]);
    assert_eq!((&imported["imported"], &imported["unchanged"]), (&34.into(), &0.into()));
    holds_all(&other, &["--server", &url]);
    assert_eq!(created(&["--server", &url]), created_there);
    let new = report(&other, &["import", live, "--json", "--data-dir", "new"]);
    assert_eq!(new["imported"], 34);
    holds_all(&other, &["--data-dir", "new"]);
    for target in [["--server", &*url], ["--data-dir", "new"]] {
        let again = report(&other, &[&["import", live, "--json"], &target[..]].concat());
        assert_eq!((&again["imported"], &again["unchanged"]), (&0.into(), &34.into()));
    }
    stop(server);
}

#[test]
fn a_selection_is_what_is_exported() {
    let (home, server, url) = filled();
    let count = |selection: &[&str]| {
        let arguments = [&["export", "file.plx", "--force", "--json", "--server", &url], selection].concat();
        report(&home, &arguments)["entries"].as_u64().unwrap()
    };
    assert_eq!(count(&["--namespace", "team"]), 1);
    assert_eq!(count(&["--namespace", "", "--namespace", "db1"]), 33);
    assert_eq!(count(&["--kind", "fx-graph"]), 1);
    assert_eq!(count(&["--pattern", "k1?"]), 10);
    assert_eq!(count(&["--since", "1h"]), 34);
    assert_eq!(count(&["--pattern", "nobody"]), 0);
    assert!(home.run(&["import", "file.plx", "--server", &url]).starts_with("exit 0\nerr: imported 0 of 0"));
    stop(server);
}

#[test]
fn stdout_and_stdin_do_as_well() {
    let (home, server, url) = filled();
    let exported = home.output(&["export", "-", "--server", &url], b"");
    assert!(exported.status.success());
    let other = Home::new();
    let imported = other.run_with(&["import", "-", "--data-dir", "new"], &exported.stdout);
    assert!(imported.starts_with("exit 0\nerr: imported 34 of 34 entries"), "{imported}");
    holds_all(&other, &["--data-dir", "new"]);
    // Only what stands before the damage is taken in.
    let cut = &exported.stdout[..exported.stdout.len() / 2];
    let broken = other.run_with(&["import", "-", "--data-dir", "half"], cut);
    assert!(broken.starts_with("exit 1\n"), "{broken}");
    assert!(broken.contains(&format!("the file breaks off at byte {}", cut.len())), "{broken}");
    assert!(broken.contains("before it were taken in"), "{broken}");
    stop(server);
}

#[test]
fn a_damaged_file_changes_nothing_and_the_place_is_named() {
    let (home, server, url) = filled();
    report(&home, &["export", "file.plx", "--json", "--server", &url]);
    let whole = std::fs::read(home.path("file.plx")).unwrap();
    let at = whole.len() / 3;
    let mut damaged = whole.clone();
    damaged[at] ^= 1;
    home.write("damaged.plx", &damaged);
    for import in
        [&["import", "damaged.plx", "--data-dir", "new"][..], &["import", "damaged.plx", "--dry-run"]]
    {
        let text = home.run(import);
        assert!(text.starts_with("exit 1\nerr: error: the file is not taken in\n"), "{text}");
        assert!(text.contains("damage at byte ") && text.contains("hint: use another copy"), "{text}");
    }
    assert!(!home.path("new").exists());
    home.write("other.plx", b"something else, and longer than any preamble");
    assert!(home.run(&["import", "other.plx"]).starts_with("exit 2"));
    expect(
        &home.run(&["import", "file.plx", "--dry-run"]).replace(&whole.len().to_string(), "LEN"),
        "exit 0\nerr: the file is whole: 34 entries, 6.5 MiB",
    );
    stop(server);
}

#[test]
fn an_interrupted_export_goes_on_with_what_is_missing() {
    let (home, server, url) = filled();
    report(&home, &["export", "whole.plx", "--json", "--server", &url]);
    let whole = std::fs::read(home.path("whole.plx")).unwrap();
    let refused = home.run(&["export", "whole.plx", "--server", &url]);
    assert!(refused.contains("`whole.plx` is there already"), "{refused}");
    for len in [200, whole.len() / 4, whole.len() / 2, whole.len() - 1, whole.len()] {
        let _ = std::fs::remove_file(home.path("file.plx"));
        home.write("file.plx.partial", &whole[..len]);
        let refused = home.run(&["export", "file.plx", "--server", &url]);
        assert!(
            refused.starts_with("exit 2") && refused.contains("hint: go on with it with `--resume`"),
            "{refused}"
        );
        if len == 200 {
            // Not even what it is of is in there.
            let refused = home.run(&["export", "file.plx", "--resume", "--server", &url]);
            assert!(refused.contains("hint: begin anew with `--force`"), "{refused}");
            continue;
        }
        let exported = report(&home, &["export", "file.plx", "--resume", "--json", "--server", &url]);
        assert_eq!(exported["entries"], 34, "cut to {len}");
        assert!(!home.path("file.plx.partial").exists());
        let checked = home.run(&["import", "file.plx", "--dry-run"]);
        assert!(checked.starts_with("exit 0\nerr: the file is whole: 34 entries"), "{checked}");
    }
    let other = Home::new();
    other.write("file.plx.partial", &whole[..whole.len() / 2]);
    let server_of_other = other.serve(&[]);
    let text = other.run(&["export", "file.plx", "--resume", "--server", &server_of_other.url()]);
    assert!(text.contains("it is of another store"), "{text}");
    stop(server_of_other);
    stop(server);
}

#[test]
fn an_export_nobody_can_finish_keeps_the_file_that_was_there() {
    let (home, server, url) = filled();
    home.write("file.plx", b"the backup of yesterday");
    stop(server);
    let text = home.run(&["export", "file.plx", "--force", "--server", &url]);
    assert!(text.starts_with("exit 2"), "{text}");
    assert_eq!(std::fs::read(home.path("file.plx")).unwrap(), b"the backup of yesterday");
    // A disk without room.
    if Path::new("/dev/full").exists() {
        std::os::unix::fs::symlink("/dev/full", home.path("full.plx.partial")).unwrap();
        let data = home.path(".local/share/pilotlight");
        let data = data.to_str().unwrap();
        let text = home.run(&["export", "full.plx", "--force", "--data-dir", data]);
        assert!(text.starts_with("exit 2\nerr: error: could not write the export"), "{text}");
        assert!(text.contains("No space left") && text.contains("--resume"), "{text}");
    }
}

#[test]
fn an_import_mends_what_is_damaged_and_leaves_what_is_newer() {
    let home = Home::new();
    let server = home.serve(&[]);
    let url = server.url();
    home.run_with(&["put", "same", "--server", &url], &noise(1, 90_000));
    home.run_with(&["put", "other", "--server", &url], b"old");
    report(&home, &["export", "file.plx", "--json", "--server", &url]);
    home.run_with(&["put", "other", "--server", &url], b"new");
    stop(server);
    let data = home.path(".local/share/pilotlight");
    crate::client::flip(&data, &noise(1, 90_000)[1000..1040]);
    let data = data.to_str().unwrap();
    let imported = report(&home, &["import", "file.plx", "--json", "--data-dir", data]);
    assert_eq!((&imported["imported"], &imported["newer_stayed"]), (&1.into(), &1.into()));
    assert!(home.output(&["get", "same", "--data-dir", data], b"").stdout == noise(1, 90_000));
    expect(&home.run(&["get", "other", "--data-dir", data]), "exit 0\nout: new");
    let replaced = report(&home, &["import", "file.plx", "--replace", "--json", "--data-dir", data]);
    assert_eq!((&replaced["replaced"], &replaced["unchanged"]), (&1.into(), &1.into()));
    expect(&home.run(&["get", "other", "--data-dir", data]), "exit 0\nout: old");
}

#[test]
fn what_a_server_does_not_take_is_named_and_the_rest_is_imported() {
    let (home, server, url) = filled();
    report(&home, &["export", "file.plx", "--json", "--server", &url]);
    stop(server);
    let other = Home::new();
    let server = other.serve(&["--max-entry-size", "1MiB"]);
    let file = home.path("file.plx");
    let text = other.run(&["import", file.to_str().unwrap(), "--server", &server.url()]);
    assert!(text.starts_with("exit 1\nerr: imported 33 of 34 entries"), "{text}");
    assert!(text.contains("err:   large: "), "{text}");
    stop(server);
}
