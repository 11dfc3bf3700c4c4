use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_store::media::Media;
use pilotlight_store::{Collect, Condition, Options, PutRequest, Store, StoreError};

use crate::media::crash::{Change, cut_power};
use crate::media::{FileSystem, Operation, Simulated, Watched};
use crate::setup::{Dice, get, noise, options, put, request, store_against, turn};

fn dir() -> &'static Path {
    Path::new("/store")
}

/// Of a store with a bound of `mib`, without work in the background, which would come between.
fn options_on(media: Arc<dyn Media>, mib: u64) -> Options {
    Options { media, tick: Duration::from_secs(3600), ..options(dir(), mib << 20).0 }
}

/// Has the background not sweep: it fails, and waits for a minute.
fn without_sweep(media: Arc<dyn Media>) -> Arc<Watched> {
    let media = Watched::over(media);
    media.set(|call| match thread::current().name() {
        Some("store-sweep") if call.operation == Operation::List => Err(io::ErrorKind::Other.into()),
        _ => Ok(()),
    });
    media
}

fn payload_files(files: &FileSystem) -> Vec<PathBuf> {
    files.paths(&dir().join("blobs"))
}

/// What a store leaves that is killed before it makes the first change that is `last`.
fn killed_before(
    media: &Simulated,
    last: impl Fn(&Change) -> bool + Send + 'static,
    work: impl FnOnce(),
) -> FileSystem {
    let killed = Arc::new(Mutex::new(None));
    let left = killed.clone();
    media.record(move |files, change| {
        let mut left = left.lock();
        if left.is_none() && last(change) {
            *left = Some(files.clone());
        }
    });
    work();
    media.record(|_, _| {});
    killed.lock().take().expect("such a change")
}

/// A store of `mib` that was nearly full, and was killed when a space was cleared that held all but `kept` entries: their files are
/// orphans.
fn cleared(mib: u64, kept: u64) -> FileSystem {
    let media = Simulated::holding(FileSystem::default());
    let store = Store::open(options_on(media.clone(), mib)).unwrap();
    (0..kept).for_each(|key| _ = put(&store, &key.to_le_bytes(), &noise(key, 60_000)).unwrap());
    for key in 1000..1000 + 12 * mib {
        let payload = noise(key, 60_000);
        let request = PutRequest { space: b"cleared", ..request(b"", &payload) };
        let key = key.to_le_bytes();
        store.put(&PutRequest { key: &key, ..request }, Condition::Always).unwrap();
    }
    assert_eq!(store.usage(None).evicted, 0);
    let is_freed = |change: &Change| matches!(change, Change::SetLen { .. } | Change::Remove(_));
    killed_before(&media, is_freed, || _ = store.clear(b"cleared").unwrap())
}

#[test]
fn an_open_lists_no_payload_files() {
    let media = Simulated::holding(FileSystem::default());
    let store = Store::open(options_on(media.clone(), 64)).unwrap();
    (0..20u64).for_each(|key| _ = put(&store, &key.to_le_bytes(), &noise(key, 40_000)).unwrap());
    drop(store);
    let media = Watched::over(media);
    let looks = Arc::new(AtomicU64::new(0));
    let seen = looks.clone();
    media.set(move |call| {
        let is_look =
            call.path.ends_with("blobs") || call.path.parent().is_some_and(|dir| dir.ends_with("blobs"));
        seen.fetch_add(u64::from(is_look), Relaxed);
        Ok(())
    });
    let store = Store::open(options_on(media.clone(), 64)).unwrap();
    assert_eq!((looks.load(Relaxed), store.usage(None).is_swept), (0, false));
    assert_eq!(get(&store, &3u64.to_le_bytes()), Some(noise(3, 40_000)));
    store.sweep().unwrap();
    assert!(looks.load(Relaxed) > 0 && store.usage(None).is_swept);
}

#[test]
fn what_a_crash_left_goes_in_the_background() {
    let media = Simulated::holding(cleared(64, 5));
    let tick = Duration::from_millis(1);
    let store = Store::open(Options { tick, ..options_on(media.clone(), 64) }).unwrap();
    // Waiting for it is what this test is about.
    while !store.usage(None).is_swept {
        thread::yield_now();
    }
    let usage = store.usage(None);
    assert!(usage.orphans > 50 && usage.entries == 5, "{usage:?}");
    assert_eq!(usage.swept_files, usage.files + usage.orphans);
    assert_eq!(payload_files(&media.files()).len(), 5);
    (0..5u64).for_each(|key| assert_eq!(get(&store, &key.to_le_bytes()), Some(noise(key, 60_000))));
}

#[test]
fn the_bound_holds_before_it_is_known_what_a_crash_left() {
    for (mib, growth) in [(9, 0), (64, 2 << 20)] {
        let files = cleared(mib, 5);
        let bound = mib << 20;
        assert!(files.disk_use() > bound * 7 / 10, "{} of {bound}", files.disk_use());
        let media = Simulated::holding(files);
        media.record(move |files, _| {
            let used = files.disk_use();
            assert!(used <= bound, "{used} of {bound}");
        });
        let store = Store::open(options_on(without_sweep(media), mib)).unwrap();
        let (used, mut before_sweep) = (store.usage(None).stored_bytes, 0);
        for key in 5..8 * mib {
            put(&store, &key.to_le_bytes(), &noise(key, 60_000)).unwrap();
            let usage = store.usage(None);
            if !usage.is_swept {
                before_sweep = usage.stored_bytes - used;
            }
            assert!(usage.is_swept || usage.orphans == 0);
        }
        assert!(before_sweep >= growth, "{before_sweep} bytes were put before the sweep");
        assert!(store.usage(None).orphans > 50, "{:?}", store.usage(None));
    }
}

#[test]
fn the_bound_holds_over_a_row_of_crashes() {
    let (mut files, bound) = (cleared(64, 5), 64 << 20);
    for round in 0..9u64 {
        let media = Simulated::holding(files);
        media.record(move |files, _| {
            let used = files.disk_use();
            assert!(used <= bound, "{used} of {bound} in round {round}");
        });
        let store = Store::open(options_on(without_sweep(media.clone()), 64)).unwrap();
        assert_eq!(store.usage(None).is_swept, round % 2 == 1, "round {round}");
        // As much as fits without a sweep. Each process is killed then.
        for key in 100 * round..100 * round + 40 {
            put(&store, &key.to_le_bytes(), &noise(key, 60_000)).unwrap();
        }
        files = media.files();
    }
}

#[test]
fn a_store_that_did_not_grow_leaves_what_it_may_grow_by_to_the_next() {
    let media = Simulated::holding(cleared(64, 5));
    for _ in 0..2 {
        let store = Store::open(options_on(media.clone(), 64)).unwrap();
        assert_eq!(get(&store, &3u64.to_le_bytes()), Some(noise(3, 60_000)));
        assert!(!store.usage(None).is_swept);
    }
    let store = Store::open(options_on(media.clone(), 64)).unwrap();
    put(&store, b"key", &noise(7, 60_000)).unwrap();
    drop(store);
    let store = Store::open(options_on(media.clone(), 64)).unwrap();
    assert!(store.usage(None).is_swept && store.usage(None).orphans > 50);
    drop(store);
    assert!(!Store::open(options_on(media, 64)).unwrap().usage(None).is_swept, "what was swept is no crash");
}

#[test]
fn who_may_not_wait_is_refused_while_the_sweep_hurries() {
    let media = Watched::over(Simulated::holding(cleared(64, 5)));
    let (go_on, wait) = mpsc::channel();
    let wait = Mutex::new(wait);
    media.set(move |call| {
        let is_sweep = call.operation == Operation::List && call.path.ends_with("blobs");
        if is_sweep && thread::current().name() == Some("store-sweep") {
            wait.lock().recv_timeout(Duration::from_secs(20)).map_err(io::Error::other)?;
        }
        Ok(())
    });
    let store = Store::open(options_on(media, 64)).unwrap();
    let stage = |key: u64| store.stage(&request(&key.to_le_bytes(), &noise(key, 60_000)), Condition::Always);
    let try_put =
        |key: u64| store.try_put(&request(&key.to_le_bytes(), &noise(key, 60_000)), Condition::Always);
    let refused = (100..200).map(stage).find_map(Result::err);
    assert!(matches!(refused, Some(StoreError::Unswept { .. })), "{refused:?}");
    assert!(matches!(try_put(300), Err(StoreError::Unswept { .. })));
    let usage = store.usage(None);
    assert!(!usage.is_swept && usage.entries > 30 && usage.evicted == 0, "{usage:?}");
    go_on.send(()).unwrap();
    // That it is woken is what this test is about: its own time would come in hours.
    while !store.usage(None).is_swept {
        thread::yield_now();
    }
    assert!(store.usage(None).orphans > 50);
    (300..400).for_each(|key| _ = stage(key).unwrap());
}

#[test]
fn who_may_not_wait_is_not_refused_where_a_look_shows_that_nothing_was_left() {
    let media = Simulated::holding(FileSystem::default());
    let store = Store::open(options_on(media.clone(), 64)).unwrap();
    (0..20u64).for_each(|key| _ = put(&store, &key.to_le_bytes(), &noise(key, 40_000)).unwrap());
    store.sweep().unwrap();
    drop(store);
    let store = Store::open(options_on(media, 64)).unwrap();
    assert!(!store.usage(None).is_swept);
    store.stage(&request(b"long", &noise(1, 5_000_000)), Condition::Always).unwrap();
    assert!(store.usage(None).is_swept);
}

#[test]
fn nothing_is_evicted_for_what_a_crash_left_on_a_full_disk() {
    let files = cleared(9, 5);
    let media = Simulated::holding(files.clone());
    media.alter(|media| media.capacity = Some(files.disk_use() + 10_000));
    let store = Store::open(options_on(media, 200)).unwrap();
    for key in 5..50u64 {
        put(&store, &key.to_le_bytes(), &noise(key, 60_000)).unwrap();
    }
    assert_eq!((store.usage(None).entries, store.usage(None).evicted), (50, 0));
}

/// The names of files that a crash left are not known when new ones are made.
#[test]
fn a_payload_that_comes_again_is_no_file_that_a_crash_left() {
    let media = Simulated::holding(FileSystem::default());
    let store = Store::open(options_on(media.clone(), 64)).unwrap();
    let payload = noise(1, 50_000);
    put(&store, b"kept", &noise(2, 50_000)).unwrap();
    // Its file is written, and its record is not.
    let mut files = killed_before(
        &media,
        |change| matches!(change, Change::Write { bytes, .. } if bytes.len() < 1000),
        || {
            put(&store, b"key", &payload).unwrap();
        },
    );
    for round in 0..3 {
        let media = Simulated::holding(files.clone());
        let store = Store::open(options_on(media.clone(), 64)).unwrap();
        files = killed_before(
            &media,
            |change| matches!(change, Change::Write { bytes, .. } if bytes.len() < 1000),
            || {
                put(&store, b"key", &payload).unwrap();
            },
        );
        // Else the next open would sweep. A power cut may take it back.
        files.make(&Change::Remove(dir().join("UNSWEPT")));
        assert_eq!(payload_files(&media.files()).len(), 3 + round, "one of each that was killed");
        store.sweep().unwrap();
        assert_eq!(store.usage(None).orphans, 1 + round as u64);
        assert_eq!(get(&store, b"key"), Some(payload.clone()));
        drop(store);
        let store = Store::open(options_on(media, 64)).unwrap();
        assert_eq!(
            (get(&store, b"key"), get(&store, b"kept")),
            (Some(payload.clone()), Some(noise(2, 50_000)))
        );
    }
}

#[test]
fn an_orphan_that_cannot_be_removed_counts_until_it_can() {
    let files = cleared(64, 5);
    let media = Watched::over(Simulated::holding(files.clone()));
    let store = Store::open(options_on(media.clone(), 64)).unwrap();
    let used = store.usage(None).stored_bytes;
    media.set(|call| match call.operation {
        Operation::Remove if call.is_on_payload() => Err(io::ErrorKind::PermissionDenied.into()),
        _ => Ok(()),
    });
    store.sweep().unwrap();
    let orphans = payload_files(&files).len() as u64 - 5;
    let usage = store.usage(None);
    assert!(usage.is_swept && usage.orphans == 0, "{usage:?}");
    assert!(usage.stored_bytes > used + orphans * 60_000, "{usage:?}, {used} before");
    let collect = |store: &Store| store.collect(Collect::Run, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(collect(&store), Err(StoreError::Io { .. })));
    assert_eq!(store.usage(None).stored_bytes, usage.stored_bytes, "counted once");
    media.unset();
    assert_eq!(collect(&store).unwrap().orphans, orphans);
    assert!(store.usage(None).stored_bytes <= used, "{:?}, {used} before", store.usage(None));
}

#[test]
fn a_sweep_that_fails_is_begun_anew_and_a_put_that_needs_it_is_refused() {
    let media = Watched::over(Simulated::holding(cleared(9, 5)));
    media.set(|call| match call.operation {
        Operation::List if call.path.ends_with("blobs") => Err(io::ErrorKind::Other.into()),
        _ => Ok(()),
    });
    let store = Store::open(options_on(media.clone(), 9)).unwrap();
    assert!(matches!(put(&store, b"key", &noise(1, 60_000)), Err(StoreError::Io { .. })));
    assert!(store.sweep().is_err() && !store.usage(None).is_swept);
    media.unset();
    put(&store, b"key", &noise(1, 60_000)).unwrap();
    assert!(store.usage(None).is_swept && store.usage(None).orphans > 50);
}

#[test]
fn a_sweep_takes_no_file_that_an_entry_of_any_form_holds() {
    let media = Simulated::holding(FileSystem::default());
    let store = Store::open(options_on(media.clone(), 64)).unwrap();
    let like = |byte: u8, len| [&[byte][..], &noise(1, len)].concat();
    for key in [b"base", b"gone"] {
        put(&store, key, &like(key[0], 50_000)).unwrap();
    }
    put(&store, b"delta", &like(1, 45_000)).unwrap();
    put(&store, b"other", &like(2, 900)).unwrap();
    put(&store, b"shares", &like(b'b', 50_000)).unwrap();
    assert!(store_against(&store, b"", b"delta", b"base").unwrap());
    assert!(store_against(&store, b"", b"other", b"gone").unwrap());
    store.delete(b"", b"gone", Condition::Always).unwrap();
    drop(store);
    let store = Store::open(options_on(media, 64)).unwrap();
    // Replaced and not freed yet, and put again.
    put(&store, b"replaced", &noise(7, 50_000)).unwrap();
    let staged = store.stage(&request(b"replaced", &noise(8, 50_000)), Condition::Always);
    store.sweep().unwrap();
    store.settle(staged.unwrap().unwrap()).unwrap();
    assert_eq!(store.usage(None).orphans, 0);
    assert_eq!(store.checkup().unwrap().lost_files, 0);
    for (key, payload) in [
        (&b"base"[..], like(b'b', 50_000)),
        (b"shares", like(b'b', 50_000)),
        (b"delta", like(1, 45_000)),
        (b"other", like(2, 900)),
        (b"replaced", noise(8, 50_000)),
    ] {
        assert_eq!(get(&store, key), Some(payload), "{}", String::from_utf8_lossy(key));
    }
}

/// Of an entry that was rewritten the record that names its old file may be the only one that a power cut leaves.
#[test]
fn a_file_that_a_rewritten_entry_may_need_goes_after_a_sync() {
    let media = Simulated::holding(FileSystem::default());
    let store = Store::open(options_on(media.clone(), 64)).unwrap();
    let payload = noise(1, 50_000);
    put(&store, b"key", &payload).unwrap();
    store.sync().unwrap();
    assert!(turn(&store, b"", b"key").unwrap());
    // The process is killed, and what comes after it sweeps.
    let killed = Simulated::holding(media.files());
    assert_eq!(payload_files(&killed.files()).len(), 2);
    let store = Store::open(options_on(killed.clone(), 64)).unwrap();
    store.sweep().unwrap();
    assert_eq!(payload_files(&killed.files()).len(), 1);
    let cut = cut_power(&killed.files(), 100, 0, &mut Dice::new(1));
    let store = Store::open(options_on(Simulated::holding(cut), 64)).unwrap();
    assert_eq!(get(&store, b"key"), Some(payload));
}

#[test]
fn nothing_that_comes_and_goes_meanwhile_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), 64 << 20).0).unwrap();
    let (store, is_done) = (&store, &AtomicBool::new(false));
    thread::scope(|scope| {
        let sweeps = scope.spawn(move || {
            let mut sweeps = 0;
            while !is_done.load(Relaxed) || sweeps < 3 {
                store.collect(Collect::Run, &mut |_| ControlFlow::Continue(())).unwrap();
                sweeps += 1;
            }
        });
        let writers = [0u64, 1, 2].map(|writer| {
            scope.spawn(move || {
                for round in 0..300u64 {
                    // Some share a file with what another put, holds, or has just let go.
                    let payload = noise(round % 5, 40_000 + 1000 * (round % 5) as usize);
                    let key = (10 * writer + round % 7).to_le_bytes();
                    put(store, &key, &payload).unwrap();
                    assert_eq!(get(store, &key), Some(payload), "writer {writer}, round {round}");
                    if round % 3 == 0 {
                        assert!(store.delete(b"", &key, Condition::Always).unwrap());
                    }
                }
            })
        });
        let ended = writers.map(|writer| writer.join());
        is_done.store(true, Relaxed);
        ended.into_iter().for_each(|writer| writer.unwrap());
        sweeps.join().unwrap();
    });
    assert_eq!(store.checkup().unwrap().lost_files, 0);
}
