use std::sync::Arc;

use pilotlight_store::{Condition, PutRequest, Store};

use crate::setup::{noise, open, request};

/// What a scan of `space` finds: entries and the sum of their logical lengths.
fn listed(store: &Store, space: &[u8]) -> (u64, u64, u64) {
    let page = store.scan(space, 0, 1000).unwrap();
    let sum = |of: fn(&pilotlight_store::Stat) -> u64| page.keys.iter().map(|(_, stat)| of(stat)).sum();
    (page.keys.len() as u64, sum(|stat| u64::from(stat.logical_len)), sum(|stat| stat.stored_bytes))
}

#[test]
fn counts_are_those_of_what_is_there_after_writers_raced() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    std::thread::scope(|scope| {
        for writer in 0..4u64 {
            let store = Arc::clone(&store);
            scope.spawn(move || {
                for round in 0..3000u64 {
                    let draw = (writer << 32 | round).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                    let key = [(draw % 5) as u8];
                    let space: &[u8] = if draw & 64 == 0 { b"" } else { b"db1" };
                    if draw & 128 == 0 {
                        store.delete(space, &key, Condition::Always).unwrap();
                    } else {
                        // Equal lengths among them, and a payload in a file now and then.
                        let payload = noise(round, [10, 10, 500, 33_000][(draw >> 8) as usize % 4]);
                        let put = PutRequest { space, ..request(&key, &payload) };
                        store.put(&put, Condition::Always).unwrap();
                    }
                    // Never a count below nothing, which would read as more than there can be.
                    assert!(store.usage(Some(space)).entries <= 5 + 4);
                }
            });
        }
    });
    for space in [&b""[..], b"db1"] {
        let usage = store.usage(Some(space));
        let counted = (usage.entries, usage.logical_bytes, usage.stored_bytes);
        assert_eq!(counted, listed(&store, space));
    }
}
