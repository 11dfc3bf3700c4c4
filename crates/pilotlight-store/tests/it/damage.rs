use std::fs;
use std::path::{Path, PathBuf};

use pilotlight_store::{Store, StoreError};

use crate::setup::{get, noise, open, put};

pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found.sort();
    found
}

/// One small and one large entry, closed.
fn filled(dir: &Path) {
    let store = open(dir);
    put(&store, b"small", &noise(1, 500)).unwrap();
    put(&store, b"large", &noise(2, 100_000)).unwrap();
}

/// The right bytes, a miss, or an error: never anything else.
fn look(store: &Store, key: &[u8], expected: &[u8]) -> bool {
    match store.get(b"", key) {
        Ok(Some(stored)) => {
            assert_eq!(stored.payload, expected, "wrong bytes were served");
            true
        }
        Ok(None) => false,
        Err(StoreError::Corrupt { .. }) => {
            assert_eq!(get(store, key), None, "after one error it is a miss");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_truncated_file_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let large = files(&dir.path().join("blobs")).pop().unwrap();
    fs::OpenOptions::new().write(true).open(large).unwrap().set_len(50_000).unwrap();
    let store = open(dir.path());
    assert!(!look(&store, b"large", &noise(2, 100_000)));
    assert!(look(&store, b"small", &noise(1, 500)));
    assert_eq!(store.usage(None).quarantined, 1);
    let kept = files(&dir.path().join("quarantine")).into_iter();
    let kept = kept.filter(|path| !path.to_string_lossy().contains("notes."));
    assert_eq!(kept.count(), 1, "kept for a person to look at");
    drop(store);
    let store = open(dir.path());
    assert_eq!(get(&store, b"large"), None);
}

#[test]
fn a_lost_payload_file_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    fs::remove_file(files(&dir.path().join("blobs")).pop().unwrap()).unwrap();
    let store = open(dir.path());
    assert!(!look(&store, b"large", &[]));
}

#[test]
fn a_torn_tail_costs_only_the_record_it_hit() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let segment = files(&dir.path().join("log")).pop().unwrap();
    let len = fs::metadata(&segment).unwrap().len();
    fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(len - 20).unwrap();
    let store = open(dir.path());
    assert!(look(&store, b"small", &noise(1, 500)));
    assert!(get(&store, b"large").is_none());
    put(&store, b"large", b"again").unwrap();
    drop(store);
    assert_eq!(get(&open(dir.path()), b"large"), Some(b"again".to_vec()));
}

#[test]
fn bytes_a_client_put_never_pass_for_a_record() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    // A whole segment of another store, which knows a key, as a payload in this one.
    let other = tempfile::tempdir().unwrap();
    put(&open(other.path()), b"key", b"forged").unwrap();
    let forged = fs::read(files(&other.path().join("log")).pop().unwrap()).unwrap();
    let store = open(dir.path());
    put(&store, b"payload", &forged).unwrap();
    drop(store);
    let segment = files(&dir.path().join("log")).pop().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    // Break the header of the record that carries it, so that recovery looks for the next one inside the payload.
    let at = bytes.windows(7).position(|window| window == b"payload").unwrap();
    bytes[at] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let store = open(dir.path());
    assert_eq!(get(&store, b"key"), None);
    assert!(look(&store, b"small", &noise(1, 500)));
}
