use std::fs;
use std::io;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use pilotlight_store::{Condition, Options, PutRequest, Rewrite, Stat, Store, StoreError};

use crate::damage::files;
use crate::layout::{self, Structure};
use crate::media::{FileSystem, Operation, Simulated, Watched};
use crate::setup::{
    DELTA, START_MS, get, noise, open, options, original, put, request, store_against, turn, turned,
};

/// A put of a payload that is like all others of its length.
fn put_like(store: &Store, key: &[u8], len: usize) -> Vec<u8> {
    let mut payload = noise(1, len);
    payload[0] = key[0];
    put(store, key, &payload).unwrap();
    payload
}

fn format_text(dir: &std::path::Path) -> String {
    fs::read_to_string(dir.join("FORMAT")).unwrap()
}

/// What a rewrite leaves as it was.
fn lasting(stat: &Stat) -> Stat {
    Stat { stored_bytes: 0, is_rewritten: false, is_based: false, ..*stat }
}

#[test]
fn a_rewritten_entry_is_the_same_entry_in_another_form() {
    for (len, against_len) in [(300, 500), (300, 40_000), (40_000, 500), (40_000, 40_000)] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let payload = noise(len as u64, len);
        let group = NonZeroU32::new(7);
        let put_it = |key: &[u8]| {
            let request =
                PutRequest { group, cost_ms: 9, expires_ms: Some(START_MS * 2), ..request(key, &payload) };
            store.put(&request, Condition::Always).unwrap();
            store.pin(b"", key).unwrap();
            assert_eq!(get(&store, key).as_ref(), Some(&payload));
            store.stat(b"", key).unwrap()
        };
        let (turned_before, delta_before) = (put_it(b"turned"), put_it(b"delta"));
        put_like(&store, b"base", against_len);
        assert!(turn(&store, b"", b"turned").unwrap());
        assert!(store_against(&store, b"", b"delta", b"base").unwrap());
        let check = |store: &Store, is_reopened: bool| {
            for (key, before) in [(&b"turned"[..], turned_before), (b"delta", delta_before)] {
                let now = store.stat(b"", key).unwrap();
                assert_eq!((now.is_rewritten, now.is_based), (true, key == b"delta"));
                let (mut now, mut before) = (lasting(&now), lasting(&before));
                if is_reopened {
                    (now.hits, now.accessed_ms, before.hits, before.accessed_ms) = (0, 0, 0, 0);
                }
                assert_eq!(now, before);
            }
            for key in [b"turned", &b"delta"[..]] {
                assert_eq!(get(store, key).as_ref(), Some(&payload), "{len} {against_len}");
            }
        };
        check(&store, false);
        assert_eq!(store.usage(None).based, 1);
        drop(store);
        let store = open(dir.path());
        check(&store, true);
        assert_eq!(store.usage(None).based, 1);
        // And so it is when other things of it change.
        store.unpin(b"", b"delta").unwrap();
        store.set_expiry(b"", b"delta", None, Condition::Always).unwrap();
        assert!(store.stat(b"", b"delta").unwrap().is_based);
        assert_eq!(get(&open_again(store, dir.path()), b"delta"), Some(payload));
    }
}

#[test]
fn a_base_is_not_rewritten_and_nobody_tries_again() {
    for len in [5000, 40_000] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let payload = put_like(&store, b"base", len);
        put_like(&store, b"delta", 40_000);
        let version = store.stat(b"", b"base").unwrap().version;
        store.leave_as_is(b"", b"base", version);
        assert!(store_against(&store, b"", b"delta", b"base").unwrap());
        let check = |store: &Store| {
            assert!(store.stat(b"", b"base").unwrap().is_rewritten, "else every run would look at it");
            assert!(!turn(store, b"", b"base").unwrap());
            assert_eq!(get(store, b"base").as_ref(), Some(&payload));
        };
        check(&store);
        assert!(store.pin(b"", b"base").unwrap());
        check(&store);
        check(&open_again(store, dir.path()));
    }
}

fn open_again(store: Store, dir: &std::path::Path) -> Store {
    drop(store);
    open(dir)
}

#[test]
fn a_base_stays_while_anything_needs_it_and_goes_with_the_last() {
    type Goes = fn(&Store);
    let ways: [Goes; 4] = [
        |store| assert!(store.delete(b"", b"base", Condition::Always).unwrap()),
        |store| _ = put(store, b"base", b"another").unwrap(),
        |store| {
            store.set_expiry(b"", b"base", Some(START_MS), Condition::Always).unwrap();
            // The background removes it at its next tick.
            while store.usage(None).expired == 0 {
                std::thread::yield_now();
            }
        },
        |_| {},
    ];
    for base_len in [5000, 40_000] {
        for goes in ways {
            let dir = tempfile::tempdir().unwrap();
            let mut store = open(dir.path());
            put_like(&store, b"base", base_len);
            let one = put_like(&store, b"1", 5000);
            let two = put_like(&store, b"2", 40_000);
            assert!(store_against(&store, b"", b"1", b"base").unwrap());
            assert!(store_against(&store, b"", b"2", b"base").unwrap());
            goes(&store);
            for _ in 0..2 {
                assert_eq!(get(&store, b"1").as_ref(), Some(&one));
                assert_eq!(get(&store, b"2").as_ref(), Some(&two));
                store = open_again(store, dir.path());
            }
            store.delete(b"", b"1", Condition::Always).unwrap();
            assert_eq!(get(&store, b"2").as_ref(), Some(&two));
            store.delete(b"", b"2", Condition::Always).unwrap();
            store.delete(b"", b"base", Condition::Always).unwrap();
            store.sync().unwrap();
            assert_eq!(store.usage(None).files, 0);
            assert_eq!(files(&dir.path().join("blobs")), Vec::<std::path::PathBuf>::new());
        }
    }
}

#[test]
fn what_a_rewrite_frees_is_free_after_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put_like(&store, b"base", 40_000);
    let before = store.usage(None).stored_bytes;
    for key in [b"1", b"2", b"3"] {
        let payload = put_like(&store, key, 400_000);
        let version = store.stat(b"", key).unwrap().version;
        let of_base = store.stat(b"", b"base").unwrap();
        let base = store.base(b"", b"base", of_base.version).unwrap().unwrap();
        // Whatever it takes to make the payload of it again.
        let rewrite = Rewrite { space: b"", key, version, head: DELTA, payload: b"small", base: Some(&base) };
        assert!(store.rewrite(&rewrite).unwrap());
        assert_eq!(payload.len(), 400_000);
    }
    store.sync().unwrap();
    let usage = store.usage(None);
    assert!(usage.stored_bytes < before + 60_000, "{} of {before}", usage.stored_bytes);
    assert_eq!((usage.rewritten, usage.based, usage.files), (3, 3, 1));
    assert!(usage.rewritten_bytes > 3 * 399_000, "{}", usage.rewritten_bytes);
}

#[test]
fn a_damaged_base_makes_its_deltas_misses_and_nothing_else() {
    for damage in ["flip", "cut", "remove"] {
        for is_reopened in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut store = open(dir.path());
            put_like(&store, b"base", 40_000);
            let other = put_like(&store, b"other", 5000);
            put_like(&store, b"1", 5000);
            put_like(&store, b"2", 5000);
            assert!(store_against(&store, b"", b"1", b"base").unwrap());
            assert!(store_against(&store, b"", b"2", b"base").unwrap());
            if is_reopened {
                store = open_again(store, dir.path());
            }
            let [file] = &files(&dir.path().join("blobs"))[..] else { panic!("one file") };
            let mut bytes = fs::read(file).unwrap();
            match damage {
                "flip" => *bytes.last_mut().unwrap() ^= 1,
                "cut" => bytes.truncate(20_000),
                _ => {}
            }
            fs::write(file, bytes).unwrap();
            if damage == "remove" {
                fs::remove_file(file).unwrap();
            }
            for key in [&b"1"[..], b"2", b"base"] {
                let first = store.get(b"", key);
                assert!(matches!(first, Err(StoreError::Corrupt { .. }) | Ok(None)), "{damage}: {first:?}");
                assert!(store.get(b"", key).unwrap().is_none(), "{damage}: set aside");
            }
            assert_eq!(get(&store, b"other"), Some(other));
            // They can be put again.
            let again = put_like(&store, b"1", 5000);
            assert_eq!(get(&open_again(store, dir.path()), b"1"), Some(again));
        }
    }
}

#[test]
fn a_damaged_delta_leaves_its_base_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let base = put_like(&store, b"base", 40_000);
    put_like(&store, b"1", 50_000);
    assert!(store_against(&store, b"", b"1", b"base").unwrap());
    store.sync().unwrap();
    let blobs = files(&dir.path().join("blobs"));
    let len = |path: &std::path::PathBuf| fs::metadata(path).unwrap().len();
    let of_delta = blobs.iter().find(|path| len(path) > 50_000).unwrap();
    let mut bytes = fs::read(of_delta).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(of_delta, bytes).unwrap();
    assert!(store.get(b"", b"1").is_err());
    assert_eq!(get(&store, b"base"), Some(base));
}

#[test]
fn what_was_put_or_rewritten_meanwhile_is_not_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, b"key", b"old").unwrap();
    let version = store.stat(b"", b"key").unwrap().version;
    put(&store, b"key", b"new").unwrap();
    let rewrite = Rewrite { space: b"", key: b"key", version, head: b"head", payload: b"small", base: None };
    assert!(!store.rewrite(&rewrite).unwrap());
    assert_eq!(get(&store, b"key"), Some(b"new".to_vec()));
    assert!(!store.rewrite(&Rewrite { key: b"absent", ..rewrite }).unwrap());
}

#[test]
fn a_base_has_no_base_and_stays_in_its_form() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for key in [b"a", b"b", b"c"] {
        put_like(&store, key, 5000);
    }
    assert!(store_against(&store, b"", b"b", b"a").unwrap());
    assert!(!store_against(&store, b"", b"c", b"b").unwrap(), "depth 1");
    assert!(!store_against(&store, b"", b"a", b"c").unwrap(), "others need it");
    assert!(!turn(&store, b"", b"a").unwrap(), "others need it");
    let store = open_again(store, dir.path());
    assert!(!turn(&store, b"", b"a").unwrap(), "others need it");
    let of_base = store.stat(b"", b"a").unwrap();
    assert!(store.base(b"other space", b"a", of_base.version).unwrap().is_none());
}

#[test]
fn a_store_is_of_format_1_until_something_is_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put_like(&store, b"key", 5000);
    assert!(format_text(dir.path()).starts_with("pilotlight-store\nformat 1\nseed "));
    let before = format_text(dir.path());
    assert!(turn(&store, b"", b"key").unwrap());
    assert_eq!(format_text(dir.path()), before.replace("format 1", "format 2"));
    let store = open_again(store, dir.path());
    assert!(turn(&store, b"", b"key").unwrap());
    assert!(get(&store, b"key").is_some());
}

#[test]
fn a_space_pays_for_bases_that_only_its_deltas_need() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let put_in = |key: &[u8], payload: &[u8]| {
        store.put(&PutRequest { space: b"tenant", ..request(key, payload) }, Condition::Always)
    };
    let used = |store: &Store| store.usage(Some(b"tenant")).stored_bytes;
    put_in(b"base", &noise(1, 40_000)).unwrap();
    put_in(b"1", &noise(2, 1000)).unwrap();
    assert!(store_against(&store, b"tenant", b"1", b"base").unwrap());
    let before = used(&store);
    store.delete(b"tenant", b"base", Condition::Always).unwrap();
    assert!((40_000..before).contains(&used(&store)), "{} of {before}", used(&store));
    let store = open_again(store, dir.path());
    assert!((40_000..before).contains(&used(&store)), "{} of {before}", used(&store));
    // What no longer fits leaves, and the base with it.
    store.set_quota(b"tenant", Some(30_000)).unwrap();
    assert_eq!((store.usage(Some(b"tenant")).entries, used(&store)), (0, 0));
    assert_eq!(store.usage(None).files, 0);
}

/// A power cut may take back that one let go of it before the other held it.
#[test]
fn who_shares_a_base_with_another_space_is_not_put_anew_and_nobody_tries_for_ever() {
    let dir = Path::new("/store");
    let media = Simulated::holding(FileSystem::default());
    let open = |media| Store::open(Options { media, ..options(dir, 64 << 20).0 }).unwrap();
    let store = open(media.clone());
    let base = noise(1, 40_000);
    for space in [&b"one"[..], b"two"] {
        for (key, payload) in [(&b"base"[..], &base), (b"delta", &noise(2, 1000))] {
            store.put(&PutRequest { space, ..request(key, payload) }, Condition::Always).unwrap();
        }
    }
    assert!(store_against(&store, b"one", b"delta", b"base").unwrap());
    store.delete(b"one", b"delta", Condition::Always).unwrap();
    assert!(store_against(&store, b"two", b"delta", b"base").unwrap());
    drop(store);
    let mut files = media.files();
    let path = files.paths(&dir.join("log"))[0].clone();
    let mut bytes = files.read(&path);
    let parts = layout::segment(&bytes);
    let tombstone = parts.iter().find(|part| part.structure == Structure::Tombstone).unwrap();
    bytes[tombstone.range.start] ^= 1;
    files.overwrite(&path, &bytes);
    let store = open(Simulated::holding(files));
    let expire = |space| store.set_expiry(space, b"delta", Some(START_MS * 2), Condition::Always);
    let (one, two) = (expire(b"one"), expire(b"two"));
    let is_refused = |outcome| matches!(outcome, Err(StoreError::Corrupt { .. }));
    assert!(is_refused(one) != is_refused(two), "one of them has the base");
    for space in [&b"one"[..], b"two"] {
        assert_eq!(original(&store.get(space, b"delta").unwrap().unwrap()), noise(2, 1000));
    }
}

#[test]
fn rewritten_entries_are_moved_by_the_cleaner_and_found_in_sealed_segments() {
    let dir = tempfile::tempdir().unwrap();
    let bounded = || Options { ..options(dir.path(), 9 << 20).0 };
    let mut store = Store::open(bounded()).unwrap();
    let base = put_like(&store, b"base", 20_000);
    let kept: Vec<(Vec<u8>, Vec<u8>)> =
        (0..20u8).map(|key| (vec![key], put_like(&store, &[key], 3000))).collect();
    for (key, _) in &kept {
        assert!(store_against(&store, b"", key, b"base").unwrap());
        store.pin(b"", key).unwrap();
    }
    store.pin(b"", b"base").unwrap();
    for round in 0..3u64 {
        for filler in 0..600u64 {
            put(&store, &(1000 * round + filler).to_le_bytes(), &noise(filler, 15_000)).unwrap();
        }
        for (key, payload) in &kept {
            assert_eq!(get(&store, key).as_ref(), Some(payload));
        }
        drop(store);
        store = Store::open(bounded()).unwrap();
    }
    assert!(store.usage(None).evicted + 1800 > store.usage(None).entries);
    assert_eq!(store.usage(None).based, 20);
    assert_eq!(get(&store, b"base"), Some(base));
}

#[test]
fn nothing_is_evicted_for_a_rewrite() {
    let dir = tempfile::tempdir().unwrap();
    let tick = Duration::from_secs(3600);
    let store = Store::open(Options { tick, ..options(dir.path(), 9 << 20).0 }).unwrap();
    for key in 0..400u64 {
        put(&store, &key.to_le_bytes(), &noise(key, 40_000)).unwrap();
    }
    let evicted = store.usage(None).evicted;
    let keys = store.scan(b"", 0, 1000).unwrap().keys;
    for (key, stat) in keys {
        let payload = turned(&noise(7, 300_000));
        let rewrite = Rewrite {
            space: b"",
            key: &key,
            version: stat.version,
            head: b"head",
            payload: &payload,
            base: None,
        };
        _ = store.rewrite(&rewrite).unwrap();
    }
    assert_eq!(store.usage(None).evicted, evicted);
    let usage = store.usage(None);
    assert!(usage.stored_bytes <= usage.bound_bytes);
}

#[test]
fn a_scan_for_some_gives_those_and_says_where_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    (0..100u8).for_each(|key| _ = put_like(&store, &[key], 100 + usize::from(key)));
    let version = store.stat(b"", &[3]).unwrap().version;
    store.leave_as_is(b"", &[3], version);
    let (mut cursor, mut found) = (0, Vec::new());
    loop {
        let page =
            store.scan_for(b"", cursor, 3, |stat| stat.logical_len < 110 && !stat.is_rewritten).unwrap();
        found.extend(page.keys.into_iter().map(|(key, _)| key[0]));
        cursor = page.next;
        if cursor == 0 {
            break;
        }
    }
    found.sort_unstable();
    assert_eq!(found, [0, 1, 2, 4, 5, 6, 7, 8, 9]);
}

/// A store on a disk whose writes to the log a hook sees, the next one alone.
fn watched(
    dir: &std::path::Path,
    hook: impl Fn(&Arc<Store>) -> io::Result<()> + Send + Sync + 'static,
) -> (Arc<Watched>, Arc<Store>, impl Fn()) {
    let media = Watched::disk();
    let tick = Duration::from_secs(3600);
    let options = Options { media: media.clone(), tick, ..options(dir, 64 << 20).0 };
    let store = Arc::new(Store::open(options).unwrap());
    let (seen, hook) = (store.clone(), Arc::new(hook));
    let watched = media.clone();
    let arm = move || {
        let (is_armed, seen, hook) = (AtomicBool::new(true), Arc::downgrade(&seen), hook.clone());
        watched.set(move |call| {
            let is_meant = call.operation == Operation::Write && call.is_on_segment();
            match seen.upgrade().filter(|_| is_meant && is_armed.swap(false, SeqCst)) {
                Some(store) => hook(&store),
                None => Ok(()),
            }
        });
    };
    (media, store, arm)
}

#[test]
fn a_rewrite_that_cannot_be_written_leaves_the_old_form_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (media, store, arm) = watched(dir.path(), |_| Err(io::ErrorKind::StorageFull.into()));
    put_like(&store, b"base", 40_000);
    let payloads = [put_like(&store, b"inline", 3000), put_like(&store, b"file", 50_000)];
    assert!(turn(&store, b"", b"base").unwrap());
    store.sync().unwrap();
    let used = store.usage(None).stored_bytes;
    for key in [&b"inline"[..], b"file"] {
        for attempt in
            [turn, |store: &Store, space: &[u8], key: &[u8]| store_against(store, space, key, b"base")]
        {
            arm();
            assert!(attempt(&store, b"", key).is_err());
            media.unset();
            assert!(!store.stat(b"", key).unwrap().is_rewritten);
        }
    }
    assert_eq!((store.usage(None).files, store.usage(None).based), (2, 0));
    store.sync().unwrap();
    // But for a file that waits for another payload.
    assert!(store.usage(None).stored_bytes <= used + 2 * 4300);
    drop(arm);
    drop(store);
    let store = open(dir.path());
    assert_eq!([b"inline", &b"file"[..]].map(|key| get(&store, key).unwrap()), payloads);
}

#[test]
fn nothing_is_rewritten_while_a_space_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let rewriting = Arc::new(std::sync::Mutex::new(None));
    let (started, is_early) = (rewriting.clone(), Arc::new(AtomicBool::new(false)));
    let early = is_early.clone();
    // Behind the record that clears, a moved one would outlive that in the log.
    let (media, store, arm) = watched(dir.path(), move |store| {
        let (store, is_done) = (store.clone(), Arc::new(AtomicBool::new(false)));
        let done = is_done.clone();
        let thread = std::thread::spawn(move || {
            let rewritten = turn(&store, b"", b"key");
            done.store(true, SeqCst);
            rewritten
        });
        // It cannot be waited for: it waits for us.
        (0..20_000).for_each(|_| std::thread::yield_now());
        early.store(is_done.load(SeqCst), SeqCst);
        *started.lock().unwrap() = Some(thread);
        Ok(())
    });
    put_like(&store, b"key", 3000);
    arm();
    assert_eq!(store.clear(b"").unwrap(), 1);
    media.unset();
    let rewritten = rewriting.lock().unwrap().take().expect("the clear wrote").join().unwrap();
    assert!(!rewritten.unwrap() && !is_early.load(SeqCst));
    assert_eq!(store.usage(None).entries, 0);
}
