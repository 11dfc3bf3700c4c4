use std::sync::atomic::{AtomicBool, Ordering};

use pilotlight_store::{Condition, OpenError, Options, PutRequest, Store, StoreError};

use crate::setup::{START_MS, disk_use, get, noise, options, put, request};

const BOUND: u64 = 32 << 20;

#[test]
fn the_bound_is_never_exceeded_under_a_write_storm() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !is_done.load(Ordering::Relaxed) {
                most = most.max(disk_use(dir.path()));
            }
            most
        });
        let writers: Vec<_> = (0..4u64)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || {
                    for index in 0..600u64 {
                        let seed = writer << 32 | index;
                        let len = [200, 3000, 30_000, 70_000, 300_000, 1 << 20][(seed % 6) as usize];
                        let bytes = noise(seed, len);
                        let key = format!("{writer}-{index}");
                        put(store, key.as_bytes(), &bytes).expect("there is always something to evict");
                        let found = get(store, key.as_bytes());
                        assert!(found.is_none_or(|found| found == bytes), "never anything else");
                    }
                })
            })
            .collect();
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        is_done.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|writer| writer.unwrap());
        let most = watcher.join().unwrap();
        assert!(most <= BOUND, "{most} bytes on disk, bound {BOUND}");
        assert!(most > BOUND / 2, "{most} bytes on disk: the bound was not put to use");
    });
    let usage = store.usage(None);
    assert!(usage.evicted > 500 && usage.entries > 50, "{usage:?}");
    drop(store);
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    assert!(store.usage(None).entries > 50);
    assert!(disk_use(dir.path()) <= BOUND);
}

#[test]
fn small_entries_churn_within_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    for index in 0..120_000u64 {
        let key = format!("{}", index % 50_000);
        put(&store, key.as_bytes(), &noise(index, 900)).unwrap();
        if index % 10_000 == 0 {
            assert!(disk_use(dir.path()) <= BOUND);
        }
    }
    let newest = 119_999u64;
    assert_eq!(get(&store, (newest % 50_000).to_string().as_bytes()), Some(noise(newest, 900)));
    let usage = store.usage(None);
    assert!(usage.entries > 15_000, "{usage:?}");
}

#[test]
fn an_entry_too_large_for_the_bound_is_refused_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    put(&store, b"kept", b"x").unwrap();
    let error = put(&store, b"huge", &vec![0; BOUND as usize]).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    assert_eq!(get(&store, b"kept"), Some(b"x".to_vec()));
}

#[test]
fn a_bound_the_engine_cannot_keep_is_refused_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let error = Store::open(options(dir.path(), 1 << 20).0).unwrap_err();
    assert!(matches!(error, OpenError::BoundTooSmall { .. }));
    assert!(error.hint().contains("--max-size 9MiB"), "{}", error.hint());
}

#[test]
fn a_lowered_bound_holds_from_the_open() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    for index in 0..400u64 {
        put(&store, index.to_string().as_bytes(), &noise(index, 60_000)).unwrap();
    }
    drop(store);
    let store = Store::open(options(dir.path(), BOUND / 2).0).unwrap();
    assert!(disk_use(dir.path()) <= BOUND / 2);
    assert!(store.usage(None).entries > 50);
}

#[test]
fn what_is_cheap_to_make_again_leaves_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    let put = |name: &str, index: u64, cost_ms| {
        let (key, payload) = (format!("{name}{index}"), noise(index << 8 | u64::from(cost_ms), 100_000));
        let request = PutRequest { cost_ms, ..request(key.as_bytes(), &payload) };
        store.put(&request, Condition::Always).unwrap();
    };
    for index in 0..100 {
        put("dear", index, 60_000);
    }
    for index in 0..2000 {
        put("cheap", index, 10);
    }
    let kept = (0..100).filter(|index| get(&store, format!("dear{index}").as_bytes()).is_some()).count();
    assert!(kept > 90, "{kept} of 100 dear entries left");
}

#[test]
fn expired_entries_leave_the_disk_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let (options, clock) = options(dir.path(), BOUND);
    let store = Store::open(options).unwrap();
    let payload = noise(1, 50_000);
    for index in 0..50 {
        let key = format!("{index}");
        let request = PutRequest { expires_ms: Some(START_MS + 1000), ..request(key.as_bytes(), &payload) };
        store.put(&request, Condition::Always).unwrap();
    }
    clock.advance_ms(1000);
    assert_eq!(get(&store, b"7"), None);
    // The background removes them at its next tick; waiting for it is what this test is about.
    while store.usage(None).expired < 50 {
        std::thread::yield_now();
    }
    assert_eq!((store.usage(None).entries, store.usage(None).files), (0, 0));
}

#[test]
fn what_a_put_replaces_is_freed_by_who_needs_the_room_and_nobody_is_evicted_for_it() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing in the background frees it first.
    let tick = std::time::Duration::from_secs(3600);
    let store = Store::open(Options { tick, ..options(dir.path(), BOUND).0 }).unwrap();
    put(&store, b"first", &noise(1, 4 << 20)).unwrap();
    put(&store, b"first", &noise(2, 4 << 20)).unwrap();
    assert!(store.tidy() || store.usage(None).files == 1, "the next sync came first");
    assert!(store.is_tidy() && !store.tidy());
    assert_eq!((store.usage(None).files, get(&store, b"first")), (1, Some(noise(2, 4 << 20))));
    for round in 0..40 {
        put(&store, b"second", &noise(round, 4 << 20)).unwrap();
        assert!(disk_use(dir.path()) <= BOUND);
    }
    assert_eq!(store.usage(None).evicted, 0);
    assert_eq!(get(&store, b"first"), Some(noise(2, 4 << 20)));
}

#[test]
fn nobody_leaves_for_what_is_being_written_and_counted_already() {
    let dir = tempfile::tempdir().unwrap();
    let (options, _) = options(dir.path(), BOUND);
    // So that many ticks fall into each put.
    let store = Store::open(Options { tick: std::time::Duration::from_micros(100), ..options }).unwrap();
    let payload = noise(1, 10 << 20);
    for number in 0..5u8 {
        // One stays, one comes and goes: both fit, with the one that is being written; counted twice it would not.
        let key = [b'k', number % 2];
        let mut payload = payload.clone();
        payload[0] = number;
        if number >= 2 {
            store.delete(b"", &key, Condition::Always).unwrap();
        }
        put(&store, &key, &payload).unwrap();
    }
    let usage = store.usage(None);
    assert_eq!((usage.entries, usage.evicted), (2, 0));
}

#[test]
fn equal_payloads_are_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    let payload = noise(1, 500_000);
    for index in 0..20 {
        put(&store, index.to_string().as_bytes(), &payload).unwrap();
    }
    assert!(disk_use(dir.path()) < 700_000);
    assert_eq!((store.usage(None).deduplicated, store.usage(None).files), (19, 1));
    for index in 0..19 {
        assert!(store.delete(b"", index.to_string().as_bytes(), Condition::Always).unwrap());
    }
    assert_eq!(get(&store, b"19"), Some(payload));
    assert!(store.delete(b"", b"19", Condition::Always).unwrap());
    assert_eq!(store.usage(None).files, 0);
}
