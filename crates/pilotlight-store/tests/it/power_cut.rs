use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_store::{Condition, Durability, Options, Store};

use crate::media::crash::{Change, Moment, cut_power};
use crate::media::{FileSystem, Simulated};
use crate::setup::{Dice, get, noise, options, put, request};

const BOUND: u64 = 9 << 20;

fn open(media: Arc<Simulated>, durability: Durability) -> Store {
    // No work in the background, which would come between.
    let tick = Duration::from_secs(3600);
    let options = Options { media, durability, tick, ..options(Path::new("/made/store"), BOUND).0 };
    Store::open(options).unwrap()
}

fn reopen(files: FileSystem) -> Store {
    open(Simulated::holding(files), Durability::Relaxed)
}

/// Gives every moment of the medium while `work` is done.
fn moments_of(media: &Simulated, work: impl FnOnce()) -> Vec<Moment> {
    let moments = Arc::new(Mutex::new(Vec::new()));
    let recorded = moments.clone();
    media.record(move |files, change| {
        recorded.lock().push(Moment { files: files.clone(), change: change.clone() });
    });
    work();
    media.record(|_, _| {});
    Arc::into_inner(moments).unwrap().into_inner()
}

/// What power cuts now may leave: nothing that was not synced, all of it, one of names and bytes without the other, or some.
fn cuts(moment: &Moment, seed: u64) -> Vec<FileSystem> {
    let mut dice = Dice::new(seed);
    [(0, 0), (100, 100), (100, 0), (0, 100), (50, 50), (50, 100), (50, 100), (100, 50)]
        .map(|(names, data)| cut_power(&moment.files, names, data, &mut dice))
        .into()
}

/// Overwrites one key until a segment was removed, and some more.
fn churn(store: &Store, rounds: u64) {
    for round in 0..rounds {
        put(store, b"churn", &noise(round, 30_000)).unwrap();
    }
}

#[test]
fn a_new_store_survives_a_power_cut_right_after_its_first_entry() {
    let media = Simulated::holding(FileSystem::default());
    let store = open(media.clone(), Durability::Always);
    put(&store, b"key", b"payload").unwrap();
    let moment = Moment { files: media.files(), change: Change::SyncDir("/".into()) };
    for files in cuts(&moment, 1) {
        assert_eq!(get(&reopen(files), b"key"), Some(b"payload".to_vec()));
    }
}

#[test]
fn an_entry_that_is_being_replaced_survives_a_power_cut() {
    for durability in [Durability::Batch, Durability::Always] {
        let media = Simulated::holding(FileSystem::default());
        let store = open(media.clone(), durability);
        let (old, new) = (noise(1, 50_000), noise(2, 60_000));
        put(&store, b"key", &old).unwrap();
        let moments = moments_of(&media, || _ = put(&store, b"key", &new).unwrap());
        for (at, moment) in moments.iter().enumerate() {
            for files in cuts(moment, at as u64) {
                let found = get(&reopen(files), b"key");
                assert!(
                    found.as_ref() == Some(&old) || found.as_ref() == Some(&new),
                    "{durability:?}, {moment}"
                );
            }
        }
        assert_eq!(store.usage(None).files, 1, "what was replaced goes in the end");
    }
}

/// A footer may be down before the records it tells of.
#[test]
fn an_entry_that_is_replaced_as_its_segment_is_sealed_survives_a_power_cut() {
    let media = Simulated::holding(FileSystem::default());
    let store = open(media.clone(), Durability::Always);
    let (old, new) = (noise(1, 20_000), noise(2, 20_000));
    put(&store, b"key", &old).unwrap();
    churn(&store, 33);
    let moments = moments_of(&media, || {
        let staged = [(&b"key"[..], &new), (b"seals", &noise(3, 32_000))]
            .map(|(key, payload)| store.stage(&request(key, payload), Condition::Always).unwrap().unwrap());
        staged.into_iter().for_each(|version| store.settle(version).unwrap());
    });
    assert!(moments.iter().any(|moment| matches!(moment.change, Change::Create(_))), "a segment was sealed");
    for (at, moment) in moments.iter().enumerate() {
        for seed in 0..40 {
            let files = cut_power(&moment.files, 100, 50, &mut Dice::new(seed));
            let found = reopen(files).get(b"", b"key").ok().flatten().map(|stored| stored.payload.to_vec());
            assert!(found.as_ref() == Some(&old) || found.as_ref() == Some(&new), "call {at}, {moment}");
        }
    }
}

#[test]
fn what_the_cleaner_moves_survives_a_power_cut_although_the_store_is_relaxed() {
    let media = Simulated::holding(FileSystem::default());
    let store = open(media.clone(), Durability::Relaxed);
    let entries: Vec<([u8; 8], Vec<u8>)> =
        (0..20u64).map(|key| (key.to_le_bytes(), noise(key, 3000))).collect();
    entries.iter().for_each(|(key, payload)| _ = put(&store, key, payload).unwrap());
    store.sync().unwrap();
    let moments = moments_of(&media, || churn(&store, 800));
    let removals: Vec<_> =
        moments.iter().filter(|moment| matches!(moment.change, Change::Remove(_))).collect();
    assert!(removals.len() > 10, "{} segments removed", removals.len());
    assert_eq!(store.usage(None).evicted, 0);
    for (at, moment) in removals.into_iter().enumerate() {
        let mut removed = moment.files.clone();
        removed.make(&moment.change);
        let moment = Moment { files: removed, change: Change::SyncDir("/".into()) };
        for files in cuts(&moment, at as u64) {
            let store = reopen(files);
            for (key, payload) in &entries {
                assert_eq!(get(&store, key).as_ref(), Some(payload), "removal {at}");
            }
        }
    }
}

#[test]
fn a_deleted_entry_stays_away_although_a_power_cut_loses_some_removals() {
    let media = Simulated::holding(FileSystem::default());
    let store = open(media.clone(), Durability::Relaxed);
    put(&store, b"deleted", b"gone").unwrap();
    churn(&store, 50);
    assert!(store.delete(b"", b"deleted", Condition::Always).unwrap());
    store.sync().unwrap();
    let moments = moments_of(&media, || churn(&store, 500));
    let segments = moments.iter().filter(|moment| matches!(moment.change, Change::Create(_)));
    let mut count = 0;
    for (at, moment) in segments.enumerate() {
        for files in cuts(moment, at as u64) {
            assert_eq!(get(&reopen(files), b"deleted"), None, "segment {at}");
        }
        count += 1;
    }
    assert!(count > 10, "{count} segments begun");
}

#[test]
fn a_sync_reaches_what_was_put_before_a_kill() {
    let media = Simulated::holding(FileSystem::default());
    let store = open(media.clone(), Durability::Relaxed);
    let entries: Vec<([u8; 8], Vec<u8>)> = (0..80u64)
        .map(|key| (key.to_le_bytes(), noise(key, if key % 2 == 0 { 30_000 } else { 40_000 })))
        .collect();
    entries.iter().for_each(|(key, payload)| _ = put(&store, key, payload).unwrap());
    // The process is killed; the kernel has everything, and the medium little of it.
    let killed = Simulated::holding(media.files());
    let store = open(killed.clone(), Durability::Relaxed);
    store.sync().unwrap();
    let moment = Moment { files: killed.files(), change: Change::SyncDir("/".into()) };
    for files in cuts(&moment, 1) {
        let store = reopen(files);
        for (key, payload) in &entries {
            assert_eq!(get(&store, key).as_ref(), Some(payload));
        }
    }
}

#[test]
fn a_store_whose_only_segment_is_torn_opens() {
    let media = Simulated::holding(FileSystem::default());
    let store = open(media.clone(), Durability::Relaxed);
    store.sync().unwrap();
    churn(&store, 3);
    for seed in 0..20 {
        let store = reopen(cut_power(&media.files(), 100, 50, &mut Dice::new(seed)));
        put(&store, b"key", b"payload").unwrap();
        assert_eq!(get(&store, b"key"), Some(b"payload".to_vec()));
    }
}
