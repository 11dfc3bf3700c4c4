use std::path::Path;
use std::sync::Arc;

use pilotlight_store::{Condition, Options, PutRequest, Store, StoreError};

use crate::media::{FileSystem, Simulated};
use crate::setup::{START_MS, get, noise, options, put, request};

fn options_in(media: Arc<Simulated>) -> Options {
    Options { media, ..options(Path::new("/store"), 16 << 20).0 }
}

fn open(media: &Arc<Simulated>) -> Store {
    Store::open(options_in(media.clone())).unwrap()
}

#[test]
fn a_store_on_a_read_only_disk_serves_what_it_has_and_refuses_the_rest() {
    let media = Simulated::holding(FileSystem::default());
    {
        let store = open(&media);
        put(&store, b"small", &noise(1, 500)).unwrap();
        put(&store, b"large", &noise(2, 50_000)).unwrap();
        let expiring = PutRequest { expires_ms: Some(START_MS), ..request(b"expired", b"payload") };
        store.put(&expiring, Condition::Always).unwrap();
    }
    // As a kill leaves it: the end of the log is torn, and a payload file is not named.
    media.alter(|files| {
        let segment = files.paths(Path::new("/store/log")).pop().unwrap();
        let bytes = [files.read(&segment), vec![7; 100]].concat();
        files.overwrite(&segment, &bytes);
        files.is_read_only = true;
    });
    let before = media.files();
    {
        let (store, other) = (open(&media), open(&media));
        for store in [&store, &other] {
            assert_eq!(get(store, b"small"), Some(noise(1, 500)));
            assert_eq!(get(store, b"large"), Some(noise(2, 50_000)));
            assert_eq!(get(store, b"expired"), None);
            assert_eq!(store.scan(b"", 0, 10).unwrap().keys.len(), 2);
            let is_refused =
                |refusal: Result<(), StoreError>| assert!(matches!(refusal, Err(StoreError::ReadOnly)));
            is_refused(put(store, b"new", b"payload").map(|_| ()));
            is_refused(put(store, b"new", &noise(3, 50_000)).map(|_| ()));
            is_refused(store.delete(b"", b"small", Condition::Always).map(|_| ()));
            is_refused(store.clear(b"").map(|_| ()));
        }
    }
    let same = |path: &std::path::PathBuf| before.read(path) == media.files().read(path);
    assert!(before.paths(Path::new("/")).iter().all(same), "nothing was changed");
    media.alter(|files| files.is_read_only = false);
    let store = open(&media);
    put(&store, b"new", b"payload").unwrap();
    assert_eq!(get(&store, b"small"), Some(noise(1, 500)));
}

#[test]
fn a_damaged_entry_on_a_read_only_disk_is_one_error_and_then_a_miss() {
    let media = Simulated::holding(FileSystem::default());
    put(&open(&media), b"key", &noise(1, 50_000)).unwrap();
    media.alter(|files| {
        let file = files.paths(Path::new("/store/blobs")).pop().unwrap();
        let mut bytes = files.read(&file);
        bytes[40_000] ^= 1;
        files.overwrite(&file, &bytes);
        files.is_read_only = true;
    });
    let store = open(&media);
    assert!(matches!(store.get(b"", b"key"), Err(StoreError::Corrupt { .. })));
    assert_eq!(get(&store, b"key"), None);
    assert_eq!((store.usage(None).quarantined, store.usage(None).entries), (1, 0));
}

#[test]
fn an_empty_directory_on_a_read_only_disk_is_refused_with_a_hint() {
    let media = Simulated::holding(FileSystem::default());
    media.alter(|files| files.is_read_only = true);
    let error = Store::open(options_in(media)).unwrap_err();
    assert!(error.hint().contains("writable"), "{}", error.hint());
}
