use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use pilotlight_store::{Condition, OpenError, Options, PutRequest, Store, StoreError};

use crate::damage::files;
use crate::media::{Operation, Watched};
use crate::setup::{START_MS, disk_use, get, noise, open, options, put, request};

/// Has the next `removals` removals of segments fail, until the count is set anew.
fn stick(media: &Watched, removals: i64) -> Arc<AtomicI64> {
    let left = Arc::new(AtomicI64::new(removals));
    let sticking = left.clone();
    media.set(move |call| {
        let is_removal = call.operation == Operation::Remove && call.is_on_segment();
        let is_stuck = is_removal && sticking.fetch_sub(1, Ordering::Relaxed) > 0;
        if is_stuck { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    });
    left
}

/// Overwrites one key until the log went around about once.
fn churn(store: &Store, rounds: u64) {
    for round in 0..rounds {
        // Where nothing can be removed, a put is refused in the end.
        let _ = put(store, b"churn", &noise(round, 20_000));
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn only_file(dir: &Path) -> PathBuf {
    let mut found = files(dir);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_payload_that_came_again_after_damage_is_shared_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let payload = noise(1, 50_000);
    let store = open(dir.path());
    put(&store, b"a", &payload).unwrap();
    put(&store, b"b", &payload).unwrap();
    flip(&only_file(&dir.path().join("blobs")), 40_000);
    assert!(matches!(store.get(b"", b"a"), Err(StoreError::Corrupt { .. })));
    // The new file's payload starts elsewhere, since the key before it is longer.
    put(&store, b"a key that is longer", &payload).unwrap();
    drop(store);
    let store = open(dir.path());
    put(&store, b"c", &payload).unwrap();
    assert_eq!(get(&store, b"c"), Some(payload.clone()));
    assert_eq!(get(&store, b"a key that is longer"), Some(payload));
}

#[test]
fn a_put_never_shares_a_payload_file_that_was_lost() {
    for cut in [None, Some(10_000)] {
        let dir = tempfile::tempdir().unwrap();
        let payload = noise(1, 50_000);
        put(&open(dir.path()), b"a", &payload).unwrap();
        let file = only_file(&dir.path().join("blobs"));
        match cut {
            None => fs::remove_file(file).unwrap(),
            Some(len) => fs::OpenOptions::new().write(true).open(file).unwrap().set_len(len).unwrap(),
        }
        let store = open(dir.path());
        put(&store, b"b", &payload).unwrap();
        assert_eq!(get(&store, b"b"), Some(payload.clone()));
        assert!(matches!(store.get(b"", b"a"), Err(StoreError::Corrupt { .. })));
        assert_eq!((get(&store, b"a"), get(&store, b"b")), (None, Some(payload)));
    }
}

#[test]
fn the_file_of_an_entry_whose_record_cannot_be_read_is_freed_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let media = Watched::disk();
    let open = || Store::open(Options { media: media.clone(), ..options(dir.path(), 9 << 20).0 }).unwrap();
    let mut store = open();
    put(&store, b"key", &noise(1, 50_000)).unwrap();
    for is_sealed in [false, true] {
        if is_sealed {
            put(&store, b"key", &noise(1, 50_000)).unwrap();
            (0..40u64).for_each(|key| _ = put(&store, &key.to_le_bytes(), &noise(key, 30_000)).unwrap());
            drop(store);
            let segment = dir.path().join("log/0000000000.seg");
            let mut bytes = fs::read(&segment).unwrap();
            // Not the first of its key, and all that is of it.
            let at = bytes.windows(3).rposition(|window| window == b"key").unwrap();
            bytes[at] ^= 1;
            fs::write(&segment, bytes).unwrap();
            store = open();
        } else {
            media.set(|call| match call.operation {
                Operation::Read if call.path.extension().is_some_and(|of| of == "seg") => {
                    Err(io::ErrorKind::Other.into())
                }
                _ => Ok(()),
            });
        }
        assert_eq!(store.usage(None).files, 1);
        assert!(store.delete(b"", b"key", Condition::Always).unwrap());
        media.unset();
        assert_eq!(store.usage(None).files, 0, "sealed: {is_sealed}");
    }
}

#[test]
fn puts_hold_no_files_open_until_the_next_sync() {
    let dir = tempfile::tempdir().unwrap();
    let media = Watched::disk();
    let store = Store::open(Options { media: media.clone(), ..options(dir.path(), 64 << 20).0 }).unwrap();
    let mut most = 0;
    for index in 0..600u64 {
        put(&store, &index.to_le_bytes(), &noise(index, 33_000)).unwrap();
        most = most.max(media.open_files());
    }
    assert!(most < 64, "{most} files open at once");
}

#[test]
fn a_sync_after_one_that_failed_syncs_everything() {
    let dir = tempfile::tempdir().unwrap();
    let media = Watched::disk();
    let options = Options { media: media.clone(), ..options(dir.path(), 64 << 20).0 };
    let store = Store::open(options).unwrap();
    for index in 0..10u64 {
        put(&store, &index.to_le_bytes(), &noise(index, 40_000)).unwrap();
    }
    let is_armed = AtomicBool::new(true);
    media.set(move |call| {
        let is_sync = call.operation == Operation::Sync && call.is_on_payload();
        if is_sync && is_armed.swap(false, Ordering::Relaxed) {
            Err(io::ErrorKind::Other.into())
        } else {
            Ok(())
        }
    });
    // The store's own sync may be the one that fails.
    let _ = store.sync();
    store.sync().unwrap();
    let written = media.written();
    for file in files(&dir.path().join("blobs")) {
        assert_eq!(written.get(&file), Some(&false), "{} is not synced", file.display());
    }
}

#[test]
fn a_scan_goes_on_behind_entries_whose_keys_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let keys: BTreeSet<Vec<u8>> = (0..200u32).map(|key| format!("key-{key:04}").into_bytes()).collect();
    for key in &keys {
        put(&store, key, b"payload").unwrap();
    }
    let segment = only_file(&dir.path().join("log"));
    let bytes = fs::read(&segment).unwrap();
    let starts: Vec<usize> =
        bytes.windows(4).enumerate().filter(|(_, window)| window == b"PLrc").map(|(at, _)| at).collect();
    let damaged = starts.iter().step_by(2).inspect(|at| flip(&segment, **at)).count();
    for limit in [1, 3, 50] {
        let (mut found, mut cursor) = (Vec::new(), 0);
        loop {
            let page = store.scan(b"", cursor, limit).unwrap();
            found.extend(page.keys.into_iter().map(|(key, _)| key));
            cursor = page.next;
            if cursor == 0 {
                break;
            }
        }
        let distinct: BTreeSet<_> = found.iter().collect();
        assert_eq!((found.len(), distinct.len()), (200 - damaged, 200 - damaged), "limit {limit}");
    }
}

#[test]
fn a_scan_sets_aside_what_it_cannot_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for key in [&b"key-1"[..], b"key-2", b"key-3"] {
        put(&store, key, b"payload").unwrap();
    }
    let segment = only_file(&dir.path().join("log"));
    let bytes = fs::read(&segment).unwrap();
    let at = |key: &[u8]| bytes.windows(5).position(|window| window == key).unwrap();
    // In the key itself, and in the header before it.
    flip(&segment, at(b"key-1"));
    flip(&segment, at(b"key-2") - 65);
    let names = || store.scan(b"", 0, 10).unwrap().keys.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(names(), [&b"key-3"[..]], "no key that nobody put");
    assert_eq!((store.usage(None).entries, store.usage(None).quarantined), (1, 2));
    assert_eq!(get(&store, b"key-1"), None);
}

#[test]
fn a_deleted_entry_stays_away_although_an_old_segment_could_not_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let media = Watched::disk();
    let small = options(dir.path(), 16 << 20).0;
    let store = Store::open(Options { media: media.clone(), ..small.clone() }).unwrap();
    put(&store, b"deleted", b"gone").unwrap();
    // Its segment is sealed, and the tombstone lies in a later one.
    churn(&store, 60);
    assert!(store.delete(b"", b"deleted", Condition::Always).unwrap());
    // The first segment to be removed is the oldest, and cannot be. That with the tombstone may not go before it.
    let stuck = stick(&media, 1);
    churn(&store, 3000);
    assert!(stuck.load(Ordering::Relaxed) < 0, "removals went on");
    drop(store);
    let store = Store::open(small).unwrap();
    assert_eq!(get(&store, b"deleted"), None);
}

#[test]
fn a_failed_removal_of_a_segment_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let media = Watched::disk();
    let small = options(dir.path(), 16 << 20).0;
    let store = Store::open(Options { media: media.clone(), ..small }).unwrap();
    stick(&media, i64::MAX);
    churn(&store, 1200);
    assert!(disk_use(dir.path()) <= 16 << 20);
    media.unset();
    churn(&store, 1200);
    let usage = store.usage(None);
    assert_eq!(usage.entries, 1, "{usage:?}");
    put(&store, b"large", &noise(1, 8 << 20)).expect("the log takes no more than it must");
}

#[test]
fn an_unreadable_segment_does_not_end_cleaning() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), 16 << 20).0).unwrap();
    put(&store, b"lost", b"bytes").unwrap();
    churn(&store, 120);
    let oldest = files(&dir.path().join("log")).remove(0);
    fs::OpenOptions::new().write(true).open(oldest).unwrap().set_len(10).unwrap();
    for round in 0..2000 {
        put(&store, b"churn", &noise(round, 20_000)).expect("old segments go, readable or not");
    }
    assert_eq!(get(&store, b"lost"), None);
}

#[test]
fn what_a_client_was_told_is_absent_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let media = Watched::disk();
    let small = options(dir.path(), 16 << 20).0;
    let store = Store::open(Options { media: media.clone(), ..small }).unwrap();
    // More than fits, all of it alive: the cleaner must drop some of what it finds in the oldest segment.
    stick(&media, i64::MAX);
    for key in 0..900u64 {
        let _ = put(&store, &key.to_le_bytes(), &noise(key, 20_000));
    }
    let is_absent = |key: &u64| !store.delete(b"", &key.to_le_bytes(), Condition::Always).unwrap_or(true);
    let absent: Vec<u64> = (0..900).filter(is_absent).collect();
    assert!(!absent.is_empty());
    let copy = tempfile::tempdir().unwrap();
    crate::fixture::copy(dir.path(), copy.path());
    let store = Store::open(options(copy.path(), 16 << 20).0).unwrap();
    for key in absent {
        assert_eq!(get(&store, &key.to_le_bytes()), None, "key {key}");
    }
}

#[test]
fn cleared_entries_stay_away_although_the_cleaner_was_at_work() {
    let dir = tempfile::tempdir().unwrap();
    let media = Watched::disk();
    // No work in the background, which would remove files while the directory is copied.
    let tick = Duration::from_secs(3600);
    let options_with = Options { media: media.clone(), tick, ..options(dir.path(), 16 << 20).0 };
    let store = Store::open(options_with).unwrap();
    let put_in = |key: &[u8], payload: &[u8]| {
        let request = PutRequest { space: b"cleared", ..request(key, payload) };
        store.put(&request, Condition::Always).unwrap();
    };
    for index in 0..200u64 {
        put_in(&index.to_le_bytes(), &noise(index, 3000));
    }
    churn(&store, 400);
    for index in 200..216u64 {
        put_in(&index.to_le_bytes(), &noise(index, 40_000));
    }
    thread::scope(|scope| {
        let (go, wait) = mpsc::channel();
        let (done, until) = mpsc::channel();
        let store = &store;
        scope.spawn(move || {
            wait.recv().unwrap();
            churn(store, 400);
            // Nobody listens any longer if the cleaner had to wait for the clear.
            let _ = done.send(());
        });
        // When the clear comes to its first payload file, the log goes around: or does not, which nothing tells.
        let clearing = thread::current().id();
        let first = Mutex::new(Some((go, until)));
        media.set(move |call| {
            if call.operation == Operation::Read && thread::current().id() == clearing {
                let taken = first.lock().unwrap().take();
                if let Some((go, until)) = taken {
                    go.send(()).unwrap();
                    let _ = until.recv_timeout(Duration::from_millis(500));
                }
            }
            Ok(())
        });
        assert_eq!(store.clear(b"cleared").unwrap(), 216);
    });
    for round in 0..60 {
        churn(&store, 20);
        let copy = tempfile::tempdir().unwrap();
        crate::fixture::copy(dir.path(), copy.path());
        let reopened = Store::open(options(copy.path(), 16 << 20).0).unwrap();
        assert_eq!(reopened.usage(Some(b"cleared")).entries, 0, "round {round}");
    }
}

#[test]
fn many_spaces_do_not_break_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), 9 << 20).0).unwrap();
    for index in 0..20_000u32 {
        let space = format!("{index:0>250}");
        let request = PutRequest { space: space.as_bytes(), ..request(b"key", b"payload") };
        store.put(&request, Condition::Always).unwrap();
        let used = disk_use(dir.path());
        assert!(used <= 9 << 20, "{used} bytes after {index} spaces");
    }
    drop(store);
    let store = Store::open(options(dir.path(), 9 << 20).0).unwrap();
    assert!(disk_use(dir.path()) <= 9 << 20);
    let last = format!("{:0>250}", 19_999);
    assert!(store.get(last.as_bytes(), b"key").unwrap().is_some());
}

#[test]
fn a_damaged_segment_header_costs_no_entry() {
    for at in [0, 8, 16, 24, 31] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        for key in 0..20u64 {
            put(&store, &key.to_le_bytes(), &noise(key, 3000)).unwrap();
        }
        drop(store);
        flip(&only_file(&dir.path().join("log")), at);
        for _ in 0..2 {
            let store = open(dir.path());
            for key in 0..20u64 {
                assert_eq!(get(&store, &key.to_le_bytes()), Some(noise(key, 3000)));
            }
            put(&store, b"new", b"entry").unwrap();
        }
    }
}

#[test]
fn a_damaged_seed_is_refused_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, b"small", b"kept").unwrap();
    put(&store, b"large", &noise(1, 50_000)).unwrap();
    drop(store);
    let format = dir.path().join("FORMAT");
    let pristine = fs::read_to_string(&format).unwrap();
    let last = pristine.trim_end().chars().last().unwrap();
    let other = if last == '0' { '1' } else { '0' };
    fs::write(&format, format!("{}{other}\n", pristine.trim_end().strip_suffix(last).unwrap())).unwrap();
    let error = Store::open(options(dir.path(), 64 << 20).0).unwrap_err();
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
    fs::write(&format, pristine).unwrap();
    let store = open(dir.path());
    assert_eq!(get(&store, b"small"), Some(b"kept".to_vec()));
    assert_eq!(get(&store, b"large"), Some(noise(1, 50_000)));
}

#[test]
fn a_put_that_expired_at_the_epoch_is_absent() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let request = PutRequest { expires_ms: Some(0), created_ms: START_MS, ..request(b"key", b"payload") };
    store.put(&request, Condition::Always).unwrap();
    assert_eq!(get(&store, b"key"), None);
}
