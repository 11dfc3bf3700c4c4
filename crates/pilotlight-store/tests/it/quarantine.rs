use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_store::{Condition, Options, Purged, SetAside, Store, StoreError};

use crate::damage::files;
use crate::media::crash::{Crash, Moment};
use crate::media::{BROKEN, FULL, FileSystem, Fuse, Lasting, STUCK, Simulated, Watched};
use crate::setup::{Dice, START_MS, disk_use, get, noise, open, options, put, seed};

/// Flips a bit of the file below `dir` that holds `needle`.
fn damage(dir: &Path, needle: &[u8]) {
    let hit = files(dir).into_iter().find_map(|path| {
        let bytes = fs::read(&path).unwrap();
        let at = bytes.windows(needle.len()).position(|window| window == needle)?;
        Some((path, bytes, at))
    });
    let (path, mut bytes, at) = hit.expect("bytes to damage");
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn names(aside: &[SetAside]) -> Vec<Option<Vec<u8>>> {
    aside.iter().map(|one| one.name.clone().map(|(_, key)| key)).collect()
}

#[test]
fn what_is_set_aside_is_noted_with_its_key_and_the_reason_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (small, large) = (noise(1, 500), noise(2, 50_000));
    put(&store, b"small", &small).unwrap();
    put(&store, b"large", &large).unwrap();
    put(&store, b"unnamed", b"whose key is hit").unwrap();
    damage(&dir.path().join("log"), &small[100..200]);
    damage(&dir.path().join("blobs"), &large[100..200]);
    damage(&dir.path().join("log"), b"unnamed");
    for key in [&b"small"[..], b"large"] {
        assert!(matches!(store.get(b"", key), Err(StoreError::Corrupt { .. })));
    }
    assert!(store.scan(b"", 0, 10).unwrap().keys.is_empty());
    let aside = store.quarantine();
    assert_eq!(names(&aside), [Some(b"small".to_vec()), Some(b"large".to_vec()), None]);
    for (one, reason) in aside.iter().zip(["payload fails", "payload fails", "record is damaged"]) {
        assert!(one.reason.contains(reason), "{one:?}");
        assert!(one.is_kept && one.bytes > 0 && one.when_ms == Some(START_MS), "{one:?}");
    }
    let kept: Vec<_> =
        files(&dir.path().join("quarantine")).iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(kept.iter().any(|bytes| bytes.windows(100).any(|window| window == &large[1000..1100])));
    assert!(kept.iter().any(|bytes| bytes.windows(100).any(|window| window == &small[300..400])));
    drop(store);
    assert_eq!(open(dir.path()).quarantine(), aside, "and after a reopen");
}

#[test]
fn a_torn_last_note_costs_no_other_and_notes_go_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for key in 0..3u64 {
        put(&store, &key.to_le_bytes(), &noise(key, 40_000)).unwrap();
        assert!(
            store
                .set_aside(
                    b"",
                    &key.to_le_bytes(),
                    store.stat(b"", &key.to_le_bytes()).unwrap().version,
                    "why"
                )
                .unwrap()
        );
    }
    drop(store);
    let notes = dir.path().join("quarantine/notes.1");
    let whole = fs::metadata(&notes).unwrap().len();
    fs::OpenOptions::new().write(true).open(&notes).unwrap().set_len(whole - 3).unwrap();
    let store = open(dir.path());
    let aside = store.quarantine();
    assert_eq!(aside.iter().filter(|one| one.reason == "why").count(), 2);
    assert_eq!(aside.len(), 3, "what is kept is listed without a note, too");
    assert_eq!(names(&aside)[2], Some(2u64.to_le_bytes().to_vec()), "its file says whose it is");
    let version = put(&store, b"next", b"payload").unwrap();
    assert!(store.set_aside(b"", b"next", version, "why").unwrap());
    drop(store);
    let aside = open(dir.path()).quarantine();
    assert_eq!(aside.iter().filter(|one| one.reason == "why").count(), 3);
    assert_eq!(aside.last().unwrap().number, 4, "no number is given twice");
}

#[test]
fn a_purge_removes_what_is_old_enough_and_gives_its_bytes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (options, clock) = options(dir.path(), 64 << 20);
    let store = Store::open(Options { tick: Duration::from_secs(3600), ..options.clone() }).unwrap();
    put(&store, b"stays", b"whole").unwrap();
    for key in [&b"older"[..], b"newer"] {
        let version = put(&store, key, &noise(1, 100_000)).unwrap();
        assert!(store.set_aside(b"", key, version, "why").unwrap());
        clock.advance_ms(1000);
    }
    let (used, on_disk) = (store.usage(None).stored_bytes, disk_use(dir.path()));
    let purged = store.purge_quarantine(Some(START_MS + 500)).unwrap();
    assert!(purged.count == 1 && purged.freed_bytes > 100_000, "{purged:?}");
    assert_eq!(names(&store.quarantine()), [Some(b"newer".to_vec())]);
    assert!(store.usage(None).stored_bytes + 100_000 < used && disk_use(dir.path()) + 100_000 < on_disk);
    drop(store);
    let store = Store::open(options).unwrap();
    assert_eq!(names(&store.quarantine()), [Some(b"newer".to_vec())]);
    assert_eq!(store.purge_quarantine(None).unwrap().count, 1);
    assert_eq!((store.quarantine(), files(&dir.path().join("quarantine"))), (vec![], vec![]));
    assert_eq!(store.purge_quarantine(None).unwrap(), Purged::default());
    assert_eq!(get(&store, b"stays"), Some(b"whole".to_vec()));
}

#[test]
fn an_entry_that_its_owner_found_damaged_is_copied_and_those_who_share_its_payload_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let payload = noise(1, 50_000);
    let version = put(&store, b"damaged", &payload).unwrap();
    put(&store, b"shares", &payload).unwrap();
    assert!(!store.set_aside(b"", b"damaged", version + 1, "not this one").unwrap());
    assert!(store.set_aside(b"", b"damaged", version, "its digest is another").unwrap());
    assert_eq!((get(&store, b"damaged"), get(&store, b"shares")), (None, Some(payload)));
    let aside = store.quarantine();
    assert_eq!((aside.len(), aside[0].is_kept, &*aside[0].reason), (1, true, "its digest is another"));
    assert_eq!(store.usage(None).quarantined, 1);
}

#[test]
fn the_quarantine_takes_no_more_than_it_may_however_much_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let bound = 16 << 20;
    let store = Store::open(options(dir.path(), bound).0).unwrap();
    for key in 0..4000u64 {
        let key = [&key.to_le_bytes()[..], &[7; 300]].concat();
        let version = put(&store, &key, b"payload").unwrap();
        assert!(store.set_aside(b"", &key, version, &"a long reason ".repeat(20)).unwrap());
    }
    let kept: Vec<_> = files(&dir.path().join("quarantine"));
    let len: u64 = kept.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(kept.len() <= 17 && len < 300 << 10, "{} files, {len} bytes", kept.len());
    assert_eq!(store.usage(None).quarantined, 4000);
    assert!(disk_use(dir.path()) <= bound);
    assert!(store.purge_quarantine(None).unwrap().count > 100);
    let version = put(&store, b"key", b"payload").unwrap();
    assert!(store.set_aside(b"", b"key", version, "why").unwrap());
    assert_eq!(store.quarantine().len(), 1, "there is room for notes again");
}

/// Four entries, two of them in the log.
fn filled() -> FileSystem {
    let media = Simulated::holding(FileSystem::default());
    let store = open_in(media.clone());
    for key in 0..4u64 {
        put(&store, &key.to_le_bytes(), &payload(key)).unwrap();
    }
    drop(store);
    media.files()
}

fn payload(key: u64) -> Vec<u8> {
    noise(key, if key.is_multiple_of(2) { 3000 } else { 50_000 })
}

/// Damages one entry in the log and one in a file, while a store has them open.
fn damage_two(media: &Simulated) {
    media.alter(|files| {
        for (dir, key) in [("/store/log", 2u64), ("/store/blobs", 3)] {
            let needle = &payload(key)[1000..1064];
            let hit = files.paths(Path::new(dir)).into_iter().find_map(|path| {
                let bytes = files.read(&path);
                let at = bytes.windows(64).position(|window| window == needle)?;
                Some((path, bytes, at))
            });
            let (path, mut bytes, at) = hit.expect("bytes to damage");
            bytes[at] ^= 1;
            files.overwrite(&path, &bytes);
        }
    });
}

fn open_in(media: Arc<dyn pilotlight_store::media::Media>) -> Store {
    // No work in the background, which would come between.
    let tick = Duration::from_secs(3600);
    let store = Store::open(Options { media, tick, ..options(Path::new("/store"), 9 << 20).0 }).unwrap();
    // Under so small a bound there is no room for copies before.
    store.sweep().unwrap();
    store
}

/// Finds the damage, and purges it.
fn find_and_purge(store: &Store) {
    for key in 0..4u64 {
        let _ = store.get(b"", &key.to_le_bytes());
    }
    let _ = store.purge_quarantine(Some(START_MS));
    let _ = store.purge_quarantine(None);
}

fn is_sound(store: &Store, what: &str) {
    for key in 0..2u64 {
        assert_eq!(get(store, &key.to_le_bytes()), Some(payload(key)), "{what}");
    }
    for key in 2..4u64 {
        match store.get(b"", &key.to_le_bytes()) {
            Ok(None) | Err(StoreError::Corrupt { .. }) => {}
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(get(store, &key.to_le_bytes()), None, "{what}");
    }
    assert!(store.quarantine().len() <= 4, "{what}: {:?}", store.quarantine());
    store.purge_quarantine(None).unwrap();
    assert!(store.quarantine().is_empty(), "{what}");
    put(store, b"new", b"entry").unwrap();
}

#[test]
fn a_crash_while_something_is_set_aside_or_purged_costs_at_most_its_note() {
    let seed = seed();
    let media = Simulated::holding(filled());
    let store = open_in(media.clone());
    damage_two(&media);
    let moments = Arc::new(Mutex::new(Vec::new()));
    let recorded = moments.clone();
    media.record(move |files, change| {
        recorded.lock().push(Moment { files: files.clone(), change: change.clone() });
    });
    find_and_purge(&store);
    media.record(|_, _| {});
    let moments = std::mem::take(&mut *moments.lock());
    let calls: Vec<String> = moments.iter().map(ToString::to_string).collect();
    assert!(calls.len() > 10, "{calls:#?}");
    let mut dice = Dice::new(seed);
    for (at, moment) in moments.iter().enumerate() {
        for crash in [Crash::Kill, Crash::Kill, Crash::PowerCut, Crash::PowerCut] {
            let files = moment.after(crash, &mut dice);
            let what = format!("seed {seed}, {crash:?} at call {at}, {moment}");
            let store = open_in(Simulated::holding(files));
            if crash == Crash::Kill {
                is_sound(&store, &what);
            }
            store.purge_quarantine(None).unwrap();
            assert!(store.quarantine().is_empty(), "{what}");
        }
    }
}

#[test]
fn nobodys_get_fails_over_a_note_that_cannot_be_written() {
    let files = filled();
    for failure in [BROKEN, FULL, STUCK] {
        for lasting in [Lasting::Once, Lasting::ForEver] {
            let mut calls = 0;
            loop {
                let medium = Simulated::holding(files.clone());
                let media = Watched::over(medium.clone());
                let store = open_in(media.clone());
                damage_two(&medium);
                let fuse = Fuse::set(&media, calls, failure, lasting);
                find_and_purge(&store);
                media.unset();
                let what = format!("{failure:?} {lasting:?} after {calls} calls");
                is_sound(&store, &what);
                drop(store);
                is_sound_after_reopen(medium, &what);
                if !fuse.is_burnt() {
                    break;
                }
                calls += 1;
            }
            assert!(calls > 5, "{calls} calls");
        }
    }
}

fn is_sound_after_reopen(medium: Arc<Simulated>, what: &str) {
    let store = open_in(medium);
    is_sound(&store, &format!("{what}, reopened"));
}

#[test]
fn a_put_after_the_quarantine_was_purged_is_an_entry_like_any() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let payload = noise(1, 50_000);
    put(&store, b"key", &payload).unwrap();
    damage(&dir.path().join("blobs"), &payload[..100]);
    assert!(store.get(b"", b"key").is_err());
    store.purge_quarantine(None).unwrap();
    store.put(&crate::setup::request(b"key", &payload), Condition::Absent).unwrap().unwrap();
    assert_eq!(get(&store, b"key"), Some(payload));
    assert!(store.quarantine().is_empty());
}
