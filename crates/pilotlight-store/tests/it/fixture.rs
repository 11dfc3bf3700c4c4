use std::fs;
use std::num::NonZeroU32;
use std::path::Path;

use pilotlight_store::{Condition, PutRequest};

use crate::setup::{START_MS, get, noise, open, put, request};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v1");

/// What stands in the fixture. It was written once, by `write_fixture` below at format 1, and is never written again.
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

#[test]
fn a_store_of_format_1_opens_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    copy(Path::new(FIXTURE), dir.path());
    let store = open(dir.path());
    for (key, payload) in expected() {
        assert_eq!(get(&store, key), Some(payload), "{}", String::from_utf8_lossy(key));
    }
    assert_eq!(get(&store, b"deleted"), None);
    let other = store.get(b"db1", b"inline").unwrap().expect("in its own space");
    assert_eq!((&other.payload[..], &other.head[..]), (&b"other"[..], &b"head"[..]));
    assert_eq!((other.stat.cost_ms, other.stat.expires_ms), (77, Some(START_MS * 2)));
    assert_eq!(store.usage(None).entries, 6);
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

/// Writes the fixture anew; run it by hand, with the variable set, when a *new* format gets a fixture of its own.
#[test]
fn write_fixture() {
    let Some(dir) = std::env::var_os("PILOTLIGHT_WRITE_FIXTURE") else { return };
    let store = open(Path::new(&dir));
    put(&store, b"overwritten", b"old").unwrap();
    put(&store, b"deleted", b"gone").unwrap();
    for (key, payload) in expected() {
        put(&store, key, &payload).unwrap();
    }
    store.delete(b"", b"deleted", Condition::Always).unwrap();
    let other = PutRequest {
        space: b"db1",
        cost_ms: 77,
        expires_ms: Some(START_MS * 2),
        ..request(b"inline", b"other")
    };
    store.put(&other, Condition::Always).unwrap();
}
