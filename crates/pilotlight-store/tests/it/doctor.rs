use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_store::media::Media;
use pilotlight_store::{Condition, Examination, OpenError, Options, PutRequest, Repaired, Store, examine};

use crate::layout::{self, Structure};
use crate::media::crash::{Change, Crash, Moment};
use crate::media::{BROKEN, FULL, FileSystem, Fuse, Lasting, STUCK, Simulated, Watched};
use crate::setup::{Dice, START_MS, get, noise, options, put, request, seed, store_against, turn};

/// Small segments: the store has several of them soon.
const BOUND: u64 = 9 << 20;

fn dir() -> &'static Path {
    Path::new("/store")
}

fn options_on(media: Arc<dyn Media>) -> Options {
    // No work in the background, which would come between.
    Options { media, tick: Duration::from_secs(3600), ..options(dir(), BOUND).0 }
}

fn open(media: Arc<dyn Media>) -> Store {
    Store::open(options_on(media)).unwrap()
}

fn repair(media: Arc<dyn Media>) -> (Store, Repaired) {
    Store::open_repaired(options_on(media)).unwrap()
}

/// As a caller does it: checks every entry, and has the rest rewritten.
fn repair_all(media: Arc<dyn Media>) -> Store {
    let (store, repaired) = repair(media);
    for space in store.spaces() {
        let mut cursor = 0;
        loop {
            let page = store.scan(&space, cursor, 100).unwrap();
            for (key, _) in &page.keys {
                let _ = store.peek(&space, key);
            }
            cursor = page.next;
            if cursor == 0 {
                break;
            }
        }
    }
    if let Some(id) = repaired.damaged_through {
        store.rewrite_through(id).unwrap();
    }
    store
}

fn found(files: &FileSystem) -> Examination {
    examine(&*Simulated::holding(files.clone()), dir()).unwrap()
}

const ENTRIES: u64 = 120;
/// Crashes of one repair.
const SAMPLES: usize = 40;

fn key(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}

/// Every third in a file of its own.
fn payload(number: u64) -> Vec<u8> {
    noise(number, if number.is_multiple_of(3) { 40_000 } else { 30_000 })
}

/// Entries in three segments, a deleted one in a file among them, and one with all that an entry can have.
fn filled() -> FileSystem {
    let media = Simulated::holding(FileSystem::default());
    let store = open(media.clone());
    let (group, large) = (NonZeroU32::new(9), noise(1000, 50_000));
    let rich = PutRequest {
        space: b"team",
        cost_ms: 7,
        expires_ms: Some(START_MS + 1_000_000),
        group,
        ..request(b"rich", &large)
    };
    store.put(&rich, Condition::Always).unwrap();
    for number in 0..ENTRIES {
        put(&store, &key(number), &payload(number)).unwrap();
    }
    put(&store, b"deleted", &noise(2000, 50_000)).unwrap();
    assert!(store.delete(b"", b"deleted", Condition::Always).unwrap());
    store.sync().unwrap();
    drop(store);
    media.files()
}

fn segments(files: &FileSystem) -> Vec<PathBuf> {
    files.paths(&dir().join("log"))
}

fn lose(files: &FileSystem, path: &Path) -> FileSystem {
    let media = Simulated::holding(files.clone());
    media.alter(|files| {
        files.make(&Change::Remove(path.to_owned()));
        files.make(&Change::SyncDir(path.parent().unwrap().to_owned()));
    });
    media.files()
}

/// Which entries a store holds, each whole.
fn held(store: &Store, what: &str) -> Vec<u64> {
    let is_held = |number: &u64| match store.get(b"", &key(*number)) {
        Ok(stored) => {
            let held = stored.map(|stored| stored.payload.to_vec());
            assert!(held.is_none() || held == Some(payload(*number)), "{what}: {number}");
            held.is_some()
        }
        Err(pilotlight_store::StoreError::Corrupt { .. }) => false,
        Err(error) => panic!("{what}: {error}"),
    };
    (0..ENTRIES).filter(is_held).collect()
}

#[test]
fn nothing_is_wrong_with_a_store_that_is_whole_and_looking_changes_nothing() {
    let files = filled();
    let media = Simulated::holding(files);
    media.record(|_, change| panic!("{change:?}"));
    let found = examine(&*media, dir()).unwrap();
    let expected = Examination { entries: ENTRIES + 1, segments: found.segments, ..Examination::default() };
    assert_eq!(found, expected);
    assert!(found.segments > 2, "{found:?}");
}

#[test]
fn entries_with_a_file_of_their_own_are_rebuilt_when_their_part_of_the_log_is_lost() {
    let files = filled();
    for at in 0..segments(&files).len() {
        let lost = lose(&files, &segments(&files)[at]);
        let examined = found(&lost);
        assert!(examined.rebuildable > 0 && examined.orphans == examined.rebuildable, "{examined:?}");
        let before = {
            // A look by what an ordinary open would leave.
            let store = open(Simulated::holding(lost.clone()));
            held(&store, "an open")
        };
        let media = Simulated::holding(lost);
        let (store, repaired) = repair(media.clone());
        assert_eq!(repaired.rebuilt, examined.rebuildable);
        let after = held(&store, "a repair");
        assert!(before.iter().all(|number| after.contains(number)));
        let in_files: Vec<u64> = (0..ENTRIES).filter(|number| number.is_multiple_of(3)).collect();
        assert!(in_files.iter().all(|number| after.contains(number)), "segment {at}: {after:?}");
        assert_eq!(get(&store, b"deleted"), None);
        let rich = store.get(b"team", b"rich").unwrap().unwrap();
        assert_eq!((rich.payload.to_vec(), &rich.head[..]), (noise(1000, 50_000), &b"head"[..]));
        assert_eq!((rich.stat.cost_ms, rich.stat.created_ms), (7, START_MS));
        assert_eq!((rich.stat.expires_ms, rich.stat.group), (Some(START_MS + 1_000_000), NonZeroU32::new(9)));
        drop(store);
        let again = found(&media.files());
        assert_eq!((again.orphans, again.waiting, again.rebuildable), (0, 0, 0), "{again:?}");
    }
}

#[test]
fn the_whole_log_may_be_lost() {
    let mut lost = filled();
    for path in segments(&lost) {
        lost = lose(&lost, &path);
    }
    let (store, repaired) = repair(Simulated::holding(lost));
    assert_eq!(repaired.rebuilt, ENTRIES / 3 + 1);
    assert_eq!(held(&store, "a repair").len() as u64, ENTRIES / 3);
}

#[test]
fn what_was_deleted_replaced_or_cleared_is_not_rebuilt() {
    let media = Simulated::holding(FileSystem::default());
    let store = open(media.clone());
    for space in [&b""[..], b"cleared"] {
        for name in [&b"deleted"[..], b"replaced"] {
            let payload = noise(1, 50_000 + name.len() + space.len());
            store.put(&PutRequest { space, ..request(name, &payload) }, Condition::Always).unwrap();
        }
    }
    let before = media.files();
    store.delete(b"", b"deleted", Condition::Always).unwrap();
    put(&store, b"replaced", b"by something small").unwrap();
    store.clear(b"cleared").unwrap();
    drop(store);
    // Their files are still there, as if none of them could be removed.
    for path in before.paths(&dir().join("blobs")) {
        let file = media.create(&path).expect("it was removed");
        file.write_at(&[&before.read(&path)], 0).unwrap();
    }
    let examined = found(&media.files());
    assert_eq!((examined.orphans, examined.rebuildable), (4, 0), "{examined:?}");
    let (store, repaired) = repair(media);
    assert_eq!((repaired.rebuilt, get(&store, b"deleted")), (0, None));
    assert_eq!(get(&store, b"replaced"), Some(b"by something small".to_vec()));
    assert_eq!(store.usage(Some(b"cleared")).entries, 0);
}

#[test]
fn a_store_in_use_is_not_repaired() {
    let files = filled();
    let media = Simulated::holding(lose(&files, &segments(&files)[1]));
    // Without a bound nothing is swept.
    let unbounded = || Options { max_bytes: Options::UNBOUNDED, ..options_on(media.clone()) };
    let store = Store::open(unbounded()).unwrap();
    let payloads = || media.files().paths(&dir().join("blobs"));
    let before = payloads();
    assert!(store.checkup().unwrap().orphans > 0);
    assert!(matches!(Store::open_repaired(unbounded()), Err(OpenError::Locked { .. })));
    assert_eq!(payloads(), before);
}

/// The file outlives the entry that it says it is of: another shares it, or needs it as a base.
#[test]
fn what_was_deleted_long_ago_does_not_come_back_from_a_file_that_others_needed() {
    for is_base in [false, true] {
        let media = Simulated::holding(FileSystem::default());
        let store = open(media.clone());
        let payload = noise(1, 50_000);
        put(&store, b"deleted", &payload).unwrap();
        let other = [&payload[..], b"!"].concat();
        put(&store, b"other", if is_base { &other } else { &payload }).unwrap();
        assert!(!is_base || store_against(&store, b"", b"other", b"deleted").unwrap());
        assert!(store.delete(b"", b"deleted", Condition::Always).unwrap());
        // Until the log knows nothing of the deletion any longer.
        for number in 0..ENTRIES {
            put(&store, &key(number), &noise(number, 30_000)).unwrap();
        }
        assert!(store.rewrite_through(0).unwrap() > 0);
        let before = media.files();
        store.delete(b"", b"other", Condition::Always).unwrap();
        store.sync().unwrap();
        drop(store);
        // As if the process had been killed before the file was gone.
        for path in before.paths(&dir().join("blobs")) {
            let file = media.create(&path).expect("it was removed");
            file.write_at(&[&before.read(&path)], 0).unwrap();
        }
        let examined = found(&media.files());
        assert!(examined.orphans > 0 && examined.rebuildable == 0, "{examined:?}");
        let (store, repaired) = repair(media);
        assert_eq!((repaired.rebuilt, get(&store, b"deleted")), (0, None));
    }
}

/// Flips a bit of each record in the oldest segment, and of its header.
fn damaged(files: &FileSystem) -> FileSystem {
    let path = segments(files)[0].clone();
    let mut bytes = files.read(&path);
    for part in layout::segment(&files.read(&path)) {
        if matches!(
            part.structure,
            Structure::SegmentHeader | Structure::InlineHeader | Structure::ExternalHeader
        ) {
            bytes[part.range.start + 20] ^= 1;
        }
    }
    let mut damaged = files.clone();
    damaged.overwrite(&path, &bytes);
    damaged
}

#[test]
fn a_damaged_segment_is_mended_from_payload_files_and_goes() {
    let files = filled();
    let damaged = damaged(&files);
    let examined = found(&damaged);
    assert_eq!(examined.damaged_segments, [0]);
    assert!(examined.damaged_records > 10 && examined.mendable_records > 5, "{examined:?}");
    let media = Simulated::holding(damaged);
    let store = repair_all(media.clone());
    let after = held(&store, "a repair");
    assert!((0..ENTRIES).filter(|number| number.is_multiple_of(3)).all(|number| after.contains(&number)));
    assert_eq!(after.len() as u64, ENTRIES - examined.damaged_records + examined.mendable_records);
    drop(store);
    let again = found(&media.files());
    let expected = Examination { entries: again.entries, segments: again.segments, ..Examination::default() };
    assert_eq!(again, expected);
}

#[test]
fn a_damaged_record_of_an_entry_that_was_rewritten_is_not_mended() {
    let media = Simulated::holding(FileSystem::default());
    let store = open(media.clone());
    let payload = noise(1, 50_000);
    put(&store, b"key", &payload).unwrap();
    // As its old form needs a file, so does another.
    put(&store, b"shares", &payload).unwrap();
    for number in 0..ENTRIES {
        put(&store, &key(number), &noise(number, 30_000)).unwrap();
    }
    assert!(turn(&store, b"", b"key").unwrap());
    drop(store);
    let mut files = media.files();
    let path = segments(&files)[0].clone();
    let mut bytes = files.read(&path);
    let records = layout::segment(&bytes);
    let record = records.iter().find(|part| part.structure == Structure::ExternalHeader).unwrap();
    bytes[record.range.start + 20] ^= 1;
    files.overwrite(&path, &bytes);
    let examined = found(&files);
    assert_eq!((examined.damaged_records, examined.mendable_records), (1, 0), "{examined:?}");
}

#[test]
fn a_store_without_its_format_is_left_as_it_is() {
    let files = lose(&filled(), &dir().join("FORMAT"));
    let media = Simulated::holding(files);
    media.record(|_, change| panic!("{change:?}"));
    assert!(matches!(examine(&*media, dir()), Err(OpenError::NotAStore { .. })));
    assert!(matches!(Store::open_repaired(options_on(media)), Err(OpenError::NotAStore { .. })));
}

/// A store that lost a segment in the middle, and whose oldest is damaged: what can be had of it.
fn wreck() -> (FileSystem, Vec<u64>) {
    let files = filled();
    let files = damaged(&lose(&files, &segments(&files)[1]));
    let store = repair_all(Simulated::holding(files.clone()));
    let best = held(&store, "a repair that nothing befell");
    (files, best)
}

#[test]
fn a_crash_in_a_repair_loses_nothing_that_the_next_one_does_not_find() {
    let ((files, best), seed) = (wreck(), seed());
    let media = Simulated::holding(files);
    let moments = Arc::new(Mutex::new(Vec::new()));
    let recorded = moments.clone();
    media.record(move |files, change| {
        recorded.lock().push(Moment { files: files.clone(), change: change.clone() });
    });
    drop(repair_all(media.clone()));
    media.record(|_, _| {});
    let moments = std::mem::take(&mut *moments.lock());
    assert!(moments.len() > SAMPLES, "{} calls", moments.len());
    let mut dice = Dice::new(seed);
    // Each stretch of the run has its turn.
    let stride = moments.len() / SAMPLES;
    for at in (0..SAMPLES).map(|sample| sample * stride + dice.below(stride)).collect::<Vec<_>>() {
        let moment = &moments[at];
        for crash in [Crash::Kill, Crash::PowerCut] {
            let what = format!("seed {seed}, {crash:?} at call {at}, {moment}");
            let media = Simulated::holding(moment.after(crash, &mut dice));
            // Half of the time a server is started in between; it removes orphans that are not out of its reach yet.
            if dice.percent(50) && found(&media.files()).orphans == 0 {
                drop(open(media.clone()));
            }
            let store = repair_all(media);
            assert_eq!(held(&store, &what), best, "{what}");
        }
    }
}

#[test]
fn a_medium_that_fails_in_a_repair_loses_nothing_that_the_next_one_does_not_find() {
    let (files, best) = wreck();
    for failure in [BROKEN, FULL, STUCK] {
        for lasting in [Lasting::Once, Lasting::ForEver] {
            let mut calls = 0;
            loop {
                let medium = Simulated::holding(files.clone());
                let media = Watched::over(medium.clone());
                let fuse = Fuse::set(&media, calls, failure, lasting);
                if let Ok((store, repaired)) = Store::open_repaired(options_on(media.clone())) {
                    let _ = repaired.damaged_through.map(|id| store.rewrite_through(id));
                }
                let is_burnt = fuse.is_burnt();
                media.unset();
                let what = format!("{failure:?} {lasting:?} after {calls} calls");
                assert_eq!(held(&repair_all(medium), &what), best, "{what}");
                if !is_burnt {
                    break;
                }
                calls += 19;
            }
            assert!(calls > 20, "{calls} calls");
        }
    }
}
