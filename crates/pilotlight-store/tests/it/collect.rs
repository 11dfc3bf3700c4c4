use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_store::media::Media;
use pilotlight_store::{
    Collect, Collected, Condition, LookingOnly, OpenError, Options, PutRequest, Result, Store,
};

use crate::damage::files;
use crate::media::crash::{Crash, Moment};
use crate::media::{BROKEN, FULL, FileSystem, Fuse, Lasting, Operation, STUCK, Simulated, Watched};
use crate::setup::{Dice, START_MS, disk_use, get, noise, open, options, put, request, seed};

const BOUND: u64 = 16 << 20;
/// Entries that stay.
const ALIVE: u64 = 30;

fn run(store: &Store) -> Result<Collected> {
    store.collect(Collect::Run, &mut |_| ControlFlow::Continue(()))
}

fn plan(store: &Store) -> Collected {
    store.collect(Collect::Plan, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn payload(key: u64) -> Vec<u8> {
    noise(key, if key.is_multiple_of(3) { 40_000 } else { 9000 })
}

/// Entries that stay among four times as many that were deleted, and some that expire within a second.
fn fill(store: &Store) {
    for key in 0..5 * ALIVE {
        put(store, &key.to_le_bytes(), &payload(key)).unwrap();
    }
    for key in ALIVE..5 * ALIVE {
        assert!(store.delete(b"", &key.to_le_bytes(), Condition::Always).unwrap());
    }
    for key in [&b"expires"[..], b"expires too"] {
        let request = PutRequest { expires_ms: Some(START_MS + 1000), ..request(key, b"payload") };
        store.put(&request, Condition::Always).unwrap();
    }
}

fn holds_what_is_alive(store: &Store, what: &str) {
    for key in 0..ALIVE {
        assert_eq!(get(store, &key.to_le_bytes()), Some(payload(key)), "{what}: key {key}");
    }
    for key in ALIVE..5 * ALIVE {
        assert_eq!(get(store, &key.to_le_bytes()), None, "{what}: key {key} was deleted");
    }
}

fn open_on(media: Arc<dyn Media>, dir: &Path, is_late: bool) -> Store {
    // No work in the background, which would come between.
    let (options, clock) = options(dir, BOUND);
    if is_late {
        clock.advance_ms(2000);
    }
    Store::open(Options { media, tick: Duration::from_secs(3600), ..options }).unwrap()
}

#[test]
fn a_collection_gives_back_what_nobody_needs_and_keeps_what_is_alive() {
    let dir = tempfile::tempdir().unwrap();
    fill(&open(dir.path()));
    let stray = dir.path().join("blobs/00112233445566778899aabbccddeeff.ffff");
    let store = open_on(Arc::new(pilotlight_store::media::Disk), dir.path(), true);
    fs::write(&stray, [7; 20_000]).unwrap();
    let (planned, on_disk) = (plan(&store), disk_use(dir.path()));
    assert!(stray.exists());
    assert_eq!((planned.expired, planned.orphans), (2, 1), "{planned:?}");
    let found = run(&store).unwrap();
    assert_eq!((found.expired, found.orphans), (2, 1), "{found:?}");
    assert!(!stray.exists());
    assert!(found.before_bytes.abs_diff(on_disk) < 200_000, "{found:?}, {on_disk} on the disk");
    assert!(found.after_bytes < planned.after_bytes + 200_000, "{found:?}, {planned:?}");
    let now = disk_use(dir.path());
    assert!(found.after_bytes.abs_diff(now) < 200_000, "{found:?}, {now} on the disk");
    // What is alive, and not much on top.
    assert!(now < (0..ALIVE).map(|key| payload(key).len() as u64).sum::<u64>() + 300_000, "{now}");
    holds_what_is_alive(&store, "after it");
    let again = run(&store).unwrap();
    assert_eq!((again.expired, again.orphans, again.segments), (0, 0, 0), "{again:?}");
    drop(store);
    holds_what_is_alive(&open(dir.path()), "and after a reopen");
}

#[test]
fn a_plan_and_a_look_change_nothing() {
    let media = Simulated::holding(FileSystem::default());
    fill(&open_on(media.clone(), Path::new("/store"), false));
    let changes = Arc::new(Mutex::new(Vec::new()));
    let recorded = changes.clone();
    media.record(move |_, change| recorded.lock().push(format!("{change:?}")));
    let store = open_on(LookingOnly::at(media.clone()), Path::new("/store"), true);
    let planned = plan(&store);
    assert!(planned.expired == 2 && planned.after_bytes + 500_000 < planned.before_bytes, "{planned:?}");
    holds_what_is_alive(&store, "a store that is looked at");
    assert!(put(&store, b"key", b"payload").is_err() && run(&store).is_err());
    drop(store);
    assert_eq!(*changes.lock(), Vec::<String>::new());
}

#[test]
fn a_store_that_is_looked_at_is_nobody_elses_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    put(&open(dir.path()), b"key", b"payload").unwrap();
    let looked_at = open_on(LookingOnly::at(Arc::new(pilotlight_store::media::Disk)), dir.path(), false);
    let second = Store::open(options(dir.path(), BOUND).0);
    assert!(matches!(second, Err(OpenError::Locked { .. })), "{second:?}");
    drop(looked_at);
    assert_eq!(get(&open(dir.path()), b"key"), Some(b"payload".to_vec()));
}

#[test]
fn a_file_that_could_not_be_removed_is_an_orphan_and_its_bytes_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let media = Watched::disk();
    let store = open_on(media.clone(), dir.path(), false);
    put(&store, b"key", &noise(1, 100_000)).unwrap();
    media.set(|call| {
        let is_stuck =
            matches!(call.operation, Operation::Remove | Operation::Rename) && call.is_on_payload();
        if is_stuck { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    });
    store.delete(b"", b"key", Condition::Always).unwrap();
    media.unset();
    let used = store.usage(None).stored_bytes;
    assert_eq!(run(&store).unwrap().orphans, 1);
    assert!(store.usage(None).stored_bytes + 100_000 <= used, "{used}, {:?}", store.usage(None));
    assert!(files(&dir.path().join("blobs")).is_empty());
}

#[test]
fn a_collection_takes_no_file_from_under_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let media = Watched::disk();
    let store = Arc::new(open_on(media.clone(), dir.path(), false));
    // One that is new, and one that waited for a payload.
    put(&store, b"deleted", &noise(1, 40_000)).unwrap();
    for key in [&b"new"[..], b"recycled"] {
        let collected = Arc::new(AtomicU64::new(0));
        let (collector, count) = (store.clone(), collected.clone());
        media.set(move |call| {
            if call.operation == Operation::Write && call.is_on_payload() && count.load(Relaxed) == 0 {
                count.fetch_add(1, Relaxed);
                assert_eq!(run(&collector).unwrap().orphans, 0);
                count.fetch_add(1, Relaxed);
            }
            Ok(())
        });
        put(&store, key, &noise(2, 50_000 + key.len())).unwrap();
        media.unset();
        assert_eq!(collected.load(Relaxed), 2, "a collection ran while it was written");
        assert_eq!(get(&store, key), Some(noise(2, 50_000 + key.len())));
        assert!(store.delete(b"", b"deleted", Condition::Always).unwrap() || key == b"recycled");
    }
}

fn filled() -> FileSystem {
    let media = Simulated::holding(FileSystem::default());
    let store = open_on(media.clone(), Path::new("/store"), false);
    fill(&store);
    store.sync().unwrap();
    drop(store);
    media.files()
}

#[test]
fn a_crash_in_a_collection_loses_nothing_that_is_alive() {
    let (files, seed) = (filled(), seed());
    let media = Simulated::holding(files);
    let store = open_on(media.clone(), Path::new("/store"), true);
    store.sync().unwrap();
    let moments = Arc::new(Mutex::new(Vec::new()));
    let recorded = moments.clone();
    media.record(move |files, change| {
        recorded.lock().push(Moment { files: files.clone(), change: change.clone() });
    });
    run(&store).unwrap();
    media.record(|_, _| {});
    let moments = std::mem::take(&mut *moments.lock());
    assert!(moments.len() > 10, "{} calls", moments.len());
    let mut dice = Dice::new(seed);
    for (at, moment) in moments.iter().enumerate() {
        for crash in [Crash::Kill, Crash::PowerCut, Crash::PowerCut] {
            let files = moment.after(crash, &mut dice);
            let store = open_on(Simulated::holding(files), Path::new("/store"), true);
            let what = format!("seed {seed}, {crash:?} at call {at}, {moment}");
            holds_what_is_alive(&store, &what);
            run(&store).unwrap();
            holds_what_is_alive(&store, &format!("{what}, and again"));
        }
    }
}

#[test]
fn a_medium_that_fails_in_a_collection_costs_nothing_that_is_alive() {
    let files = filled();
    for failure in [BROKEN, FULL, STUCK] {
        for lasting in [Lasting::Once, Lasting::ForEver] {
            let mut calls = 0;
            loop {
                let medium = Simulated::holding(files.clone());
                let media = Watched::over(medium.clone());
                let store = open_on(media.clone(), Path::new("/store"), true);
                let fuse = Fuse::set(&media, calls, failure, lasting);
                let _ = run(&store);
                let is_burnt = fuse.is_burnt();
                media.unset();
                let what = format!("{failure:?} {lasting:?} after {calls} calls");
                holds_what_is_alive(&store, &what);
                drop(store);
                let store = open_on(medium, Path::new("/store"), true);
                holds_what_is_alive(&store, &format!("{what}, reopened"));
                if !is_burnt {
                    break;
                }
                calls += 1;
            }
            assert!(calls > 5, "{calls} calls");
        }
    }
}
