use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroU32;
use std::path::Path;

use pilotlight_store::{Condition, PutRequest, Store};

use crate::damage::files;
use crate::layout::{self, Structure};
use crate::setup::{DELTA, START_MS, TURNED, get, noise, open, original, put, request, store_against, turn};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
/// Fixtures of format 1. The second has a sealed segment, a clear and more than one space.
const FORMAT_1: [&str; 2] = ["v1", "v1-sealed"];
/// Of format 2: entries that were rewritten, in a segment that is sealed and in one that is not.
const FORMAT_2: &str = "v2";

/// What stands in every fixture. Each was written once, by `write_fixture` below or a forerunner of it, and is never
/// written again.
fn expected() -> Vec<(&'static [u8], Vec<u8>)> {
    vec![
        (b"inline", noise(1, 300)),
        (b"file", noise(2, 40_000)),
        (b"shares the file", noise(2, 40_000)),
        (b"overwritten", noise(4, 64)),
        (b"empty", Vec::new()),
    ]
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn check(store: &Store, fixture: &str) {
    for (key, payload) in expected() {
        assert_eq!(get(store, key), Some(payload), "{fixture}: {}", String::from_utf8_lossy(key));
    }
    assert_eq!(get(store, b"deleted"), None, "{fixture}");
    let other = store.get(b"db1", b"inline").unwrap().expect("in its own space");
    assert_eq!((&other.payload[..], &other.head[..]), (&b"other"[..], &b"head"[..]), "{fixture}");
    assert_eq!((other.stat.cost_ms, other.stat.expires_ms), (77, Some(START_MS * 2)), "{fixture}");
    assert_eq!(store.usage(Some(b"cleared")).entries, 0, "{fixture}");
    for (key, _) in store.scan(b"fillers", 0, 100).unwrap().keys {
        let filler = store.get(b"fillers", &key).unwrap().expect("it was listed");
        assert_eq!(filler.payload, vec![0; 32_000], "{fixture}");
    }
}

#[test]
fn a_store_of_format_1_opens_for_ever() {
    for (fixture, entries) in FORMAT_1.into_iter().zip([6, 6 + 36]) {
        let dir = tempfile::tempdir().unwrap();
        copy(&Path::new(FIXTURES).join(fixture), dir.path());
        let store = open(dir.path());
        check(&store, fixture);
        assert_eq!(store.usage(None).entries, entries, "{fixture}");
    }
}

#[test]
fn a_store_of_format_1_is_written_to_and_stays_whole() {
    for fixture in FORMAT_1 {
        let dir = tempfile::tempdir().unwrap();
        copy(&Path::new(FIXTURES).join(fixture), dir.path());
        for round in 0..3u64 {
            let store = open(dir.path());
            check(&store, fixture);
            put(&store, b"new", &noise(round, 40_000)).unwrap();
            assert!(store.delete(b"", b"new", Condition::Always).unwrap());
            put(&store, &round.to_le_bytes(), &noise(round, 900)).unwrap();
        }
        let store = open(dir.path());
        (0..3u64).for_each(|round| assert_eq!(get(&store, &round.to_le_bytes()), Some(noise(round, 900))));
        assert_eq!(get(&store, b"new"), None);
    }
}

#[test]
fn the_fixtures_hold_every_structure_of_the_format() {
    let mut held = BTreeSet::new();
    for fixture in FORMAT_1.into_iter().chain([FORMAT_2]) {
        let fixture = Path::new(FIXTURES).join(fixture);
        let mut hold = |parts: Vec<layout::Part>| held.extend(parts.into_iter().map(|part| part.structure));
        files(&fixture.join("log"))
            .into_iter()
            .for_each(|path| hold(layout::segment(&fs::read(path).unwrap())));
        files(&fixture.join("blobs"))
            .into_iter()
            .for_each(|path| hold(layout::payload_file(&fs::read(path).unwrap())));
    }
    assert_eq!(held, BTreeSet::from(Structure::ALL));
}

const PINS_FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v1-pins");

#[test]
fn a_store_with_pins_and_groups_opens_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    copy(Path::new(PINS_FIXTURE), dir.path());
    let store = open(dir.path());
    for (key, len, is_pinned, group) in PINS {
        let stored = store.get(b"", key).unwrap().unwrap();
        assert_eq!((&stored.payload[..], &stored.head[..]), (&noise(7, len)[..], &b"head"[..]));
        assert_eq!((stored.stat.is_pinned, stored.stat.group), (is_pinned, NonZeroU32::new(group)));
    }
    assert_eq!(store.usage(None).entries, 4);
}

/// Key, length, whether it is pinned, group.
const PINS: [(&[u8], usize, bool, u32); 4] = [
    (b"pinned", 300, true, 0),
    (b"pinned file", 40_000, true, 0),
    (b"grouped", 500, false, 0x0102_0304),
    (b"both", 40_000, true, 0x0102_0304),
];

/// As `write_fixture`, for pins and groups.
#[test]
fn write_pins_fixture() {
    let Some(dir) = std::env::var_os("PILOTLIGHT_WRITE_PINS_FIXTURE") else { return };
    let store = open(Path::new(&dir));
    for (key, len, is_pinned, group) in PINS {
        let group = NonZeroU32::new(group);
        let payload = noise(7, len);
        store.put(&PutRequest { group, ..request(key, &payload) }, Condition::Always).unwrap();
        if is_pinned {
            store.pin(b"", key).unwrap();
        }
    }
}

/// What stands in the fixture of format 2: key, seed and length of what was put, and how it is kept.
fn rewritten() -> Vec<(Vec<u8>, u64, usize, Kept)> {
    let of = |part: &str| {
        let named = |name: &str| format!("{part} {name}").into_bytes();
        [
            (named("base"), 1, 20_000, Kept::Whole),
            (named("delta"), 2, 900, Kept::Delta),
            (named("long delta"), 3, 40_000, Kept::Delta),
            (named("turned"), 4, 700, Kept::Turned),
            (named("turned file"), 5, 40_000, Kept::Turned),
        ]
    };
    ["sealed", "active"].into_iter().flat_map(of).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Whole,
    Delta,
    Turned,
}

#[test]
fn a_store_of_format_2_opens_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    copy(&Path::new(FIXTURES).join(FORMAT_2), dir.path());
    for round in 0..3u64 {
        let store = open(dir.path());
        for (key, seed, len, kept) in rewritten() {
            let stored = store.get(b"", &key).unwrap().expect("it is there");
            let head: &[u8] = match kept {
                Kept::Whole => b"head",
                Kept::Delta => DELTA,
                Kept::Turned => TURNED,
            };
            assert_eq!((&stored.head[..], stored.base.is_some()), (head, kept == Kept::Delta));
            assert_eq!(original(&stored), noise(seed, len), "{}", String::from_utf8_lossy(&key));
        }
        // The base it came with is gone.
        let stored = store.get(b"", b"orphan").unwrap().expect("it is there");
        assert_eq!(original(&stored), noise(7, 500));
        assert!(store.get(b"", b"deleted base").unwrap().is_none());
        assert_eq!(store.usage(None).based, 5);
        // It is written to, and stays whole.
        put(&store, &round.to_le_bytes(), &noise(round, 900)).unwrap();
        assert!(store_against(&store, b"", &round.to_le_bytes(), b"active base").unwrap());
        assert!(store.delete(b"", &round.to_le_bytes(), Condition::Always).unwrap());
    }
}

/// As `write_fixture`, for format 2.
#[test]
fn write_rewritten_fixture() {
    let Some(dir) = std::env::var_os("PILOTLIGHT_WRITE_REWRITTEN_FIXTURE") else { return };
    let store = open(Path::new(&dir));
    put(&store, b"deleted base", &noise(6, 5000)).unwrap();
    put(&store, b"orphan", &noise(7, 500)).unwrap();
    assert!(store_against(&store, b"", b"orphan", b"deleted base").unwrap());
    store.delete(b"", b"deleted base", Condition::Always).unwrap();
    for (number, (key, seed, len, kept)) in rewritten().into_iter().enumerate() {
        put(&store, &key, &noise(seed, len)).unwrap();
        let part = key.split(|byte| *byte == b' ').next().unwrap();
        match kept {
            Kept::Whole => {}
            Kept::Delta => {
                assert!(store_against(&store, b"", &key, &[part, b" base"].concat()).unwrap());
            }
            Kept::Turned => assert!(turn(&store, b"", &key).unwrap()),
        }
        if number == 4 {
            // Fills a segment, and takes no room in the repository.
            for filler in 0..36u8 {
                let key = [filler];
                let filled = PutRequest { space: b"fillers", ..request(&key, &[0; 32_000]) };
                store.put(&filled, Condition::Always).unwrap();
            }
        }
    }
}

/// Writes the fixture anew; run it by hand, with the variable set, when a *new* format gets a fixture of its own.
#[test]
fn write_fixture() {
    let Some(dir) = std::env::var_os("PILOTLIGHT_WRITE_FIXTURE") else { return };
    let store = open(Path::new(&dir));
    let put_in = |space: &[u8], key: &[u8], payload: &[u8]| {
        let request = PutRequest { space, ..request(key, payload) };
        store.put(&request, Condition::Always).unwrap();
    };
    put_in(b"", b"overwritten", b"old");
    put_in(b"", b"deleted", b"gone");
    put_in(b"cleared", b"cleared", b"gone");
    store.clear(b"cleared").unwrap();
    for (key, payload) in expected() {
        put_in(b"", key, &payload);
    }
    store.delete(b"", b"deleted", Condition::Always).unwrap();
    // Fills a segment, and takes no room in the repository.
    (0..36u8).for_each(|filler| put_in(b"fillers", &[filler], &[0; 32_000]));
    let other = PutRequest {
        space: b"db1",
        cost_ms: 77,
        expires_ms: Some(START_MS * 2),
        ..request(b"inline", b"other")
    };
    store.put(&other, Condition::Always).unwrap();
}
