//! Logging in, staying in, and being put out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pilotlight_server::Config;

use crate::client::{Running, array, config};
use crate::users::UsersFile;

const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
const NO_AUTH: &str = "-NOAUTH Authentication required.\r\n";
const GRAPH: &str = "pt2:fx-graph-v1::f:c1";

fn two() -> UsersFile {
    let text = "[users.a]\nsecret = \"SECRET(a)\"\ngrants = [\"rwa *\"]\n\
                [users.b]\nsecrets = [\"SECRET(b)\", \"SECRET(new)\"]\nhome = \"b\"\ngrants = [\"rw b\"]\n";
    UsersFile::new(text, &["a", "b", "new"])
}

#[test]
fn a_name_and_its_secret_open_and_nothing_else_does() {
    let file = two();
    let running = file.serve();
    let mut client = running.connect();
    assert_eq!(client.ask("GET k"), NO_AUTH);
    let (a, b) = (file.secret("a"), file.secret("b"));
    for wrong in [
        format!("AUTH a {b}"),
        format!("AUTH {a}"),
        format!("AUTH A {a}"),
        "AUTH a x".into(),
        format!("AUTH default {a}"),
    ] {
        assert_eq!(client.ask(&wrong), WRONG, "{wrong}");
        assert_eq!(client.ask("GET k"), NO_AUTH);
    }
    assert!(client.ask("HELLO 3").starts_with("-NOAUTH HELLO"));
    assert_eq!(client.ask(&format!("HELLO 3 AUTH a {b}")), WRONG);
    assert!(client.ask(&format!("HELLO 3 AUTH b {b} SETNAME me")).starts_with('%'));
    assert_eq!(client.ask("SET k b"), "+OK\r\n");
    // Who logs in again is somebody else, and a failure changes nothing.
    assert_eq!(client.ask("AUTH a x"), WRONG);
    assert_eq!(client.ask("GET k"), "$1\r\nb\r\n");
    assert_eq!(client.ask(&format!("AUTH a {a}")), "+OK\r\n");
    assert_eq!(client.ask("GET k"), "_\r\n");
    assert_eq!(client.ask(&format!("AUTH b {}", file.secret("new"))), "+OK\r\n");
    assert_eq!(client.ask("GET k"), "$1\r\nb\r\n");
    assert_eq!(client.ask("RESET"), "+RESET\r\n");
    assert_eq!(client.ask("GET k"), NO_AUTH);
    // Inside a transaction nobody becomes somebody else.
    client.ask(&format!("AUTH a {a}"));
    client.ask("MULTI");
    assert_eq!(client.ask(&format!("AUTH b {b}")), "-ERR Command not allowed inside a transaction\r\n");
    assert!(client.ask("EXEC").starts_with("-EXECABORT"));
}

#[test]
fn the_default_user_is_who_does_not_log_in() {
    let file = UsersFile::new(
        "[users.default]\nhome = \"open\"\ngrants = [\"r open\"]\n[users.a]\nsecret = \"SECRET(a)\"\ngrants = [\"rw open\"]\nhome = \"open\"\n",
        &["a"],
    );
    let running = file.serve();
    let mut client = running.connect();
    assert_eq!(client.ask(&format!("SET {GRAPH} v")), "$-1\r\n");
    assert!(client.ask("AUTH anything").starts_with("-ERR AUTH <password> called without"));
    assert_eq!(client.ask("AUTH default anything"), "+OK\r\n");
    assert_eq!(client.ask(&format!("AUTH a {}", file.secret("a"))), "+OK\r\n");
    assert_eq!(client.ask(&format!("SET {GRAPH} v")), "+OK\r\n");
    assert_eq!(client.ask("RESET"), "+RESET\r\n");
    assert_eq!(client.ask(&format!("GET {GRAPH}")), "$1\r\nv\r\n");
    assert_eq!(client.ask(&format!("SET {GRAPH} w")), "$-1\r\n");
}

#[test]
fn a_password_beside_users_is_of_the_default_user() {
    let file = two();
    let running = file.serve_with(Config { password: Some("hunter2".into()), ..config() });
    let mut client = running.connect();
    assert_eq!(client.ask("GET k"), NO_AUTH);
    assert_eq!(client.ask("AUTH hunter2"), "+OK\r\n");
    assert_eq!(client.ask("SET k v"), "+OK\r\n");
    assert_eq!(file.log_in(&running, "a").ask("GET k"), "$1\r\nv\r\n");
}

#[test]
fn others_in_force_change_what_open_connections_may() {
    let file = two();
    let running = file.serve();
    let (mut a, mut b) = (file.log_in(&running, "a"), file.log_in(&running, "b"));
    assert_eq!(b.ask("SET k v"), "+OK\r\n");
    // Other rights, another home.
    file.write("[users.a]\nsecret = \"SECRET(a)\"\n[users.b]\nsecret = \"SECRET(b)\"\nhome = \"other\"\ngrants = [\"r *\"]\n");
    running.server.access.reload().unwrap();
    assert_eq!(a.ask("SET k v"), "-NOPERM No permissions to access a key\r\n");
    assert_eq!(b.ask("GET k"), "$-1\r\n");
    assert_eq!(b.ask("SET k v"), "-NOPERM No permissions to access a key\r\n");
    // A file that is wrong changes nothing.
    file.write("[users.a]\n");
    running.server.access.reload().unwrap_err();
    assert_eq!(b.ask("GET k"), "$-1\r\n");
    // Gone, disabled, or with other secrets: no rights left, and no way back.
    file.write("[users.b]\nsecret = \"SECRET(new)\"\ngrants = [\"r *\"]\n");
    running.server.access.reload().unwrap();
    assert_eq!(a.ask("GET k"), NO_AUTH);
    assert_eq!(b.ask("GET k"), NO_AUTH);
    assert_eq!(b.ask(&format!("AUTH b {}", file.secret("b"))), WRONG);
    assert_eq!(b.ask(&format!("AUTH b {}", file.secret("new"))), "+OK\r\n");
    file.write("[users.b]\nsecret = \"SECRET(new)\"\ndisabled = true\n");
    running.server.access.reload().unwrap();
    assert_eq!(b.ask("GET k"), NO_AUTH);
    assert_eq!(b.ask("PING"), NO_AUTH);
}

#[test]
fn a_change_reaches_who_waits_in_a_transaction() {
    let file = two();
    let running = file.serve();
    let mut b = file.log_in(&running, "b");
    b.ask("MULTI");
    assert_eq!(b.ask("SET k v"), "+QUEUED\r\n");
    file.write("[users.b]\nsecret = \"SECRET(b)\"\nhome = \"b\"\ngrants = [\"r b\"]\n");
    running.server.access.reload().unwrap();
    assert_eq!(b.ask("EXEC"), "*1\r\n-NOPERM No permissions to access a key\r\n");
}

#[test]
fn a_change_on_the_disk_is_noticed_and_one_by_signal_at_once() {
    let file = two();
    let running = file.serve();
    let mut b = file.log_in(&running, "b");
    file.write("");
    running.server.access.hang_up();
    while b.ask("PING") != NO_AUTH {
        std::thread::yield_now();
    }
    // Within seconds without being told.
    file.write("[users.a]\nsecret = \"SECRET(a)\"\n");
    while b.ask(&format!("AUTH a {}", file.secret("a"))) != "+OK\r\n" {
        std::thread::yield_now();
    }
}

/// Users are exchanged as fast as they can be while clients work: nobody who stays is ever refused, and nobody who never was is let in.
#[test]
fn a_reload_under_load_disturbs_nobody_who_stays() {
    let stays = "[users.a]\nsecret = \"SECRET(a)\"\ngrants = [\"rwa *\"]\n";
    let file = Arc::new(UsersFile::new(stays, &["a", "b"]));
    let running = Arc::new(file.serve());
    let is_over = Arc::new(AtomicBool::new(false));
    let work = |number: usize| {
        let (file, running, is_over) = (Arc::clone(&file), Arc::clone(&running), Arc::clone(&is_over));
        std::thread::spawn(move || {
            let mut asked = 0;
            while !is_over.load(Ordering::Relaxed) {
                let mut client = file.log_in(&running, "a");
                for turn in 0..20 {
                    assert_eq!(client.ask(&format!("SET k{number} {turn}")), "+OK\r\n");
                    let set = array(&["GET", &format!("k{number}")]);
                    client.send(&[set.clone(), set].concat());
                    for _ in 0..2 {
                        assert!(client.reply().starts_with(b"$"));
                    }
                    asked += 3;
                }
                let mut stranger = running.connect();
                assert_eq!(stranger.ask("GET k0"), NO_AUTH);
                assert_eq!(stranger.ask(&format!("AUTH b {}", file.secret("b"))), WRONG);
            }
            asked
        })
    };
    let workers: Vec<_> = (0..3).map(work).collect();
    for turn in 0..300 {
        let more = format!("[users.c{turn}]\ncertificate = \"CN=c{turn}\"\n");
        file.write(&if turn % 3 == 0 { "broken".to_owned() } else { format!("{stays}{more}") });
        assert_eq!(running.server.access.reload().is_ok(), turn % 3 != 0);
    }
    is_over.store(true, Ordering::Relaxed);
    let asked: u64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    assert!(asked > 0);
}

#[test]
fn who_guesses_waits_and_holds_nobody_up() {
    // One core, so that all are on it.
    let config = Config { password: Some("hunter2".into()), cores: 1, ..config() };
    let running = Running::with(
        Arc::new(pilotlight_cache::MemoryBackend::new(1 << 20)),
        config,
        Arc::new(pilotlight_cache::SystemClock),
    );
    let mut guesser = running.connect();
    for number in 0..6 {
        assert_eq!(guesser.ask(&format!("AUTH guess{number}")), WRONG);
    }
    let delayed = || running.server.stats.logins_delayed_total.load(Ordering::Relaxed);
    assert_eq!(delayed(), 0);
    let mut other = running.connect();
    // Asked, and not answered yet; meanwhile others are.
    guesser.send(&array(&["AUTH", "guess"]));
    while delayed() == 0 {
        other.ask("PING");
    }
    for _ in 0..100 {
        assert_eq!(other.ask("PING"), NO_AUTH);
    }
    assert_eq!(guesser.reply(), WRONG.as_bytes());
    // Many at once: most are not even looked at.
    let mut guessers: Vec<_> = (0..20).map(|_| running.connect()).collect();
    guessers.iter_mut().for_each(|guesser| guesser.send(&array(&["AUTH", "hunter2"])));
    let answers: Vec<Vec<u8>> = guessers.iter_mut().map(|guesser| guesser.reply()).collect();
    let let_in = answers.iter().filter(|answer| *answer == b"+OK\r\n").count();
    assert!((1..15).contains(&let_in), "{let_in} of 20, though each has the right one");
    assert!(running.server.stats.logins_failed_total.load(Ordering::Relaxed) >= 12);
}

#[test]
fn a_rate_slows_its_user_down_and_nobody_else() {
    let text = "[users.a]\nsecret = \"SECRET(a)\"\ngrants = [\"rw *\"]\nrate = \"100/s\"\n\
                [users.b]\nsecret = \"SECRET(b)\"\ngrants = [\"rw *\"]\n";
    let file = UsersFile::new(text, &["a", "b"]);
    let running = file.serve_with(Config { cores: 1, ..config() });
    let (mut one, mut two, mut b) =
        (file.log_in(&running, "a"), file.log_in(&running, "a"), file.log_in(&running, "b"));
    let began = std::time::Instant::now();
    // Over all of its connections.
    let gets = array(&["GET", "k"]).repeat(70);
    one.send(&gets);
    two.send(&gets);
    let throttled = || running.server.stats.throttled_total.load(Ordering::Relaxed);
    while throttled() == 0 {
        b.ask("PING");
    }
    for _ in 0..70 {
        assert_eq!(one.reply(), b"$-1\r\n");
        assert_eq!(two.reply(), b"$-1\r\n");
    }
    assert!(began.elapsed().as_millis() >= 350, "140 at 100 a second, of which a second's are free");
    // A connection waits for one command at a time, so that many of them wait where it was sent in one packet.
    assert!((20..=60).contains(&throttled()), "{}", throttled());
}

#[test]
fn the_audit_log_tells_who_did_what_and_names_no_key() {
    let text = "[users.a]\nsecret = \"SECRET(a)\"\ngrants = [\"rwa *\"]\n[users.r]\nsecret = \"SECRET(r)\"\nhome = \"ci\"\ngrants = [\"r ci\"]\n";
    let file = UsersFile::new(text, &["a", "r"]);
    let mut running = file.serve_audited();
    let mut a = file.log_in(&running, "a");
    running.connect().ask("AUTH intruder password");
    for command in [
        "SET precious-key v",
        "SETNX precious-key v",
        "GET precious-key",
        "DEL precious-key",
        "CONFIG GET timeout",
        "MSET x 1 y 2",
    ] {
        a.ask(command);
    }
    a.send(&[array(&["MULTI"]), array(&["SET", "z", "1"]), array(&["EXEC"])].concat());
    for _ in 0..3 {
        a.reply();
    }
    let mut r = file.log_in(&running, "r");
    for command in ["SET precious-key v", "FLUSHALL"] {
        r.ask(command);
    }
    file.write("[users.a]\nsecret = \"SECRET(a)\"\ngrants = [\"rwa *\"]\n");
    running.server.access.hang_up();
    while r.ask("PING") != NO_AUTH {
        std::thread::yield_now();
    }
    running.stop().unwrap();
    let text = std::fs::read_to_string(file.audit_log()).unwrap();
    assert!(
        !text.contains("precious") && !text.contains(file.secret("a")) && !text.contains("password"),
        "{text}"
    );
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<String> = lines
        .iter()
        .map(|line| {
            format!(
                "{} {} {}",
                line["user"].as_str().unwrap(),
                line["action"].as_str().unwrap(),
                line["outcome"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "a login ok",
            "? login denied",
            "a set ok",
            "a setnx unmet",
            "a del ok",
            "a config|get ok",
            "a mset ok",
            "a mset ok",
            "a set ok",
            "r login ok",
            "r set denied",
            "r flushall denied",
            " reload ok"
        ],
        "{text}"
    );
    assert!(lines.iter().all(|line| line["time_ms"].as_u64().unwrap() > 0));
    assert_eq!(lines[2]["key"], lines[4]["key"]);
    assert_ne!(lines[6]["key"], lines[7]["key"]);
    assert_eq!((&lines[2]["namespace"], &lines[10]["namespace"]), (&"".into(), &"ci".into()));
    assert!(lines[2]["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
}
