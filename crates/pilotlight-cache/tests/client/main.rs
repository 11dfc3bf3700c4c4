//! What the client does when the server misbehaves: never an error, never long, and everything counted.

#![expect(
    clippy::unwrap_used,
    reason = "tests say what they expect by panicking, and their helpers stand outside #[test]"
)]

mod faulty;
mod groups;
mod signed;
mod told;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use faulty::{Does, Faulty};
use pilotlight_cache::client::{Client, Label, Settings};
use pilotlight_cache::envelope::seal;
use pilotlight_cache::{Details, Entry};

const STALL: Duration = Duration::from_millis(100);

fn settings() -> Settings {
    Settings {
        connect_timeout: STALL,
        stall_timeout: STALL,
        total_timeout: STALL * 4,
        trouble_budget: Duration::from_secs(10),
        ..Settings::default()
    }
}

fn client(port: u16, settings: Settings) -> Client {
    Client::new(&format!("pilotlight://127.0.0.1:{port}"), settings).unwrap()
}

fn stat(client: &Client, name: &str) -> u64 {
    client.stats().into_iter().find(|(found, _)| *found == name).unwrap_or_else(|| panic!("no {name}")).1
}

fn bulk_array(envelope: &[u8]) -> Vec<u8> {
    [format!("*1\r\n${}\r\n", envelope.len()).as_bytes(), envelope, b"\r\n"].concat()
}

fn put(client: &Client) -> bool {
    client.put(b"k", Bytes::from_static(b"artifact"), Label::default())
}

/// Every way to fail: the reason it is counted under, and how long it may take.
#[test]
fn every_failure_is_a_miss_in_bounded_time_and_counted_by_its_reason() {
    let envelope = seal(&Entry::new(vec![7; 5000])).unwrap().to_whole();
    let whole = bulk_array(&envelope);
    let half = whole.get(..100).unwrap().to_vec();
    let mut flipped = envelope.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let later_version = [b"PLEv\x02".as_slice(), &[0; 90]].concat();
    let deep = b"*1\r\n*1\r\n*1\r\n$1\r\na\r\n".to_vec();
    let answers = |text: &str| Does::Answers(text.as_bytes().to_vec());
    for (name, does, reason, limit) in [
        ("accepts and stalls", Does::Stalls(Vec::new()), "timeout", STALL * 3),
        ("stalls in a value", Does::Stalls(half.clone()), "timeout", STALL * 3),
        ("drips", Does::Drips(whole.clone(), STALL / 4), "timeout", STALL * 6),
        ("closes", Does::Closes(Vec::new()), "unavailable", STALL),
        ("closes in a value", Does::Closes(half), "unavailable", STALL),
        ("is no Redis", answers("HTTP/1.1 400 Bad Request\r\n\r\n"), "unavailable", STALL),
        ("answers an endless line", Does::Answers(vec![b'+'; 1 << 20]), "unavailable", STALL),
        ("answers with fewer items", answers("*0\r\n"), "unavailable", STALL),
        ("answers with more items", answers("*2\r\n$-1\r\n$-1\r\n"), "unavailable", STALL),
        ("answers with arrays in arrays", Does::Answers(deep), "unavailable", STALL),
        ("answers with no number", answers("*1\r\n$x\r\n"), "unavailable", STALL),
        ("answers with a negative length", answers("*1\r\n$-2\r\n"), "unavailable", STALL),
        ("announces a bulk of 4 EiB", answers("*1\r\n$4611686018427387904\r\n"), "too_large", STALL),
        (
            "announces 512 MiB and stalls",
            Does::Stalls(b"*1\r\n$536870912\r\nx".to_vec()),
            "timeout",
            STALL * 3,
        ),
        ("announces items without end", answers("*9223372036854775807\r\n"), "unavailable", STALL),
        ("wants a password", answers("-NOAUTH Authentication required.\r\n"), "denied", STALL),
        ("forbids it", answers("-NOPERM no permissions to run the command\r\n"), "denied", STALL),
        ("is loading", answers("-LOADING Redis is loading\r\n"), "unavailable", STALL),
        ("fails", answers("-ERR whatever\r\n"), "unavailable", STALL),
        ("has a flipped bit", Does::Answers(bulk_array(&flipped)), "corrupt", STALL),
        ("has half an envelope", Does::Answers(bulk_array(envelope.get(..90).unwrap())), "corrupt", STALL),
        ("has no envelope", Does::Answers(bulk_array(b"pickle")), "corrupt", STALL),
        ("has a later envelope", Does::Answers(bulk_array(&later_version)), "corrupt", STALL),
    ] {
        let server = Faulty::that(does);
        let client = client(server.port, settings());
        let started = Instant::now();
        assert_eq!(client.get_many(&[b"k"]), [None], "{name}");
        let took = started.elapsed();
        // Fast failures have no limit of their own but the system's.
        assert!(took < limit + STALL, "{name} took {took:?}");
        let counted: Vec<_> = client
            .stats()
            .into_iter()
            .filter(|(counter, count)| {
                let is_count = !counter.contains("bytes") && !counter.contains("us");
                *count > 0 && is_count && !matches!(*counter, "round_trips" | "connections")
            })
            .collect();
        assert_eq!(counted, [("gets", 1), (reason, 1)].as_slice(), "{name}");
        // What is damaged is one entry's matter; anything else the user is told.
        assert_eq!(client.notice().is_some(), reason != "corrupt", "{name}");
    }
}

#[test]
fn refused_connections_and_refused_greetings_cost_next_to_nothing() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dead = client(free, settings());
    assert_eq!(dead.ping(), None);
    assert_eq!(stat(&dead, "unavailable"), 1);

    let closing = Faulty::that_greets(Does::Closes(Vec::new()), Does::Closes(Vec::new()));
    let refused = client(closing.port, settings());
    assert_eq!(refused.ping(), None);
    assert_eq!(stat(&refused, "unavailable"), 1);

    let full = b"-ERR max number of clients reached\r\n".to_vec();
    let full = Faulty::that_greets(Does::Closes(full), Does::Closes(Vec::new()));
    let client = client(full.port, settings());
    assert_eq!(client.ping(), None);
    assert!(client.notice().is_some_and(|notice| notice.contains("max number of clients")));
}

#[test]
fn an_open_breaker_asks_nobody_and_a_probe_closes_it() {
    let server = Faulty::that(Does::Closes(Vec::new()));
    let client = client(server.port, settings());
    assert_eq!(client.get_many(&[b"k"]), [None]);
    let connections = server.connections();
    let started = Instant::now();
    for _ in 0..100 {
        assert_eq!(client.get_many(&[b"k"]), [None]);
        assert!(!put(&client));
    }
    assert!(started.elapsed() < Duration::from_millis(50), "{:?}", started.elapsed());
    assert_eq!(server.connections(), connections);
    assert_eq!(
        (stat(&client, "gets"), stat(&client, "dropped"), stat(&client, "unavailable")),
        (101, 100, 201)
    );

    server.now(Does::Answers(b"*1\r\n$-1\r\n".to_vec()));
    let until = Instant::now() + Duration::from_secs(20);
    while stat(&client, "misses") == 0 {
        assert!(Instant::now() < until, "no probe was let through");
        let _ = client.get_many(&[b"k"]);
        std::thread::yield_now();
    }
    assert!(client.notice().is_some_and(|notice| notice.contains("cannot be used")));
    assert!(client.notice().is_some_and(|notice| notice.contains("answers again")));
    assert_eq!(client.notice(), None);
    assert_eq!(client.get_many(&[b"k"]), [None]);
    assert_eq!(stat(&client, "misses"), 2, "closed again");
}

#[test]
fn a_spent_budget_silences_the_client_for_good() {
    let server = Faulty::that(Does::Stalls(Vec::new()));
    let budget = STALL * 3;
    let client = client(server.port, Settings { trouble_budget: budget, ..settings() });
    let started = Instant::now();
    let mut asked = Duration::ZERO;
    let mut notices = Vec::new();
    while notices.len() < 2 {
        assert!(started.elapsed() < Duration::from_secs(30));
        let before = Instant::now();
        assert_eq!(client.get_many(&[b"k"]), [None]);
        asked += before.elapsed();
        notices.extend(client.notice());
        std::thread::yield_now();
    }
    assert!(asked < budget * 2, "{asked:?}");
    assert!(stat(&client, "trouble_us") < (budget * 3 / 2).as_micros() as u64);
    assert!(notices.last().is_some_and(|notice| notice.contains("left alone")), "{notices:?}");
    // Also when the server is well again, and after every delay a breaker could have.
    server.now(Does::Answers(b"*1\r\n$-1\r\n".to_vec()));
    let connections = server.connections();
    for _ in 0..1000 {
        assert_eq!(client.get_many(&[b"k"]), [None]);
    }
    assert_eq!((stat(&client, "misses"), client.notice(), server.connections()), (0, None, connections));
}

#[test]
fn drips_that_end_well_are_paid_from_the_budget_too() {
    // Each answer takes 0.7 stalls for a few bytes, of which half a stall is free.
    let absent = b"*1\r\n$-1\r\n".to_vec();
    let pause = STALL.mul_f64(0.7 / absent.len() as f64);
    let is_spent = |client: &Client| client.notice().is_some_and(|notice| notice.contains("left alone"));
    let attempt = || {
        let server = Faulty::that(Does::Drips(absent.clone(), pause));
        let client = client(server.port, Settings { trouble_budget: STALL, ..settings() });
        // On a machine so busy that a byte is a stall late, the breaker opens first, for longer than a test should wait.
        while !is_spent(&client) && stat(&client, "timeout") == 0 {
            assert_eq!(client.get_many(&[b"k"]), [None]);
        }
        is_spent(&client).then_some((server, client))
    };
    let (server, client) = (0..20).find_map(|_| attempt()).expect("one of twenty without a stall");
    assert!(Duration::from_micros(stat(&client, "trouble_us")) <= STALL * 3, "{:?}", client.stats());
    let asked = server.connections();
    assert_eq!(client.get_many(&[b"k"]), [None]);
    assert_eq!(server.connections(), asked);
}

#[test]
fn a_link_that_is_slow_but_steady_is_waited_for() {
    // In all as long as five stalls, at 1 MB/s.
    let envelope = seal(&Entry::new(noise(500_000))).unwrap().to_whole();
    let server = Faulty::that(Does::Paces(bulk_array(&envelope), 10_000, STALL / 10));
    let client = client(server.port, Settings { total_timeout: STALL * 50, ..settings() });
    assert!(client.get_many(&[b"k"]).pop().flatten().is_some(), "{:?}", client.stats());
    assert_eq!((stat(&client, "hits"), stat(&client, "timeout"), stat(&client, "trouble_us")), (1, 0, 0));
}

/// What does not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn refused_puts_stop_the_puts_and_leave_the_gets_alone() {
    for (refusal, reason) in [
        ("-OOM command not allowed when used memory > 'maxmemory'.\r\n", "full"),
        ("-READONLY You can't write against a read only replica.\r\n", "denied"),
        ("-NOPERM this user has no permissions\r\n", "denied"),
        ("-TOOLARGE entry of 9 bytes, expected at most 8\r\n", "too_large"),
        ("$-1\r\n", "dropped"),
    ] {
        let server = Faulty::that(Does::Answers(refusal.as_bytes().to_vec()));
        let client = client(server.port, settings());
        for _ in 0..3 {
            assert!(!put(&client));
        }
        assert_eq!(
            (stat(&client, "puts"), stat(&client, "dropped"), stat(&client, reason)),
            (0, 3, 3),
            "{refusal}"
        );
        let round_trips = stat(&client, "round_trips");
        assert!(!put(&client));
        assert_eq!(stat(&client, "round_trips"), round_trips, "{refusal}: the fourth was not sent");
        server.now(Does::Answers(b"*1\r\n$-1\r\n".to_vec()));
        assert_eq!(client.get_many(&[b"k"]), [None]);
        assert_eq!((stat(&client, "misses"), server.connections()), (1, 1), "{refusal}");
        let told = if reason == "dropped" { "`pilotlight stats`" } else { refusal[1..].trim_end() };
        let notice = client.notice().unwrap();
        assert!(notice.contains("does not keep what is put") && notice.contains(told), "{notice}");
        assert_eq!(client.notice(), None);
    }
}

#[test]
fn a_connection_that_died_while_idle_is_no_failure() {
    let server = Faulty::that(Does::Answers(b"*1\r\n$-1\r\n".to_vec()));
    let client = client(server.port, settings());
    assert_eq!(client.get_many(&[b"k"]), [None]);
    server.now(Does::Closes(b"*1\r\n$-1\r\n".to_vec()));
    for round in 0..5 {
        assert_eq!(client.get_many(&[b"k"]), [None]);
        assert_eq!(stat(&client, "misses"), 2 + round);
    }
    assert_eq!((stat(&client, "unavailable"), client.notice()), (0, None));
}

#[test]
fn bytes_behind_a_reply_do_not_answer_the_next_request() {
    let envelope = seal(&Entry::new("of another key")).unwrap().to_whole();
    let server = Faulty::that(Does::Answers([b"*1\r\n$-1\r\n".to_vec(), bulk_array(&envelope)].concat()));
    let client = client(server.port, settings());
    for _ in 0..3 {
        assert_eq!(client.get_many(&[b"k"]), [None]);
    }
    assert_eq!(stat(&client, "hits"), 0);
}

#[test]
fn a_name_that_nobody_knows_costs_no_more_than_a_connection() {
    let client = Client::new("redis://no-such-host.invalid", settings()).unwrap();
    let started = Instant::now();
    assert_eq!(client.ping(), None);
    assert!(started.elapsed() < STALL * 3, "{:?}", started.elapsed());
}

#[test]
fn a_full_backlog_of_a_unix_socket_costs_no_more_than_a_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let url = format!("unix://{}", path.display());
    // Each stalls, and keeps its place in the backlog until it is full; the breaker of a client of its own is closed.
    let mut streams = Vec::new();
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(Instant::now() < until, "the backlog is never full");
        let client = Client::new(&url, settings()).unwrap();
        let started = Instant::now();
        if streams.len() > 4096 || client.ping().is_none() && stat(&client, "connections") == 0 {
            assert!(started.elapsed() < STALL * 3);
            assert_eq!(stat(&client, "timeout"), 1);
            break;
        }
        for _ in 0..256 {
            let connected = connect_at_once(&path);
            streams.extend(connected);
        }
    }
}

/// A connection that does not wait for the backlog.
fn connect_at_once(path: &Path) -> Option<OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).ok()?;
    connect(&socket, &SocketAddrUnix::new(path).ok()?).ok()?;
    Some(socket)
}

#[test]
fn a_directory_keeps_entries_variants_and_values_for_other_processes() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    let (a, b) = (Client::new(&url, settings()).unwrap(), Client::new(&url, settings()).unwrap());
    let label = |fingerprint| Label {
        is_torch_json: true,
        compile_ms: 7,
        details: Details { fingerprint, producer: Some("me".to_owned()), ..Details::default() },
    };
    assert!(a.put(b"k", Bytes::from_static(b"artifact"), label(None)));
    assert_eq!(
        b.get_raw(b"k").as_deref(),
        Some(b"{\"data\": \"YXJ0aWZhY3Q=\", \"time_taken_ms\": 7}".as_slice())
    );
    let found = b.get_many(&[b"k", b"l"]);
    let found = found.first().and_then(Option::as_ref).unwrap();
    assert_eq!((&found.artifact[..], found.frame.is_some()), (b"artifact".as_slice(), true));
    for variant in 0..18u64 {
        let fingerprint = Some([(variant % 2) as u8; 32]);
        let artifact = Bytes::from(format!("variant {variant}"));
        assert!(a.put_variant(b"v", variant, artifact, label(fingerprint)));
    }
    let fitting: Vec<_> = b.candidates(b"v", Some([1; 32])).map(|bare| bare.artifact.into_bytes()).collect();
    let expected: Vec<_> = (2..18).rev().filter(|v| v % 2 == 1).map(|v| format!("variant {v}")).collect();
    assert_eq!(fitting, expected);
    assert_eq!((stat(&b, "gets"), stat(&b, "hits"), stat(&b, "misses"), stat(&b, "misfit")), (4, 3, 1, 8));
    b.quarantine(b"k");
    assert_eq!(a.get_many(&[b"k"]), [None]);
}

#[test]
fn the_first_candidate_costs_one_round_trip_and_the_rest_one_more() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new(&format!("file://{}", dir.path().display()), settings()).unwrap();
    for variant in 0..3u64 {
        assert!(client.put_variant(b"k", variant, Bytes::from(vec![variant as u8]), Label::default()));
    }
    let before = stat(&client, "round_trips");
    let mut candidates = client.candidates(b"k", None);
    let trips = || stat(&client, "round_trips") - before;
    assert_eq!(trips(), 0);
    assert_eq!(candidates.next().map(|bare| bare.artifact.to_vec()), Some(vec![2]));
    assert_eq!(trips(), 1);
    assert_eq!(candidates.next().map(|bare| bare.artifact.to_vec()), Some(vec![1]));
    assert_eq!(candidates.next().map(|bare| bare.artifact.to_vec()), Some(vec![0]));
    assert!(candidates.next().is_none() && candidates.next().is_none());
    assert_eq!(trips(), 2);
}

#[test]
fn threads_share_a_client() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new(&format!("file://{}", dir.path().display()), settings()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let client = &client;
            scope.spawn(move || {
                for round in 0..50u8 {
                    assert!(client.put(&[thread], Bytes::from(vec![round; 1000]), Label::default()));
                    let found = client.get_many(&[&[thread]]).pop().flatten().unwrap();
                    assert_eq!(found.artifact.to_vec(), vec![round; 1000]);
                }
            });
        }
    });
    assert_eq!((stat(&client, "puts"), stat(&client, "hits")), (400, 400));
}
