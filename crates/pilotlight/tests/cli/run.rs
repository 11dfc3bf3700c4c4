use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::harness::{Home, expect};

const LINE: &str = r#"{"pid":1,"hit":{"fx-graph":{"":2}},"miss":{"fx-graph":{"absent":1},"cpp-kernel":{"fingerprint":3}},"put":{"fx-graph":{"":1}},"backfill":{"fx-graph":{"":1}},"saved_ms":1500,"client":{}}"#;

#[test]
fn the_processes_of_a_command_are_summed_up_and_its_code_is_kept() {
    let home = Home::new();
    let script = format!("for i in 1 2; do echo '{LINE}' >> $PILOTLIGHT_REPORT; done; echo out; exit 3");
    assert_eq!(
        home.run(&["run", "--report", "report.json", "--", "/bin/sh", "-c", &script]),
        "exit 3\nout: out\nerr: pilotlight: 4 hits, 8 misses (6 fingerprint, 2 absent), 2 puts; 3.0 s of compiling saved in 2 processes\n"
    );
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(home.path("report.json")).unwrap()).unwrap();
    assert_eq!(report["miss"]["cpp-kernel"]["fingerprint"], 6);
    assert_eq!((&report["processes"], &report["backfill"]["fx-graph"][""]), (&2.into(), &2.into()));
    let described = include_str!("../../../../docs/plugin.md");
    for (field, _) in report.as_object().unwrap() {
        assert!(described.contains(&format!("`{field}`")), "docs/plugin.md lacks {field}");
    }
}

#[test]
fn the_command_is_told_which_cache_to_use() {
    let home = Home::new().with("PILOTLIGHT_URL", "redis://variable:1");
    let script = ["--", "/bin/sh", "-c", "echo $PILOTLIGHT_URL"];
    let told = |home: &Home, arguments: &[&str]| {
        let output = home.output(&[&["run", "-q"], arguments, &script].concat(), b"");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(told(&home, &[]), "redis://variable:1\n");
    assert_eq!(told(&home, &["--url", "file:///flag"]), "file:///flag\n");
    assert_eq!(told(&Home::new(), &[]), "pilotlight://127.0.0.1:6379\n");
}

#[test]
fn quiet_reaches_the_processes_of_the_command() {
    let script = ["--", "/bin/sh", "-c", "echo quiet: $PILOTLIGHT_QUIET"];
    expect(&Home::new().run(&[&["run", "--quiet"], &script[..]].concat()), "exit 0\nout: quiet: 1");
    let loud = Home::new().run(&[&["run"], &script[..]].concat());
    assert!(loud.contains("out: quiet:\n"), "{loud}");
}

#[test]
fn a_command_that_used_no_cache_gets_a_hint() {
    let home = Home::new();
    assert_eq!(
        home.run(&["run", "--", "/bin/sh", "-c", "exit 0"]),
        "exit 0\nerr: pilotlight: no process of this command used the cache\nerr: hint: it must compile with torch, from an environment in which `pilotlight` is installed\n"
    );
}

#[test]
fn a_command_that_is_not_there_answers_as_in_a_shell() {
    let home = Home::new();
    let answer = home.run(&["run", "--", "./nothing"]);
    assert!(answer.starts_with("exit 127\n"), "{answer}");
    assert!(answer.contains("err: error: cannot run `./nothing`\n"), "{answer}");
}

#[test]
fn a_signal_reaches_the_command() {
    let home = Home::new();
    let script = "trap 'echo ended; exit 7' TERM; echo ready; read line";
    let mut child = home
        .command(&["run", "-q", "--", "/bin/sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "ended");
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn a_cache_whose_entries_nobody_trusted_signed_does_not_look_like_an_empty_one() {
    let line = r#"{"miss":{"fx-graph":{"unsigned":3}},"client":{"hits":0,"unsigned":5,"unknown_signer":1}}"#;
    let script = format!("echo '{line}' >> $PILOTLIGHT_REPORT");
    for (verify, expected) in [
        (
            "require",
            "err:   6 entries not used for their signature (5 unsigned, 1 unknown-signer)\nerr:   hint: none was used;",
        ),
        ("warn", "err:   6 entries used that nobody trusted signed (5 unsigned, 1 unknown-signer)\n"),
    ] {
        let text =
            Home::new().with("PILOTLIGHT_VERIFY", verify).run(&["run", "--", "/bin/sh", "-c", &script]);
        assert!(text.contains(expected), "{text}");
        assert_eq!(text.contains("hint:"), verify == "require");
    }
}
