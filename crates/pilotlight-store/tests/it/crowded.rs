use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use pilotlight_store::{Condition, Durability, Options, PutRequest, Store, StoreError};

use crate::media::{FULL, FileSystem, Fuse, Lasting, Simulated, Watched};
use crate::setup::{get, noise, options, put, request};

const BOUND: u64 = 16 << 20;

fn options_in(media: Arc<Simulated>) -> Options {
    Options { media, ..options(Path::new("/store"), BOUND).0 }
}

fn open(media: &Arc<Simulated>) -> Store {
    Store::open(options_in(media.clone())).unwrap()
}

#[test]
fn a_disk_that_others_fill_takes_new_entries_for_old_ones() {
    for (len, durability) in [
        (900, Durability::Relaxed),
        (30_000, Durability::Relaxed),
        (70_000, Durability::Batch),
        (300_000, Durability::Always),
    ] {
        let media = Simulated::holding(FileSystem::default());
        media.alter(|files| files.capacity = Some(5 << 20));
        let store = Store::open(Options { durability, ..options_in(media.clone()) }).unwrap();
        let puts = (12 << 20) / len as u64;
        for key in 0..puts {
            put(&store, &key.to_le_bytes(), &noise(key, len))
                .unwrap_or_else(|error| panic!("{len}: put {key}: {error}"));
            if key % 50 == 0 {
                assert_eq!(get(&store, &key.to_le_bytes()), Some(noise(key, len)));
            }
        }
        let usage = store.usage(None);
        let kept = usage.entries * len as u64;
        assert!(kept > 2 << 20, "{len}: {kept} bytes kept of a disk of 5 MiB");
        drop(store);
        let store = open(&media);
        for key in 0..puts {
            assert!(get(&store, &key.to_le_bytes()).is_none_or(|found| found == noise(key, len)));
        }
    }
}

#[test]
fn a_disk_that_others_fill_keeps_large_entries_beside_small_ones() {
    let media = Simulated::holding(FileSystem::default());
    media.alter(|files| files.capacity = Some(8 << 20));
    let store = open(&media);
    for key in 0..600u64 {
        let payload = noise(key, [500, 20_000, 60_000, 200_000][key as usize % 4]);
        put(&store, &key.to_le_bytes(), &payload).unwrap_or_else(|error| panic!("put {key}: {error}"));
    }
    let used = media.files().disk_use();
    assert!(used > 6 << 20, "{used} bytes kept of a disk of 8 MiB: {:?}", store.usage(None));
}

#[test]
fn a_pinned_entry_and_its_group_stay_on_a_disk_that_others_fill() {
    let media = Simulated::holding(FileSystem::default());
    media.alter(|files| files.capacity = Some(6 << 20));
    let store = open(&media);
    let group = NonZeroU32::new(7);
    let kept: Vec<_> = (0..4u64).map(|member| (member, noise(member, 60_000))).collect();
    for (member, payload) in &kept {
        // Worth nothing: without the pin they are the first to leave.
        let key = member.to_le_bytes();
        let request = PutRequest { group, cost_ms: 1, ..request(&key, payload) };
        store.put(&request, Condition::Always).unwrap();
    }
    assert!(store.pin(b"", &0u64.to_le_bytes()).unwrap());
    for key in 100..500u64 {
        put(&store, &key.to_le_bytes(), &noise(key, 60_000))
            .unwrap_or_else(|error| panic!("put {key}: {error}"));
    }
    for (member, payload) in &kept {
        assert_eq!(get(&store, &member.to_le_bytes()).as_ref(), Some(payload), "member {member}");
    }
}

/// As a server does with small entries: the first that finds no room is refused, and soon there is some.
#[test]
fn a_disk_that_others_fill_takes_staged_entries_but_for_the_first() {
    let media = Simulated::holding(FileSystem::default());
    media.alter(|files| files.capacity = Some(4 << 20));
    let store = open(&media);
    let settle = |key: u64| {
        let staged = store.stage(&request(&key.to_le_bytes(), &noise(key, 20_000)), Condition::Always);
        staged.and_then(|version| store.settle(version.expect("an unconditional put")))
    };
    let refused = (0..1000).filter(|key| settle(*key).is_err()).count();
    assert!(refused > 0 && refused < 100, "{refused} of 1000 refused");
    assert!(store.usage(None).entries > 100, "{:?}", store.usage(None));
}

#[test]
fn a_moment_without_room_costs_no_entry() {
    let medium = Simulated::holding(FileSystem::default());
    let media = Watched::over(medium);
    let store =
        Store::open(Options { media: media.clone(), ..options(Path::new("/store"), BOUND).0 }).unwrap();
    (0..100u64).for_each(|key| _ = put(&store, &key.to_le_bytes(), &noise(key, 40_000)).unwrap());
    for calls in 0..3 {
        let fuse = Fuse::set(&media, calls, FULL, Lasting::Once);
        put(&store, b"new", &noise(calls as u64 + 1000, 50_000)).unwrap();
        assert!(fuse.is_burnt());
        media.unset();
    }
    assert_eq!((store.usage(None).entries, store.usage(None).evicted), (101, 0));
}

#[test]
fn a_disk_without_any_room_is_not_littered_and_keeps_what_it_has() {
    let medium = Simulated::holding(FileSystem::default());
    let media = Watched::over(medium.clone());
    let options = Options { media: media.clone(), ..options(Path::new("/store"), BOUND).0 };
    let store = Store::open(options).unwrap();
    let _fuse = Fuse::set(&media, 0, FULL, Lasting::ForEver);
    let before = medium.files().paths(Path::new("/store")).len();
    for key in 0..200u64 {
        let error =
            put(&store, &key.to_le_bytes(), &noise(key, 1000 + 40_000 * (key as usize % 2))).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    }
    assert_eq!(medium.files().paths(Path::new("/store")).len(), before);
}

#[test]
fn whoever_does_not_know_the_bound_evicts_nothing_on_a_full_disk() {
    let media = Simulated::holding(FileSystem::default());
    media.alter(|files| files.capacity = Some(5 << 20));
    let unbounded = || Options { media: media.clone(), ..options(Path::new("/store"), Options::UNBOUNDED).0 };
    let store = Store::open(unbounded()).unwrap();
    let mut taken = Vec::new();
    for key in 0..200u64 {
        match put(&store, &key.to_le_bytes(), &noise(key, if key.is_multiple_of(2) { 900 } else { 60_000 })) {
            Ok(_) => taken.push(key),
            Err(StoreError::DiskFull { .. }) => {}
            Err(error) => panic!("put {key}: {error}"),
        }
    }
    assert!(taken.len() < 200 && store.usage(None).evicted == 0, "{} taken", taken.len());
    drop(store);
    let store = Store::open(unbounded()).unwrap();
    for key in taken {
        let payload = noise(key, if key.is_multiple_of(2) { 900 } else { 60_000 });
        assert_eq!(get(&store, &key.to_le_bytes()), Some(payload), "{key}");
    }
}
