//! What a quota counts of entries that are stored against others.

use std::num::NonZeroU32;
use std::path::Path;

use pilotlight_store::{Condition, PutRequest, Store};

use crate::setup::{noise, open, original, request, store_against};

const TENANT: &[u8] = b"tenant";
const BASE_LEN: usize = 300_000;

fn put(store: &Store, key: &[u8], payload: &[u8]) {
    // Together they leave, if they leave.
    let group = NonZeroU32::new(7);
    let request = PutRequest { space: TENANT, group, ..request(key, payload) };
    store.put(&request, Condition::Always).unwrap().unwrap();
}

fn get(store: &Store, key: &[u8]) -> Option<Vec<u8>> {
    store.get(TENANT, key).unwrap().map(|stored| original(&stored))
}

/// What counts for the tenant. What a put left is let go after its answer, with the next sync at the latest.
fn stored_bytes(store: &Store) -> u64 {
    store.sync().unwrap();
    store.usage(Some(TENANT)).stored_bytes
}

/// A base and two that are stored against it, of a tenant with a quota.
fn group_of_three(dir: &Path, quota: u64) -> Store {
    let store = open(dir);
    store.set_quota(TENANT, Some(quota)).unwrap();
    put(&store, b"base", &noise(1, BASE_LEN));
    for key in [b"one", b"two"] {
        put(&store, key, &noise(2, 5_000));
        assert!(store_against(&store, TENANT, key, b"base").unwrap());
    }
    store
}

fn opened_again(store: Store, dir: &Path, quota: u64) -> Store {
    drop(store);
    let store = open(dir);
    store.set_quota(TENANT, Some(quota)).unwrap();
    store
}

#[test]
fn a_base_counts_until_the_last_that_needs_it_is_gone_whatever_becomes_of_its_entry() {
    const QUOTA: u64 = 8 << 20;
    type Goes = fn(&Store);
    let ways: [Goes; 2] = [
        |store| assert!(store.delete(TENANT, b"base", Condition::Always).unwrap()),
        |store| put(store, b"base", b"another"),
    ];
    for goes in ways {
        let dir = tempfile::tempdir().unwrap();
        let mut store = group_of_three(dir.path(), QUOTA);
        let whole = stored_bytes(&store);
        assert!((BASE_LEN as u64 + 10_000..BASE_LEN as u64 + 12_000).contains(&whole), "{whole}");
        goes(&store);
        let left = stored_bytes(&store);
        assert!(left > BASE_LEN as u64 + 10_000, "{left}: the base is still there");
        store = opened_again(store, dir.path(), QUOTA);
        assert_eq!(stored_bytes(&store), left, "so it counts after an open");
        // Replaced, as an edited model is, one after the other.
        put(&store, b"one", &noise(3, 5_000));
        assert!(stored_bytes(&store) > BASE_LEN as u64, "the other needs it still");
        assert_eq!(get(&store, b"two"), Some(noise(2, 5_000)));
        put(&store, b"two", &noise(3, 6_000));
        let rest = stored_bytes(&store);
        assert!(rest < 13_000, "{rest}: nobody needs it");
        store = opened_again(store, dir.path(), QUOTA);
        assert_eq!(stored_bytes(&store), rest);
    }
}

#[test]
fn a_base_that_was_replaced_makes_room_with_those_that_need_it() {
    const QUOTA: u64 = 700_000;
    let dir = tempfile::tempdir().unwrap();
    let store = group_of_three(dir.path(), QUOTA);
    // The old base, whose entry is another's now, and what is put beside: more would not fit.
    put(&store, b"base", &noise(4, BASE_LEN));
    let both = stored_bytes(&store);
    assert!((2 * BASE_LEN as u64..=QUOTA).contains(&both), "{both} {:?}", store.usage(Some(TENANT)));
    assert_eq!(get(&store, b"one"), Some(noise(2, 5_000)));
    for number in 0..20 {
        let key = format!("new-{number}");
        let payload = noise(100 + number, 200_000);
        let request = PutRequest { space: TENANT, cost_ms: 1000, ..request(key.as_bytes(), &payload) };
        store.put(&request, Condition::Always).unwrap().unwrap();
        assert!(stored_bytes(&store) <= QUOTA, "{}", stored_bytes(&store));
        assert_eq!(get(&store, key.as_bytes()), Some(payload));
        let there = [b"one", b"two"].map(|key| store.stat(TENANT, key).is_some());
        assert_eq!(there[0], there[1], "a group leaves as one");
    }
    assert_eq!(get(&store, b"one"), None);
    let whole: u64 = stored_bytes(&store);
    let store = opened_again(store, dir.path(), QUOTA);
    assert_eq!(stored_bytes(&store), whole, "nothing is counted that is gone");
    let entries = store.usage(Some(TENANT)).entries;
    assert!(whole < entries * 201_000, "{whole} bytes of {entries} entries");
}
