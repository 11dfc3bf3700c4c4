//! Groups, where the other end has them and where not.

use std::time::Instant;

use pilotlight_cache::client::Client;

use crate::faulty::{Does, Faulty};
use crate::{STALL, client, put, settings, stat};

#[test]
fn a_group_is_asked_for_only_where_there_are_groups() {
    let server = Faulty::that(Does::Answers(b":2\r\n".to_vec()));
    let ours = client(server.port, settings());
    assert_eq!(ours.group(b"leader", &[b"a", b"b"]), 2);
    assert_eq!(ours.group(b"leader", &[]), 0, "alone it is no group");
    assert_eq!(stat(&ours, "round_trips"), 2, "a greeting and a group");

    // An earlier one: it says so once, and that is no failure.
    server.now(Does::Answers(
        b"-ERR unknown command 'PILOTLIGHT.GROUP', with args beginning with: \r\n".to_vec(),
    ));
    let earlier = client(server.port, settings());
    for _ in 0..3 {
        assert_eq!(earlier.group(b"leader", &[b"a"]), 0);
    }
    assert_eq!(
        (stat(&earlier, "round_trips"), stat(&earlier, "unavailable"), earlier.notice()),
        (2, 0, None)
    );
    server.now(Does::Answers(b"+OK\r\n".to_vec()));
    assert!(put(&earlier), "and all else goes on, on the same connection");
    assert_eq!(server.connections(), 2);

    // A plain Redis is not even asked, nor is a directory.
    let redis = Faulty::that_greets(
        Does::Answers(b"-ERR unknown command 'PILOTLIGHT.MGET'\r\n".to_vec()),
        Does::Answers(b"+OK\r\n".to_vec()),
    );
    let plain = client(redis.port, settings());
    assert!(put(&plain));
    let before = stat(&plain, "round_trips");
    for _ in 0..3 {
        assert_eq!(plain.group(b"leader", &[b"a"]), 0);
    }
    assert!(put(&plain));
    assert_eq!((stat(&plain, "round_trips") - before, redis.connections()), (1, 1));
    let dir = tempfile::tempdir().unwrap();
    let directory = Client::new(&format!("file://{}", dir.path().display()), settings()).unwrap();
    assert_eq!((directory.group(b"leader", &[b"a"]), stat(&directory, "round_trips")), (0, 0));
}

#[test]
fn a_group_that_fails_costs_what_any_failure_costs() {
    for (name, does, reason) in [
        ("stalls", Does::Stalls(Vec::new()), "timeout"),
        ("closes", Does::Closes(Vec::new()), "unavailable"),
        ("refuses", Does::Answers(b"-READONLY You can't write\r\n".to_vec()), "denied"),
        ("answers with more than there are", Does::Answers(b":3\r\n".to_vec()), "unavailable"),
        ("answers with less than none", Does::Answers(b":-1\r\n".to_vec()), "unavailable"),
        ("answers with something else", Does::Answers(b"*1\r\n:1\r\n".to_vec()), "unavailable"),
    ] {
        let server = Faulty::that(does);
        let client = client(server.port, settings());
        let started = Instant::now();
        assert_eq!(client.group(b"leader", &[b"a"]), 0, "{name}");
        assert!(started.elapsed() < STALL * 4, "{name} took {:?}", started.elapsed());
        assert_eq!(stat(&client, reason), 1, "{name}");
        assert!(client.notice().is_some(), "{name}");
    }
}
