use std::collections::BTreeMap;
use std::time::Duration;

use pilotlight_store::{Condition, Options, PutRequest, Store};
use proptest::prelude::*;

use crate::setup::{get, noise, open, options, request};

#[derive(Debug, Clone)]
enum Step {
    Put {
        key: u8,
        len: usize,
        seed: u64,
    },
    PutIfAbsent {
        key: u8,
        seed: u64,
    },
    Delete {
        key: u8,
    },
    Clear {
        space: bool,
    },
    Reopen,
    /// Reopen as after `kill -9`: nothing is closed, synced or sealed first.
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![0usize..100, 1000usize..5000, 30_000usize..40_000, 100_000usize..200_000];
    prop_oneof![
        8 => (0u8..12, len, any::<u64>()).prop_map(|(key, len, seed)| Step::Put { key, len, seed }),
        2 => (0u8..12, any::<u64>()).prop_map(|(key, seed)| Step::PutIfAbsent { key, seed }),
        4 => (0u8..12).prop_map(|key| Step::Delete { key }),
        1 => any::<bool>().prop_map(|space| Step::Clear { space }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
    ]
}

/// Keys over 8 live in another space.
fn name(key: u8) -> (&'static [u8], [u8; 1]) {
    (if key > 8 { b"db1" } else { b"" }, [key])
}

fn check(store: &Store, model: &BTreeMap<u8, Vec<u8>>) {
    for key in 0..12 {
        let (space, bytes) = name(key);
        let found = store.get(space, &bytes).expect("get").map(|stored| stored.payload.to_vec());
        assert_eq!(found.as_ref(), model.get(&key), "key {key}");
    }
    assert_eq!(store.usage(None).entries, model.len() as u64);
    let listed = store.scan(b"", 0, 100).unwrap().keys.len() + store.scan(b"db1", 0, 100).unwrap().keys.len();
    assert_eq!(listed, model.len());
}

/// Copies the directory as a killed process leaves it, while the store is open.
fn image(dir: &std::path::Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    // In this process: a child would hold other tests' locks for a moment.
    crate::fixture::copy(dir, copy.path());
    copy
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_a_map_whatever_happens_between(steps in prop::collection::vec(step(), 1..60)) {
        let mut dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put { key, len, seed } => {
                    let (space, bytes) = name(key);
                    let payload = noise(seed, len);
                    let request = PutRequest { space, ..request(&bytes, &payload) };
                    store.put(&request, Condition::Always).unwrap().expect("unconditional");
                    model.insert(key, payload);
                }
                Step::PutIfAbsent { key, seed } => {
                    let (space, bytes) = name(key);
                    let payload = noise(seed, 100);
                    let request = PutRequest { space, ..request(&bytes, &payload) };
                    let is_stored = store.put(&request, Condition::Absent).unwrap().is_some();
                    prop_assert_eq!(is_stored, !model.contains_key(&key));
                    model.entry(key).or_insert(payload);
                }
                Step::Delete { key } => {
                    let (space, bytes) = name(key);
                    let is_deleted = store.delete(space, &bytes, Condition::Always).unwrap();
                    prop_assert_eq!(is_deleted, model.remove(&key).is_some());
                }
                Step::Clear { space } => {
                    let (space, range) = if space { (&b"db1"[..], 9..12) } else { (&b""[..], 0..9) };
                    let cleared = store.clear(space).unwrap();
                    let before = model.len();
                    model.retain(|key, _| !range.contains(key));
                    prop_assert_eq!(cleared, (before - model.len()) as u64);
                }
                Step::Reopen => {
                    drop(store);
                    store = open(dir.path());
                }
                Step::Kill => {
                    let copy = image(dir.path());
                    drop(store);
                    dir = copy;
                    store = open(dir.path());
                }
            }
            check(&store, &model);
        }
    }
}

#[test]
fn cleaning_loses_and_resurrects_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Small segments and many overwrites and deletes of what an eviction-free store can hold.
    // No work in the background, which would remove files while the directory is copied.
    let tick = Duration::from_secs(3600);
    let store = Store::open(Options { tick, ..options(dir.path(), 64 << 20).0 }).unwrap();
    let mut model = BTreeMap::new();
    for round in 0..60_000u64 {
        let key = round.wrapping_mul(2_654_435_761) % 3000;
        if round % 5 == 0 {
            store.delete(b"", &key.to_le_bytes(), Condition::Always).unwrap();
            model.remove(&key);
        } else {
            let payload = noise(round, 2000);
            crate::setup::put(&store, &key.to_le_bytes(), &payload).unwrap();
            model.insert(key, round);
        }
    }
    assert_eq!(store.usage(None).evicted, 0, "all of it fits, once the dead are cleaned away");
    let check = |store: &Store| {
        for key in 0..3000u64 {
            let expected = model.get(&key).map(|round| noise(*round, 2000));
            assert_eq!(get(store, &key.to_le_bytes()), expected, "key {key}");
        }
    };
    check(&store);
    let copy = image(dir.path());
    drop(store);
    check(&open(dir.path()));
    check(&open(copy.path()));
}
