//! What is wrong, and how it is mended.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::harness::{Home, Serving, expect};

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed + 1;
    let byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(byte).take(len).collect()
}

fn stop(server: Serving) {
    server.signal("TERM");
    assert_eq!(server.end().0, 0);
}

/// A stopped directory with 6 entries in files and 3 in the log.
fn stopped() -> (Home, PathBuf) {
    let home = Home::new();
    let server = home.serve(&[]);
    let url = server.url();
    for number in 0..9u64 {
        let artifact = noise(number, if number < 6 { 60_000 } else { 900 });
        let put = home.run_with(&["put", &format!("k{number}"), "--server", &url], &artifact);
        assert!(put.starts_with("exit 0"), "{put}");
    }
    stop(server);
    let data = home.path(".local/share/pilotlight");
    (home, data)
}

fn doctor(home: &Home, data: &Path, arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
    let all = [&["doctor", "--json", "--data-dir", data.to_str().unwrap()], arguments].concat();
    let output = home.output(&all, b"");
    let json = serde_json::from_slice(&output.stdout);
    (output.status.code(), json.unwrap_or_else(|error| panic!("{error}: {output:?}")))
}

fn problems(report: &serde_json::Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let problems = findings.filter(|finding| finding["is_problem"] == true && finding["subject"] != "disk");
    problems.map(|finding| finding["finding"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn nothing_is_wrong_with_what_is_whole_and_the_doctor_changes_nothing() {
    let (home, data) = stopped();
    let listed = |data: &Path| {
        let mut listed: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        let mut left = vec![data.to_owned()];
        while let Some(dir) = left.pop() {
            for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    left.push(path)
                } else {
                    listed.push((path.clone(), std::fs::read(path).unwrap()))
                }
            }
        }
        listed.sort();
        listed
    };
    let before = listed(&data);
    let (code, report) = doctor(&home, &data, &[]);
    assert_eq!((problems(&report), report["is_healthy"].clone()), (vec![], (code == Some(0)).into()));
    assert!(listed(&data) == before);
}

#[test]
fn a_lost_log_is_rebuilt_from_payload_files_and_what_cannot_be_had_is_told() {
    let (home, data) = stopped();
    let segment = std::fs::read_dir(data.join("log")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(segment).unwrap();
    let (code, report) = doctor(&home, &data, &[]);
    assert_eq!(code, Some(1));
    assert_eq!(problems(&report), ["6 files are all that is left of an entry that can be rebuilt"]);
    let (code, report) = doctor(&home, &data, &["--repair"]);
    assert_eq!((problems(&report), &report["mended"]["rebuilt"]), (vec![], &6.into()), "{code:?}");
    for number in 0..9u64 {
        let get = home.output(&["get", &format!("k{number}"), "--data-dir", data.to_str().unwrap()], b"");
        let expected = if number < 6 { noise(number, 60_000) } else { Vec::new() };
        assert!(get.stdout == expected, "k{number}");
    }
    let server = home.serve(&[]);
    assert!(home.output(&["get", "k5", "--server", &server.url()], b"").stdout == noise(5, 60_000));
    stop(server);
}

#[test]
fn damage_in_the_log_is_mended_and_told_line_by_line() {
    let (home, data) = stopped();
    crate::client::flip(&data.join("log"), &noise(7, 900)[100..140]);
    std::fs::write(data.join("blobs/00112233445566778899aabbccddeeff.ffff"), [7; 9000]).unwrap();
    let target = ["doctor", "--data-dir", data.to_str().unwrap()];
    let text = home.run(&target);
    assert!(text.starts_with("exit 1\n"), "{text}");
    assert!(text.contains("out: problem: log: 1 record is damaged"), "{text}");
    assert!(text.contains("out: problem: payload files: 1 file is held by no entry"), "{text}");
    assert!(text.matches("hint: ").count() >= 2 && text.contains("`--repair` mends 2"), "{text}");
    let text = home.run(&[&target[..], &["--repair"]].concat());
    assert!(text.contains("out: mended: 1 file removed that no entry held"), "{text}");
    assert!(text.contains("out: mended: 1 segment of the log written anew"), "{text}");
    let (_, report) = doctor(&home, &data, &[]);
    assert_eq!(problems(&report), Vec::<String>::new());
    for number in (0..9u64).filter(|number| *number != 7) {
        let get = home.output(&["get", &format!("k{number}"), "--data-dir", data.to_str().unwrap()], b"");
        assert!(get.stdout == noise(number, if number < 6 { 60_000 } else { 900 }), "k{number}");
    }
}

#[test]
fn a_lost_format_is_told_and_nothing_is_touched() {
    let (home, data) = stopped();
    std::fs::remove_file(data.join("FORMAT")).unwrap();
    for arguments in [&["doctor"][..], &["doctor", "--repair"]] {
        let text = home.run(&[arguments, &["--data-dir", data.to_str().unwrap()]].concat());
        assert!(!text.starts_with("exit 0"), "{text}");
        assert!(text.contains("it has no FORMAT"), "{text}");
    }
    let text = home.run(&["doctor", "--data-dir", data.to_str().unwrap()]);
    assert!(text.contains("hint: FORMAT has the seed of every check: put it back from a backup"), "{text}");
    assert!(std::fs::read_dir(data.join("blobs")).unwrap().count() == 6);
}

#[test]
fn whoever_has_the_directory_is_named_and_nothing_is_mended_under_it() {
    let home = Home::new();
    let server = home.serve(&[]);
    let data = home.path(".local/share/pilotlight");
    let (code, report) = doctor(&home, &data, &[]);
    let found = problems(&report).concat();
    assert_eq!(code, Some(1));
    assert!(found.contains("it is in use by process ") && found.contains("pilotlight serve"), "{found}");
    let text = home.run(&["doctor", "--repair", "--data-dir", data.to_str().unwrap()]);
    assert!(
        text.starts_with("exit 2\n") && text.contains("hint: ask the server there, with `--server URL`"),
        "{text}"
    );
    stop(server);
}

#[test]
fn a_directory_that_others_may_write_is_told_and_mended() {
    let (home, data) = stopped();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o777)).unwrap();
    let (code, report) = doctor(&home, &data, &[]);
    assert_eq!(
        (code, problems(&report)),
        (Some(1), vec!["others than its owner may write it (mode 777)".to_owned()])
    );
    let (_, report) = doctor(&home, &data, &["--repair"]);
    assert_eq!((problems(&report), &report["mended"]["are_permissions_mended"]), (vec![], &true.into()));
    assert_eq!(data.metadata().unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn a_running_server_is_looked_at_and_mended() {
    let home = Home::new();
    let server = home.serve(&["--memory", "0"]);
    let url = server.url();
    let data = home.path(".local/share/pilotlight");
    for number in 0..3u64 {
        home.run_with(&["put", &format!("k{number}"), "--server", &url], &noise(number, 60_000));
    }
    // Else the sweep that follows a start may come first.
    home.run(&["gc", "--server", &url]);
    crate::client::flip(&data.join("blobs"), &noise(1, 60_000)[1000..1040]);
    let stray = data.join("blobs/00112233445566778899aabbccddeeff.ffff");
    std::fs::write(&stray, [7; 9000]).unwrap();
    let text = home.run(&["doctor", "--server", &url]);
    assert!(text.contains("out: problem: payload files: 1 file is held by no entry"), "{text}");
    let text = home.run(&["doctor", "--repair", "--server", &url]);
    assert!(text.contains("out: mended: 1 entry damaged, and set aside"), "{text}");
    assert!(text.contains("out: mended: 1 file removed that no entry held"), "{text}");
    assert!(text.contains("out: note: quarantine: 1 entry is set aside"), "{text}");
    assert!(!stray.exists());
    assert!(home.output(&["get", "k2", "--server", &url], b"").stdout == noise(2, 60_000));
    stop(server);
}

#[test]
fn a_configuration_that_serve_would_refuse_is_told() {
    let (home, data) = stopped();
    home.write(".config/pilotlight/pilotlight.toml", "max_size = \"many\"\n");
    let (code, report) = doctor(&home, &data, &[]);
    assert_eq!(code, Some(1));
    assert_eq!(report["findings"][0]["subject"], "configuration", "{report}");
    expect(
        &home.run(&["doctor", "--data-dir", "nowhere"]).replace("os error 2", "ENOENT"),
        "
exit 2
err: error: could not look at `nowhere`
err:   caused by: No such file or directory (ENOENT)
err:
err: hint: `--data-dir` takes the directory that `serve` was given or named at its start",
    );
}
