//! What those may who may something, and what they are answered where they may not.

use pilotlight_cache::{ErrorKind, Key, Namespace};

use crate::client::{Running, array};
use crate::users::UsersFile;

const GRAPH: &str = "pt2:fx-graph-v1::f:c1";
const KERNEL: &str = "cpp-kernel:k";

const USERS: &str = r#"
[users.root]
secret = "SECRET(root)"
grants = ["rwa *"]
[users.ci]
secret = "SECRET(ci)"
home = "ci"
grants = ["rw ci", "rw ci/db1", "r release:fx-graph"]
[users.reader]
secret = "SECRET(reader)"
home = "release"
grants = ["r release:fx-graph"]
[users.writer]
secret = "SECRET(writer)"
home = "release"
grants = ["w release"]
[users.boss]
secret = "SECRET(boss)"
home = "ci"
grants = ["rwa ci"]
[namespaces.ci]
trust = "low"
reads = ["release"]
[namespaces."ci/db1"]
reads = ["ci", "release"]
"#;

fn start() -> (UsersFile, Running) {
    let file = UsersFile::new(USERS, &["root", "ci", "reader", "writer", "boss"]);
    let running = file.serve();
    (file, running)
}

#[test]
fn a_reader_gets_what_it_may_and_its_puts_are_nil_for_a_compiler() {
    let (file, running) = start();
    let mut writer = file.log_in(&running, "writer");
    assert_eq!(writer.ask(&format!("MSET {GRAPH} graph {KERNEL} kernel other value")), "+OK\r\n");
    let mut reader = file.log_in(&running, "reader");
    assert_eq!(reader.ask(&format!("GET {GRAPH}")), "$5\r\ngraph\r\n");
    assert_eq!(reader.ask(&format!("GET {KERNEL}")), "$-1\r\n");
    // Each key has its own answer, in its place.
    let several = format!("MGET {KERNEL} {GRAPH} {KERNEL} absent-is-no-kind");
    assert_eq!(reader.ask(&several), "-NOPERM No permissions to access a key\r\n");
    let several = format!("MGET {KERNEL} {GRAPH} {KERNEL} {GRAPH}");
    assert_eq!(reader.ask(&several), "*4\r\n$-1\r\n$5\r\ngraph\r\n$-1\r\n$5\r\ngraph\r\n");
    let envelopes = reader.ask(&several.replace("MGET", "PILOTLIGHT.MGET"));
    assert!(envelopes.starts_with("*4\r\n$-1\r\n$") && envelopes.contains("graph"), "{envelopes:?}");
    for put in [
        "SET {} v",
        "SET {} v EX 10",
        "SETEX {} 10 v",
        "PSETEX {} 10 v",
        "GETSET {} v",
        "APPEND {} v",
        "SETRANGE {} 0 v",
        "PILOTLIGHT.PUT {} v",
    ] {
        assert_eq!(reader.ask(&put.replace("{}", GRAPH)), "$-1\r\n", "{put}");
        assert_eq!(
            reader.ask(&put.replace("{}", "other")),
            "-NOPERM No permissions to access a key\r\n",
            "{put}"
        );
    }
    assert_eq!(reader.ask(&format!("GET {GRAPH}")), "$5\r\ngraph\r\n");
    let counted = running.server.cache.stats().snapshot();
    assert_eq!(counted.refused_puts[ErrorKind::Denied as usize], 8);
    assert_eq!(counted.absorbed_gets[ErrorKind::Denied as usize], 8);
    // The keys of other kinds are not listed, nor counted.
    assert_eq!(reader.ask("KEYS *"), format!("*1\r\n${}\r\n{GRAPH}\r\n", GRAPH.len()));
    assert_eq!(reader.ask("DBSIZE"), ":1\r\n");
    assert!(reader.ask("SCAN 0 COUNT 1000").ends_with(&format!("*1\r\n${}\r\n{GRAPH}\r\n", GRAPH.len())));
    for _ in 0..20 {
        assert_eq!(reader.ask("RANDOMKEY"), format!("${}\r\n{GRAPH}\r\n", GRAPH.len()));
    }
    assert!(!reader.ask("INFO keyspace").contains("db0:"), "it counts kinds that it may not read");
}

#[test]
fn a_writer_learns_no_value() {
    let (file, running) = start();
    file.log_in(&running, "root").ask("PING");
    let mut writer = file.log_in(&running, "writer");
    assert_eq!(writer.ask("SET k treasure"), "+OK\r\n");
    for asks in [
        "GET k",
        "SET k v GET",
        "GETSET k v",
        "GETDEL k",
        "GETEX k",
        "APPEND k v",
        "STRLEN k",
        "INCR k",
        "COPY k l",
        "RENAME k l",
        "KEYS *",
        "WATCH k",
        "OBJECT ENCODING k",
    ] {
        assert!(writer.ask(asks).starts_with("-NOPERM"), "{asks}");
    }
    for writes in ["SET k v XX", "EXPIRE k 100", "PERSIST k", "DEL k", "SETNX k v", "FLUSHDB"] {
        assert!(!writer.ask(writes).starts_with('-'), "{writes}");
    }
}

#[test]
fn databases_are_namespaces_of_the_home() {
    let (file, running) = start();
    let (mut ci, mut root) = (file.log_in(&running, "ci"), file.log_in(&running, "root"));
    assert_eq!(ci.ask("SET k home"), "+OK\r\n");
    assert_eq!(ci.ask("SELECT 1"), "+OK\r\n");
    assert_eq!(ci.ask("SET k one"), "+OK\r\n");
    let keyspace = ci.ask("INFO keyspace");
    assert!(keyspace.contains("\r\ndb0:keys=1,") && keyspace.contains("\r\ndb1:keys=1,"), "{keyspace}");
    assert_eq!(ci.ask("SELECT 2"), "+OK\r\n");
    assert_eq!(ci.ask("GET k"), "-NOPERM No permissions to access a key\r\n");
    for database in [0, 1, 2] {
        root.ask(&format!("SELECT {database}"));
        assert_eq!(root.ask("GET k"), "$-1\r\n", "{database} of another home is another namespace");
        root.ask("SET k root");
    }
    // To other databases, if they may be written; never out of a namespace where who puts first wins.
    assert_eq!(ci.ask("SELECT 1"), "+OK\r\n");
    assert_eq!(ci.ask("COPY k fresh DB 0"), ":1\r\n");
    assert_eq!(ci.ask("COPY k fresh DB 2"), "-NOPERM No permissions to access a key\r\n");
    assert_eq!(ci.ask("MOVE k 2"), "-NOPERM No permissions to access a key\r\n");
    assert_eq!(ci.ask("SET moved v"), "+OK\r\n");
    assert_eq!(ci.ask("MOVE moved 0"), ":1\r\n");
    assert_eq!(ci.ask("SELECT 0"), "+OK\r\n");
    assert_eq!(ci.ask("MOVE moved 1"), "-NOPERM No permissions to access a key\r\n");
    // Everything it may clear, and nothing else.
    assert_eq!(ci.ask("FLUSHALL"), "+OK\r\n");
    assert_eq!(ci.ask("GET k"), "$4\r\nhome\r\n", "low trust");
    assert_eq!(ci.ask("SELECT 1"), "+OK\r\n");
    assert_eq!(ci.ask("DBSIZE"), ":0\r\n");
    assert_eq!(root.ask("GET k"), "$4\r\nroot\r\n");
}

#[test]
fn where_trust_is_low_who_puts_first_wins() {
    let (file, running) = start();
    let (mut ci, mut boss) = (file.log_in(&running, "ci"), file.log_in(&running, "boss"));
    for key in [GRAPH, "other"] {
        let is_compiler = key == GRAPH;
        let refused = |answer: String, what: &str| {
            let expected =
                if is_compiler { "$-1\r\n" } else { "-NOPERM in namespace `ci` who puts first wins\r\n" };
            assert_eq!(answer, expected, "{what}");
        };
        assert_eq!(ci.ask(&format!("SET {key} first")), "+OK\r\n");
        for put in [
            "SET {} v",
            "SET {} v XX",
            "SET {} v KEEPTTL",
            "SET {} v EX 1",
            "SETEX {} 1 v",
            "MSET {} v",
            "GETSET {} v",
            "APPEND {} v",
            "SETRANGE {} 0 v",
        ] {
            let put = put.replace("{}", key);
            refused(ci.ask(&put), &put);
        }
        // As Redis: it is there.
        assert_eq!(ci.ask(&format!("SET {key} v NX")), "$-1\r\n");
        assert_eq!(ci.ask(&format!("SETNX {key} v")), ":0\r\n");
        for change in [
            "DEL {}",
            "UNLINK {}",
            "EXPIRE {} 1",
            "PEXPIREAT {} 1",
            "PERSIST {}",
            "RENAME {} l",
            "MOVE {} 1",
            "PILOTLIGHT.GROUP {} {}",
        ] {
            let answer = ci.ask(&change.replace("{}", key));
            let expected = if is_compiler && change.starts_with("PIL") {
                ":0\r\n"
            } else {
                "-NOPERM No permissions to access a key\r\n"
            };
            assert_eq!(answer, expected, "{change}");
        }
        for take in ["GETDEL {}", "GETEX {} EX 1"] {
            let answer = ci.ask(&take.replace("{}", key));
            let expected = if is_compiler { "$-1\r\n" } else { "-NOPERM No permissions to access a key\r\n" };
            assert_eq!(answer, expected, "{take}");
        }
        assert_eq!(ci.ask(&format!("GETEX {key}")), "$5\r\nfirst\r\n");
        assert_eq!(ci.ask(&format!("TTL {key}")), ":-1\r\n");
        assert_eq!(ci.ask("FLUSHDB"), "-NOPERM User ci has no permissions to run the 'flushdb' command\r\n");
        // Over what is there, from elsewhere.
        assert_eq!(ci.ask("SET source v NX"), if is_compiler { "+OK\r\n" } else { "$-1\r\n" });
        assert!(!ci.ask(&format!("COPY source {key} REPLACE")).starts_with(':'));
        assert_eq!(ci.ask(&format!("GET {key}")), "$5\r\nfirst\r\n");
        // An administrator of the namespace replaces, and deletes.
        assert_eq!(boss.ask(&format!("SET {key} boss")), "+OK\r\n");
        assert_eq!(ci.ask(&format!("GET {key}")), "$4\r\nboss\r\n");
        assert_eq!(boss.ask(&format!("DEL {key}")), ":1\r\n");
        assert_eq!(ci.ask(&format!("SET {key} again")), "+OK\r\n");
    }
    assert!(running.server.cache.stats().snapshot().refused_puts[ErrorKind::Denied as usize] >= 9);
}

#[test]
fn of_many_that_put_at_once_one_wins() {
    let (file, running) = start();
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let mut client = file.log_in(&running, "ci");
            std::thread::spawn(move || {
                let put = |key: usize| client_put(&mut client, key, number);
                (0..50).map(put).collect::<Vec<bool>>()
            })
        })
        .collect();
    let stored: Vec<Vec<bool>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let winners_of = |key: usize| stored.iter().enumerate().filter(move |(_, stored)| stored[key]);
    let mut client = file.log_in(&running, "ci");
    for key in 0..50 {
        let winners: Vec<usize> = winners_of(key).map(|(number, _)| number).collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(client.ask(&format!("GET {GRAPH}{key}")), format!("$1\r\n{}\r\n", winners[0]));
    }
}

fn client_put(client: &mut crate::client::Client<std::net::TcpStream>, key: usize, number: usize) -> bool {
    client.ask(&format!("SET {GRAPH}{key} {number}")) == "+OK\r\n"
}

#[test]
fn a_miss_goes_on_where_it_is_set_up_and_granted() {
    let (file, running) = start();
    let (mut writer, mut ci) = (file.log_in(&running, "writer"), file.log_in(&running, "ci"));
    writer.ask(&format!("MSET {GRAPH} release {KERNEL} kernel"));
    assert_eq!(ci.ask(&format!("GET {GRAPH}")), "$7\r\nrelease\r\n");
    assert_eq!(ci.ask(&format!("GETRANGE {GRAPH} 0 2")), "$3\r\nrel\r\n");
    assert_eq!(
        ci.ask(&format!("MGET {KERNEL} {GRAPH}")),
        "*2\r\n$-1\r\n$7\r\nrelease\r\n",
        "kernels are not granted"
    );
    assert!(ci.ask(&format!("PILOTLIGHT.MGET {GRAPH}")).contains("release"));
    // What changes something sees its own namespace alone.
    for (own, expected) in
        [("EXISTS {}", ":0\r\n"), ("STRLEN {}", ":0\r\n"), ("TTL {}", ":-2\r\n"), ("DBSIZE", ":0\r\n")]
    {
        assert_eq!(ci.ask(&own.replace("{}", GRAPH)), expected, "{own}");
    }
    ci.ask("SELECT 1");
    assert_eq!(ci.ask(&format!("GETDEL {GRAPH}")), "$-1\r\n");
    assert_eq!(ci.ask(&format!("SET {GRAPH} v XX")), "$-1\r\n");
    assert_eq!(ci.ask(&format!("APPEND {GRAPH} own")), ":3\r\n");
    assert_eq!(ci.ask(&format!("GET {GRAPH}")), "$3\r\nown\r\n");
    assert_eq!(ci.ask(&format!("DEL {GRAPH}")), ":1\r\n");
    assert_eq!(ci.ask(&format!("GET {GRAPH}")), "$7\r\nrelease\r\n", "through two");
    // A put goes into its own namespace.
    assert_eq!(ci.ask(&format!("SET {GRAPH} mine")), "+OK\r\n");
    let mut reader = file.log_in(&running, "reader");
    assert_eq!(reader.ask(&format!("GET {GRAPH}")), "$7\r\nrelease\r\n");
}

#[test]
fn a_transaction_is_judged_when_it_is_queued_and_when_it_runs() {
    let (file, running) = start();
    let mut reader = file.log_in(&running, "reader");
    // With an error where Redis has one: nothing runs.
    reader.ask("MULTI");
    assert_eq!(reader.ask("SET other v"), "-NOPERM No permissions to access a key\r\n");
    assert_eq!(reader.ask(&format!("GET {GRAPH}")), "+QUEUED\r\n");
    assert!(reader.ask("EXEC").starts_with("-EXECABORT"));
    // As nil where a compiler waits.
    reader.ask("MULTI");
    assert_eq!(reader.ask(&format!("SET {GRAPH} v")), "+QUEUED\r\n");
    assert_eq!(reader.ask("PING"), "+QUEUED\r\n");
    assert_eq!(reader.ask("EXEC"), "*2\r\n$-1\r\n+PONG\r\n");
    // What is behind a SELECT is judged where it runs.
    let mut ci = file.log_in(&running, "ci");
    ci.ask("SELECT 2");
    ci.ask("MULTI");
    for command in ["SELECT 1", "SET k v", "SELECT 2", "SET k v", "SELECT 0", "GET k"] {
        assert_eq!(ci.ask(command), "+QUEUED\r\n");
    }
    assert_eq!(
        ci.ask("EXEC"),
        "*6\r\n+OK\r\n+OK\r\n+OK\r\n-NOPERM No permissions to access a key\r\n+OK\r\n$-1\r\n"
    );
    assert_eq!(ci.ask("WATCH k"), "+OK\r\n");
    assert_eq!(reader.ask("WATCH other"), "-NOPERM No permissions to access a key\r\n");
}

#[test]
fn who_may_not_put_leads_nobody() {
    let (file, running) = start();
    let mut reader = file.log_in(&running, "reader");
    assert_eq!(reader.ask(&format!("GET {GRAPH}")), "$-1\r\n");
    assert_eq!(running.server.cache.leases().counts().open, 0);
    assert_eq!(reader.ask(&format!("PILOTLIGHT.LEASE {GRAPH} 10000 0")), "*1\r\n$5\r\nalone\r\n");
    let mut root = file.log_in(&running, "root");
    root.ask(&format!("GET {GRAPH}"));
    assert_eq!(running.server.cache.leases().counts().open, 1);
}

#[test]
fn administrators_see_who_is_there() {
    let (file, running) = start();
    let _reader = file.log_in(&running, "reader");
    let mut root = file.log_in(&running, "root");
    let list = root.ask("CLIENT LIST");
    assert!(list.contains(" user=reader ") && list.contains(" user=root "), "{list}");
    assert_eq!(root.ask("CLIENT KILL USER reader"), ":1\r\n");
    assert_eq!(root.ask("CLIENT KILL USER nobody"), "-ERR No such user 'nobody'\r\n");
    let mut boss = file.log_in(&running, "boss");
    assert!(boss.ask("CLIENT LIST").starts_with("-NOPERM"), "of one namespace, not of the server");
}

#[test]
fn strict_servers_tell_compilers_the_error_too() {
    let file = UsersFile::new(USERS, &["root", "ci", "reader", "writer", "boss"]);
    let running = file.serve_with(pilotlight_server::Config { is_strict: true, ..crate::client::config() });
    let mut reader = file.log_in(&running, "reader");
    for command in
        ["SET {} v", "GET {}", "MGET {} pt2:fx-graph-v1::f:c1", "EXISTS {}", "PILOTLIGHT.LEASE {} 1000 0"]
    {
        let answer = reader.ask(&command.replace("{}", KERNEL));
        assert_eq!(answer, "-NOPERM No permissions to access a key\r\n", "{command}");
    }
}

#[test]
fn a_pipeline_is_answered_in_order_whatever_is_refused() {
    let (file, running) = start();
    let mut reader = file.log_in(&running, "reader");
    let lines = [
        format!("SET {GRAPH} v"),
        "SET other v".into(),
        "PING".into(),
        format!("GET {KERNEL}"),
        "ECHO a".into(),
    ];
    let bytes: Vec<u8> = lines.iter().flat_map(|line| array(&line.split(' ').collect::<Vec<_>>())).collect();
    reader.send(&bytes);
    let answers: Vec<String> = lines.iter().map(|_| String::from_utf8(reader.reply()).unwrap()).collect();
    assert_eq!(
        answers,
        ["$-1\r\n", "-NOPERM No permissions to access a key\r\n", "+PONG\r\n", "$-1\r\n", "$1\r\na\r\n"]
    );
}

#[test]
fn a_copy_is_judged_by_where_it_goes() {
    let users = UsersFile::new(
        "[users.a]\nsecret = \"SECRET(a)\"\nhome = \"a\"\ngrants = [\"rw a\", \"rw a/db1\"]\n",
        &["a"],
    );
    let running = users.serve();
    let mut a = users.log_in(&running, "a");
    assert_eq!(a.ask("SET k v"), "+OK\r\n");
    // The last database counts.
    assert!(a.ask("COPY k k2 DB 1 DB 2").starts_with("-NOPERM"));
    assert_eq!(a.ask("COPY k k2 DB 2 DB 1"), ":1\r\n");
}

#[test]
fn who_may_not_put_ends_nobody_elses_lease() {
    let users = UsersFile::new(
        "[users.ci]\nsecret = \"SECRET(ci)\"\nhome = \"ci\"\ngrants = [\"rw ci\"]\n\
         [users.reader]\nsecret = \"SECRET(reader)\"\nhome = \"ci\"\ngrants = [\"r ci\"]\n",
        &["ci", "reader"],
    );
    let running = users.serve();
    let (mut ci, mut reader) = (users.log_in(&running, "ci"), users.log_in(&running, "reader"));
    let name = "pt2:fx-graph-v1::fleased:c1";
    assert_eq!(ci.ask(&format!("GET {name}")), "$-1\r\n");
    let key = Key::in_namespace(Namespace::new("ci").unwrap(), name);
    assert!(running.server.cache.leases().age(&key).is_some());
    assert_eq!(reader.ask(&format!("SET {name} x")), "$-1\r\n");
    assert!(running.server.cache.leases().age(&key).is_some(), "its leader compiles still");
    assert_eq!(ci.ask(&format!("SET {name} x")), "+OK\r\n");
    assert!(running.server.cache.leases().age(&key).is_none());
}

#[test]
fn a_secret_in_the_place_of_a_name_is_not_noted() {
    let users = UsersFile::new("[users.ci]\nsecret = \"SECRET(ci)\"\ngrants = [\"rw ci\"]\n", &["ci"]);
    let running = users.serve_audited();
    let secret = users.secret("ci").to_owned();
    assert!(running.connect().ask(&format!("AUTH {secret} ci")).starts_with("-WRONGPASS"));
    drop(running);
    let noted = std::fs::read_to_string(users.audit_log()).unwrap();
    assert!(noted.contains("\"login\"") && !noted.contains(&secret), "{noted}");
}
