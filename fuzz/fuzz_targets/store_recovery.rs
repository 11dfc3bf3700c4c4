//! A directory that anybody wrote into: the store opens it or says why not, and never serves a wrong byte.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pilotlight_store::{Condition, Options, PutRequest, Store};

const MAX_BYTES: u64 = 16 << 20;
const KEYS: u8 = 24;

#[derive(Debug, Arbitrary)]
struct Edit {
    file: u8,
    at: u32,
    what: What,
}

#[derive(Debug, Arbitrary)]
enum What {
    Write(Vec<u8>),
    Flip(u8),
    Cut,
    Remove,
    Append(Vec<u8>),
    /// Over another file of the directory.
    Copy(u8),
}

fn key(number: u8) -> Vec<u8> {
    format!("pt2:fx-graph-v1::{number}:c1").into_bytes()
}

/// Short ones in the log, two in files, of which one is shared.
fn payload(number: u8) -> Vec<u8> {
    match number {
        0..=2 => vec![number / 2; 40_000],
        _ => (0..usize::from(number) * 20).map(|at| (at * 7) as u8 ^ number).collect(),
    }
}

/// A store of every form of record, made once.
fn made() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory").keep();
        let store = Store::open(Options::new(&dir, MAX_BYTES)).expect("a new store");
        for number in 0..KEYS {
            let request = PutRequest {
                space: if number % 5 == 0 { b"other" } else { b"" },
                key: &key(number),
                head: &[number; 7],
                payload: &payload(number),
                digest: None,
                logical_len: 10,
                cost_ms: 5,
                created_ms: 1,
                expires_ms: None,
                group: std::num::NonZeroU32::new(u32::from(number % 3)),
            };
            store.put(&request, Condition::Always).expect("room");
        }
        store.pin(b"", &key(4)).expect("room");
        store.delete(b"", &key(6), Condition::Always).expect("writable");
        dir
    })
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("writable");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() { copy(&path, &target) } else { _ = fs::copy(&path, &target).expect("writable") }
    }
}

fn apply(edit: &Edit, files: &[PathBuf]) {
    let Some(path) = files.get(usize::from(edit.file) % files.len().max(1)) else { return };
    let Ok(mut bytes) = fs::read(path) else { return };
    let at = edit.at as usize % (bytes.len() + 1);
    match &edit.what {
        What::Write(new) => {
            let end = bytes.len().min(at + new.len());
            bytes[at..end].copy_from_slice(&new[..end - at]);
        }
        What::Flip(bit) => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (bit % 8);
            }
        }
        What::Cut => bytes.truncate(at),
        What::Append(new) => bytes.extend_from_slice(new),
        What::Remove => return fs::remove_file(path).unwrap_or_default(),
        What::Copy(other) => {
            let Some(Ok(other)) = files.get(usize::from(*other) % files.len()).map(fs::read) else { return };
            bytes = other;
        }
    }
    fs::write(path, bytes).expect("writable");
}

fuzz_target!(|edits: Vec<Edit>| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    copy(made(), dir.path());
    let files = files(dir.path());
    for edit in &edits {
        apply(edit, &files);
    }
    // What is refused is refused with a reason; everything else is served or missed.
    let Ok(store) = Store::open(Options::new(dir.path(), MAX_BYTES)) else { return };
    for number in 0..KEYS {
        for space in [&b""[..], b"other"] {
            if let Ok(Some(stored)) = store.get(space, &key(number)) {
                assert_eq!(stored.payload, payload(number), "entry {number}");
                assert_eq!(&stored.head[..], [number; 7]);
                assert_eq!(space == b"other", number % 5 == 0);
            }
        }
    }
    _ = store.scan(b"", 0, 100);
    let request = PutRequest {
        space: b"",
        key: b"new",
        head: b"",
        payload: b"payload",
        digest: None,
        logical_len: 7,
        cost_ms: 0,
        created_ms: 1,
        expires_ms: None,
        group: None,
    };
    if let Ok(Some(_)) = store.put(&request, Condition::Always) {
        assert_eq!(&store.get(b"", b"new").expect("it was put").expect("it was put").payload[..], b"payload");
        drop(store);
        let store = Store::open(Options::new(dir.path(), MAX_BYTES)).expect("it opened before");
        assert!(store.get(b"", b"new").is_ok_and(|found| found.is_some()), "a put is gone after a close");
    }
});
