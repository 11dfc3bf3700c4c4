//! Nobody sees or touches what it was not granted, whatever it says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;

use pilotlight_cache::{Cursor, Head, Namespace};

use crate::client::{Client, Running};
use crate::users::UsersFile;

const USERS: &str = r#"
[users.owner]
secret = "SECRET(owner)"
home = "theirs"
grants = ["rwa *"]
# Stands in the namespace of others, and may nothing there.
[users.lost]
secret = "SECRET(lost)"
home = "theirs"
grants = ["rw mine"]
# Has rights, elsewhere.
[users.guest]
secret = "SECRET(guest)"
home = "mine"
grants = ["rw mine", "r *:pgo", "a mine/db1"]
"#;

/// What nobody but the owner may come to see.
const TREASURE: &str = "TR3ASURE";
/// Keys that are there, each with one of the same kind and length that is not.
const KEYS: [(&str, &str); 4] = [
    ("pt2:fx-graph-v1::there:c1", "pt2:fx-graph-v1::gone!:c1"),
    ("cpp-kernel:there", "cpp-kernel:gone!"),
    ("there", "gone!"),
    ("17there", "17gone!"),
];

/// After these a connection is another one than before.
const TURNS: [&str; 12] = [
    "auth",
    "client|reply",
    "client|setname",
    "client|setinfo",
    "discard",
    "exec",
    "hello",
    "multi",
    "quit",
    "reset",
    "select",
    "watch",
];
/// Their answers depend on the moment.
const MOMENTARY: [&str; 7] =
    ["client|id", "client|info", "info", "lastsave", "time", "client|getname", "hello"];

type Dump = BTreeMap<(String, Vec<u8>), Head>;

/// Every entry of every namespace: a head changes with each put, use, expiry and deletion.
fn dump(running: &Running) -> Dump {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut entries = Dump::new();
    for name in ["", "db1", "theirs", "theirs/db1", "mine", "mine/db1"] {
        let namespace = Namespace::new(name).unwrap();
        let mut cursor = Cursor::START;
        loop {
            let page = runtime.block_on(running.server.cache.scan(&namespace, cursor, 1000)).unwrap();
            let keyed =
                |(key, head): (pilotlight_cache::Key, Head)| ((name.to_owned(), key.bytes().to_vec()), head);
            entries.extend(page.keys.into_iter().map(keyed));
            cursor = page.next;
            if cursor == Cursor::START {
                break;
            }
        }
    }
    entries
}

/// All commands that the server has, subcommands included.
fn commands(client: &mut Client<TcpStream>) -> Vec<String> {
    let reply = client.ask("COMMAND LIST");
    let names: Vec<String> =
        reply.split("\r\n").filter(|line| !line.starts_with(['*', '$'])).map(str::to_owned).collect();
    let containers: BTreeSet<_> =
        names.iter().filter_map(|name| Some(name.split_once('|')?.0.to_owned())).collect();
    let names: Vec<_> =
        names.into_iter().filter(|name| !name.is_empty() && !containers.contains(name)).collect();
    assert!(names.len() > 90, "{names:?}");
    names
}

/// Arguments of every shape that a command may take, around `KEY`.
fn arguments() -> Vec<String> {
    const WORDS: [&str; 4] = ["KEY", "1", "0", "own"];
    let mut lines = vec![String::new()];
    let mut longest = lines.clone();
    for _ in 0..3 {
        longest = longest.iter().flat_map(|line| WORDS.map(|word| format!("{line} {word}"))).collect();
        lines.extend(longest.iter().cloned());
    }
    for line in [
        "KEY own DB 1",
        "KEY own DB 0 REPLACE",
        "own KEY DB 1 REPLACE",
        "own KEY REPLACE",
        "KEY KEY DB 1",
        "KEY v GET",
        "KEY v NX GET",
        "KEY v XX",
        "KEY v KEEPTTL",
        "KEY v EX 1",
        "KEY PERSIST",
        "KEY EX 1",
        "KEY PX 1",
        "KEY 1 v",
        "KEY 1 XX",
        "KEY 0 GT",
        "0 MATCH *",
        "0 COUNT 1000",
        "*",
        "KEY 1000 0",
        "KEY 1000 0 AGAIN",
        "KEY SAMPLES 0",
        "own KEY own KEY",
        "KEY own KEY own",
        "own 1 KEY 1",
        "memory",
        "everything",
        "ASYNC",
    ] {
        lines.push(format!(" {line}"));
    }
    lines
}

fn intrude(file: &UsersFile, running: &Running, name: &str) {
    let before = dump(running);
    let all = commands(&mut file.log_in(running, name));
    let mut asked = 0;
    for command in &all {
        let mut client = file.log_in(running, name);
        for line in arguments() {
            for (there, gone) in KEYS {
                if !line.contains("KEY") && there != KEYS[0].0 {
                    continue;
                }
                let mut answers = [there, gone].map(|key| {
                    if TURNS.contains(&command.as_str()) {
                        client = file.log_in(running, name);
                    }
                    let words = format!("{}{line}", command.replace('|', " ")).replace("KEY", key);
                    if matches!(command.as_str(), "quit" | "client|reply") {
                        client.send(&crate::client::array(&words.split(' ').collect::<Vec<_>>()));
                        return String::new();
                    }
                    asked += 1;
                    let answer = client.ask(&words);
                    assert!(!answer.contains(TREASURE), "{name}: {words}: {answer}");
                    answer.replace(key, "KEY")
                });
                if MOMENTARY.contains(&command.as_str()) {
                    answers[1] = answers[0].clone();
                }
                assert_eq!(answers[0], answers[1], "{name} can tell what is there: {command}{line} {there}");
            }
        }
    }
    assert!(asked > 10_000, "{asked}");
    let of_others = |dump: Dump| -> Dump {
        dump.into_iter().filter(|((namespace, _), _)| !(name == "guest" && namespace == "mine")).collect()
    };
    assert_eq!(of_others(dump(running)), of_others(before), "{name} changed what is not its own");
}

fn filled(file: &UsersFile) -> Running {
    let running = file.serve();
    let mut owner = file.log_in(&running, "owner");
    for database in [0, 1] {
        owner.ask(&format!("SELECT {database}"));
        for (there, _) in KEYS {
            assert_eq!(owner.ask(&format!("SET {there} {TREASURE}{there} EX 100000")), "+OK\r\n");
        }
    }
    let mut guest = file.log_in(&running, "guest");
    assert_eq!(guest.ask("SET own 1"), "+OK\r\n");
    running
}

#[test]
fn no_command_tells_or_changes_anything_where_nothing_is_granted() {
    let file = UsersFile::new(USERS, &["owner", "lost", "guest"]);
    let running = filled(&file);
    intrude(&file, &running, "lost");
}

#[test]
fn rights_in_one_namespace_open_no_other() {
    let file = UsersFile::new(USERS, &["owner", "lost", "guest"]);
    let running = filled(&file);
    let before = dump(&running);
    intrude_from(&file, &running);
    let theirs = |dump: &Dump| -> Dump {
        let is_theirs = |((namespace, _), _): &(&(String, Vec<u8>), &Head)| namespace.starts_with("theirs");
        dump.iter().filter(is_theirs).map(|(name, head)| (name.clone(), *head)).collect()
    };
    assert_eq!(theirs(&dump(&running)), theirs(&before));
}

/// Every command, in every database that the guest can select.
fn intrude_from(file: &UsersFile, running: &Running) {
    for command in commands(&mut file.log_in(running, "guest")) {
        if matches!(command.as_str(), "quit" | "client|reply" | "client|kill") {
            continue;
        }
        for database in [0, 1] {
            let mut client = file.log_in(running, "guest");
            for line in arguments() {
                if TURNS.contains(&command.as_str()) {
                    client = file.log_in(running, "guest");
                }
                assert_eq!(client.ask(&format!("SELECT {database}")), "+OK\r\n");
                let words = format!("{}{line}", command.replace('|', " ")).replace("KEY", KEYS[2].0);
                let answer = client.ask(&words);
                assert!(!answer.contains(TREASURE), "{words}: {answer}");
            }
        }
    }
}

#[test]
fn a_user_without_any_right_is_told_so_and_no_more() {
    let file = UsersFile::new(USERS, &["owner", "lost", "guest"]);
    let running = filled(&file);
    let mut lost = file.log_in(&running, "lost");
    let graph = KEYS[0].0;
    for (command, expected) in [
        (format!("GET {graph}"), "$-1\r\n"),
        (format!("SET {graph} v"), "$-1\r\n"),
        (format!("MGET {graph} {graph}"), "*2\r\n$-1\r\n$-1\r\n"),
        (format!("PILOTLIGHT.MGET {graph}"), "*1\r\n$-1\r\n"),
        (format!("PILOTLIGHT.LEASE {graph} 1000 0"), "*1\r\n$5\r\nalone\r\n"),
        (format!("PILOTLIGHT.GROUP {graph} {graph}"), ":0\r\n"),
        (format!("EXISTS {graph}"), ":0\r\n"),
        ("GET there".into(), "-NOPERM No permissions to access a key\r\n"),
        ("SET there v".into(), "-NOPERM No permissions to access a key\r\n"),
        (format!("MGET {graph} there"), "-NOPERM No permissions to access a key\r\n"),
        (format!("DEL {graph}"), "-NOPERM No permissions to access a key\r\n"),
        ("SCAN 0".into(), "-NOPERM User lost has no permissions to run the 'scan' command\r\n"),
        ("DBSIZE".into(), "-NOPERM User lost has no permissions to run the 'dbsize' command\r\n"),
        ("FLUSHDB".into(), "-NOPERM User lost has no permissions to run the 'flushdb' command\r\n"),
        ("FLUSHALL".into(), "-NOPERM User lost has no permissions to run the 'flushall' command\r\n"),
        ("CONFIG GET *".into(), "-NOPERM User lost has no permissions to run the 'config|get' command\r\n"),
        ("CLIENT LIST".into(), "-NOPERM User lost has no permissions to run the 'client|list' command\r\n"),
        ("SAVE".into(), "-NOPERM User lost has no permissions to run the 'save' command\r\n"),
        ("PING".into(), "+PONG\r\n"),
    ] {
        assert_eq!(lost.ask(&command), expected, "{command}");
    }
}
