use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use pilotlight_store::{Durability, Options, Store};

use crate::media::{Operation, Watched};
use crate::setup::{get, noise, open, options, put};
use crate::staging::{copy, stage};

/// Has the next write to the log fail, after half of it.
fn fail_next_write(media: &Watched) {
    let is_armed = AtomicBool::new(true);
    set(media, move |operation, _| fail_if(operation == Operation::Write && is_armed.swap(false, SeqCst)));
}

fn fail_if(is_failing: bool) -> io::Result<()> {
    if is_failing { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

/// Has `hook` run at each call on a segment.
fn set(media: &Watched, hook: impl Fn(Operation, &Path) -> io::Result<()> + Send + Sync + 'static) {
    media.set(move |call| if call.is_on_segment() { hook(call.operation, call.path) } else { Ok(()) });
}

fn watched(dir: &Path, durability: Durability) -> (Arc<Watched>, Arc<Store>) {
    let media = Watched::disk();
    let options = Options { media: media.clone(), durability, ..options(dir, 64 << 20).0 };
    (media, Arc::new(Store::open(options).unwrap()))
}

/// The segments that were written to or synced, with whether something in them is not synced.
fn written_segments(media: &Watched) -> Vec<(PathBuf, bool)> {
    media.written().into_iter().filter(|(path, _)| path.to_string_lossy().ends_with(".seg")).collect()
}

/// Fills most of the first segment.
fn fill(store: &Store) {
    for i in 0..31u8 {
        put(store, &[i], &noise(i.into(), 32_000)).unwrap();
    }
}

#[test]
fn the_end_of_a_segment_that_is_sealed_during_a_sync_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let (media, store) = watched(dir.path(), Durability::Always);
    fill(&store);
    stage(&store, b"first", b"x");
    let staged = Arc::new(Mutex::new(Vec::new()));
    let is_armed = AtomicBool::new(true);
    let (other, others) = (store.clone(), staged.clone());
    set(&media, move |operation, _| {
        if operation == Operation::Write && is_armed.swap(false, SeqCst) {
            // Another client puts while the sync writes: its entries seal the segment.
            let puts = (100..104u8).map(|i| stage(&other, &[i], &noise(i.into(), 32_000)));
            others.lock().unwrap().extend(puts);
        }
        Ok(())
    });
    store.sync().unwrap();
    media.unset();
    for version in staged.lock().unwrap().drain(..) {
        store.settle(version).unwrap();
    }
    let unsynced: Vec<_> =
        written_segments(&media).into_iter().filter(|(_, is_unsynced)| *is_unsynced).collect();
    assert_eq!(unsynced, [], "acknowledged as `always`");
}

#[test]
fn what_was_cleared_does_not_come_back_with_a_refused_put() {
    let dir = tempfile::tempdir().unwrap();
    let (media, store) = watched(dir.path(), Durability::Relaxed);
    put(&store, b"k", b"old").unwrap();
    let staged = Arc::new(AtomicI64::new(0));
    let is_armed = AtomicBool::new(true);
    let (other, version) = (store.clone(), staged.clone());
    set(&media, move |operation, _| {
        if operation == Operation::Write && is_armed.swap(false, SeqCst) {
            version.store(stage(&other, b"k", b"new") as i64, SeqCst);
        }
        Ok(())
    });
    store.clear(b"").unwrap();
    fail_next_write(&media);
    assert!(store.settle(staged.load(SeqCst) as u64).is_err());
    assert_eq!(get(&store, b"k"), None);
    assert_eq!(store.usage(None).entries, 0);
}

/// A write fails, and then the file cannot be cut either; neither lasts. What was refused must not be found by an open.
fn fail_write_and_cut(payload: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let (media, store) = watched(&live, Durability::Relaxed);
    put(&store, b"b", b"acknowledged").unwrap();
    stage(&store, b"padding", &[1; 500]);
    let refused = stage(&store, b"b", payload);
    stage(&store, b"tail", &noise(1, payload.len().max(3000)));
    let left = AtomicI64::new(2);
    set(&media, move |operation, _| {
        let next = if operation == Operation::Write { 2 } else { 1 };
        let is_next = matches!(operation, Operation::Write | Operation::SetLen);
        fail_if(is_next && left.compare_exchange(next, next - 1, SeqCst, SeqCst).is_ok())
    });
    assert!(store.settle(refused).is_err());
    media.unset();
    assert_eq!(get(&store, b"b"), Some(b"acknowledged".to_vec()));
    put(&store, b"d", b"small").unwrap();
    copy(&live, &dir.path().join("killed"));
    let killed = open(&dir.path().join("killed"));
    assert_eq!(get(&killed, b"d"), Some(b"small".to_vec()));
    assert_eq!(get(&killed, b"b"), Some(b"acknowledged".to_vec()));
}

#[test]
fn what_was_refused_and_not_cut_off_is_cut_off_before_anything_is_appended() {
    fail_write_and_cut(b"refused");
    // In a file of its own.
    fail_write_and_cut(&noise(7, 40_000));
}

#[test]
fn a_segment_that_was_sealed_with_refused_records_is_cut_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let (media, store) = watched(dir.path(), Durability::Relaxed);
    put(&store, b"b", b"acknowledged").unwrap();
    fill(&store);
    let refused = stage(&store, b"b", b"refused");
    for i in 100..104u8 {
        stage(&store, &[i], &noise(i.into(), 32_000));
    }
    let left = AtomicI64::new(2);
    set(&media, move |operation, path| {
        let is_second = path.ends_with("0000000001.seg");
        let next = if operation == Operation::Write && is_second { 2 } else { 1 };
        let is_next = next == 2 || (operation == Operation::SetLen && !is_second);
        fail_if(is_next && left.compare_exchange(next, next - 1, SeqCst, SeqCst).is_ok())
    });
    assert!(store.settle(refused).is_err());
    media.unset();
    for i in 50..60u8 {
        put(&store, &[i], &noise(i.into(), 30_000)).unwrap();
    }
    drop(store);
    assert_eq!(get(&open(dir.path()), b"b"), Some(b"acknowledged".to_vec()));
}

#[test]
fn a_scan_names_no_key_that_took_a_refused_ones_place() {
    let dir = tempfile::tempdir().unwrap();
    let (media, store) = watched(dir.path(), Durability::Relaxed);
    for i in 0..20u8 {
        put(&store, &[b'a', i], b"settled").unwrap();
        put(&store, &[b'x', i], b"settled").unwrap();
    }
    let last = (0..20u8).fold(0, |_, i| stage(&store, &[b'x', i], b"staged!"));
    let (is_read, is_written) = (AtomicBool::new(true), AtomicBool::new(true));
    let other = store.clone();
    set(&media, move |operation, _| {
        if operation == Operation::Read && is_read.swap(false, SeqCst) {
            assert!(other.settle(last).is_err());
            (0..20u8).for_each(|i| _ = stage(&other, &[b'y', i], b"staged!"));
        }
        fail_if(operation == Operation::Write && is_written.swap(false, SeqCst))
    });
    let keys = store.scan(b"", 0, 1000).unwrap().keys;
    let count = |first: u8| keys.iter().filter(|(key, _)| key[0] == first).count();
    assert_eq!((count(b'a'), count(b'x'), count(b'y')), (20, 20, 0), "all x were there from first to last");
}

#[test]
fn a_refused_put_keeps_nobody_elses_entries_from_being_synced() {
    let dir = tempfile::tempdir().unwrap();
    let (media, store) = watched(dir.path(), Durability::Batch);
    put(&store, b"a", b"x").unwrap();
    stage(&store, b"b", b"x");
    media.forget_written();
    fail_next_write(&media);
    store.sync().unwrap();
    let segments = written_segments(&media);
    assert!(!segments.is_empty() && segments.iter().all(|(_, is_unsynced)| !is_unsynced), "{segments:?}");
}
