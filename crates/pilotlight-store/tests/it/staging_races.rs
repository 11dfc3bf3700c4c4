use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use pilotlight_store::media::{Disk, Media, MediaFile};
use pilotlight_store::{Durability, Options, Store};

use crate::setup::{get, noise, open, options, put};
use crate::staging::{copy, stage};

type Hook = Arc<dyn Fn(&str, &Path) -> io::Result<()> + Send + Sync>;

/// What a test does at a call of the medium, and which files hold bytes that were not synced.
#[derive(Default)]
struct Watched {
    hook: Mutex<Option<Hook>>,
    unsynced: Mutex<BTreeMap<PathBuf, bool>>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl Watched {
    fn call(&self, operation: &str, path: &Path) -> io::Result<()> {
        let hook = self.hook.lock().unwrap().clone();
        hook.map_or(Ok(()), |hook| hook(operation, path))
    }

    /// Has `hook` run at each call on a segment from now on: it may act in between, or have the call fail.
    fn set(&self, hook: impl Fn(&str, &Path) -> io::Result<()> + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    fn unset(&self) {
        *self.hook.lock().unwrap() = None;
    }

    /// Has the next write fail, after half of it.
    fn fail_next_write(&self) {
        let is_armed = AtomicBool::new(true);
        self.set(move |operation, _| fail_if(operation == "write" && is_armed.swap(false, SeqCst)));
    }
}

fn fail_if(is_failing: bool) -> io::Result<()> {
    if is_failing { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

#[derive(Debug)]
struct WatchedMedia(Arc<Watched>);

#[derive(Debug)]
struct WatchedFile(Arc<dyn MediaFile>, PathBuf, Arc<Watched>);

impl WatchedFile {
    fn call(&self, operation: &str) -> io::Result<()> {
        if self.1.extension().is_some_and(|extension| extension == "seg") {
            self.2.call(operation, &self.1)?;
        }
        Ok(())
    }
}

impl Media for WatchedMedia {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn MediaFile>> {
        Ok(Arc::new(WatchedFile(Disk.create(path)?, path.to_owned(), self.0.clone())))
    }
    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn MediaFile>> {
        Ok(Arc::new(WatchedFile(Disk.open(path, writable)?, path.to_owned(), self.0.clone())))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        Disk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.sync_dir(dir)
    }
}

impl MediaFile for WatchedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.call("read")?;
        self.0.read_at(buffer, offset)
    }
    fn read_at_nowait(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        self.0.read_at_nowait(buffer, offset)
    }
    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        if let Err(error) = self.call("write") {
            let bytes = parts.concat();
            self.0.write_at(&[&bytes[..bytes.len() / 2]], offset)?;
            return Err(error);
        }
        self.2.unsynced.lock().unwrap().insert(self.1.clone(), true);
        self.0.write_at(parts, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call("set_len")?;
        self.0.set_len(len)
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
    fn sync_data(&self) -> io::Result<()> {
        self.2.unsynced.lock().unwrap().insert(self.1.clone(), false);
        self.0.sync_data()
    }
}

fn watched(dir: &Path, durability: Durability) -> (Arc<Watched>, Arc<Store>) {
    let watched = Arc::new(Watched::default());
    let media = Arc::new(WatchedMedia(watched.clone()));
    let store = Store::open(Options { media, durability, ..options(dir, 64 << 20).0 }).unwrap();
    (watched, Arc::new(store))
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
    let (watched, store) = watched(dir.path(), Durability::Always);
    fill(&store);
    stage(&store, b"first", b"x");
    let staged = Arc::new(Mutex::new(Vec::new()));
    let is_armed = AtomicBool::new(true);
    let (other, others) = (store.clone(), staged.clone());
    watched.set(move |operation, _| {
        if operation == "write" && is_armed.swap(false, SeqCst) {
            // Another client puts while the sync writes: its entries seal the segment.
            let puts = (100..104u8).map(|i| stage(&other, &[i], &noise(i.into(), 32_000)));
            others.lock().unwrap().extend(puts);
        }
        Ok(())
    });
    store.sync().unwrap();
    watched.unset();
    for version in staged.lock().unwrap().drain(..) {
        store.settle(version).unwrap();
    }
    let unsynced = watched.unsynced.lock().unwrap().clone();
    let unsynced: Vec<_> =
        unsynced.into_iter().filter(|(path, is)| *is && path.to_string_lossy().ends_with(".seg")).collect();
    assert_eq!(unsynced, [], "acknowledged as `always`");
}

#[test]
fn what_was_cleared_does_not_come_back_with_a_refused_put() {
    let dir = tempfile::tempdir().unwrap();
    let (watched, store) = watched(dir.path(), Durability::Relaxed);
    put(&store, b"k", b"old").unwrap();
    let staged = Arc::new(AtomicI64::new(0));
    let is_armed = AtomicBool::new(true);
    let (other, version) = (store.clone(), staged.clone());
    watched.set(move |operation, _| {
        if operation == "write" && is_armed.swap(false, SeqCst) {
            version.store(stage(&other, b"k", b"new") as i64, SeqCst);
        }
        Ok(())
    });
    store.clear(b"").unwrap();
    watched.fail_next_write();
    assert!(store.settle(staged.load(SeqCst) as u64).is_err());
    assert_eq!(get(&store, b"k"), None);
    assert_eq!(store.usage(None).entries, 0);
}

/// A write fails, and then the file cannot be cut either; neither lasts. What was refused must not be found by an open.
fn fail_write_and_cut(payload: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let (watched, store) = watched(&live, Durability::Relaxed);
    put(&store, b"b", b"acknowledged").unwrap();
    stage(&store, b"padding", &[1; 500]);
    let refused = stage(&store, b"b", payload);
    stage(&store, b"tail", &noise(1, payload.len().max(3000)));
    let left = AtomicI64::new(2);
    watched.set(move |operation, _| {
        let next = if operation == "write" { 2 } else { 1 };
        let is_next = matches!(operation, "write" | "set_len");
        fail_if(is_next && left.compare_exchange(next, next - 1, SeqCst, SeqCst).is_ok())
    });
    assert!(store.settle(refused).is_err());
    watched.unset();
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
    let (watched, store) = watched(dir.path(), Durability::Relaxed);
    put(&store, b"b", b"acknowledged").unwrap();
    fill(&store);
    let refused = stage(&store, b"b", b"refused");
    for i in 100..104u8 {
        stage(&store, &[i], &noise(i.into(), 32_000));
    }
    let left = AtomicI64::new(2);
    watched.set(move |operation, path| {
        let is_second = path.ends_with("0000000001.seg");
        let next = if operation == "write" && is_second { 2 } else { 1 };
        let is_next = next == 2 || (operation == "set_len" && !is_second);
        fail_if(is_next && left.compare_exchange(next, next - 1, SeqCst, SeqCst).is_ok())
    });
    assert!(store.settle(refused).is_err());
    watched.unset();
    for i in 50..60u8 {
        put(&store, &[i], &noise(i.into(), 30_000)).unwrap();
    }
    drop(store);
    assert_eq!(get(&open(dir.path()), b"b"), Some(b"acknowledged".to_vec()));
}

#[test]
fn a_scan_names_no_key_that_took_a_refused_ones_place() {
    let dir = tempfile::tempdir().unwrap();
    let (watched, store) = watched(dir.path(), Durability::Relaxed);
    for i in 0..20u8 {
        put(&store, &[b'a', i], b"settled").unwrap();
        put(&store, &[b'x', i], b"settled").unwrap();
    }
    let last = (0..20u8).fold(0, |_, i| stage(&store, &[b'x', i], b"staged!"));
    let (is_read, is_written) = (AtomicBool::new(true), AtomicBool::new(true));
    let other = store.clone();
    watched.set(move |operation, _| {
        if operation == "read" && is_read.swap(false, SeqCst) {
            assert!(other.settle(last).is_err());
            (0..20u8).for_each(|i| _ = stage(&other, &[b'y', i], b"staged!"));
        }
        fail_if(operation == "write" && is_written.swap(false, SeqCst))
    });
    let keys = store.scan(b"", 0, 1000).unwrap().keys;
    let count = |first: u8| keys.iter().filter(|(key, _)| key[0] == first).count();
    assert_eq!((count(b'a'), count(b'x'), count(b'y')), (20, 20, 0), "all x were there from first to last");
}

#[test]
fn a_refused_put_keeps_nobody_elses_entries_from_being_synced() {
    let dir = tempfile::tempdir().unwrap();
    let (watched, store) = watched(dir.path(), Durability::Batch);
    put(&store, b"a", b"x").unwrap();
    stage(&store, b"b", b"x");
    watched.unsynced.lock().unwrap().clear();
    watched.fail_next_write();
    store.sync().unwrap();
    assert!(watched.unsynced.lock().unwrap().keys().any(|path| path.to_string_lossy().ends_with(".seg")));
}
