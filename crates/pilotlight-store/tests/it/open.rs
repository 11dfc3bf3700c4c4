use pilotlight_store::{Durability, OpenError, Options, Store};

use crate::damage::files;
use crate::setup::{get, noise, open, options, put};

#[test]
fn a_second_open_of_one_directory_is_refused_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path());
    let error = Store::open(options(dir.path(), 64 << 20).0).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.hint().contains("--server"));
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
    let error = Store::open(options(dir.path(), 64 << 20).0).unwrap_err();
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(dir.path().join("thesis.txt")).unwrap(), "years of work");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was added");
}

/// Opens a store whose FORMAT was changed so; nothing in it may change then.
fn refuse(change: impl Fn(&str) -> String) -> OpenError {
    let dir = tempfile::tempdir().unwrap();
    put(&open(dir.path()), b"key", b"payload").unwrap();
    let format = dir.path().join("FORMAT");
    let pristine = std::fs::read_to_string(&format).unwrap();
    std::fs::write(&format, change(&pristine)).unwrap();
    let held = || files(dir.path()).into_iter().map(|path| (std::fs::read(&path).unwrap(), path));
    let before: Vec<_> = held().collect();
    let error = Store::open(options(dir.path(), 64 << 20).0).unwrap_err();
    assert_eq!(held().collect::<Vec<_>>(), before, "refused, and touched");
    std::fs::write(&format, pristine).unwrap();
    assert_eq!(get(&open(dir.path()), b"key"), Some(b"payload".to_vec()));
    error
}

#[test]
fn a_later_format_is_refused_with_a_hint_and_not_touched() {
    // Whatever a later version writes behind the number.
    for rest in ["seed 0123456789abcdef\n", "seeds 1 2 3\nmore\n", ""] {
        let error = refuse(|_| format!("pilotlight-store\nformat 3\n{rest}"));
        assert!(matches!(error, OpenError::TooNew { found: 3, expected: 2, .. }), "{error}");
        assert!(error.to_string().contains("has format 3, expected at most 2"), "{error}");
        assert!(error.hint().contains("newer Pilotlight"), "{}", error.hint());
    }
}

#[test]
fn another_programs_format_is_refused_with_a_hint_and_not_touched() {
    let changes: [fn(&str) -> String; 5] = [
        |text| text.replace("pilotlight-store", "someone-elses"),
        |text| text.replace("format 1", "format 0"),
        |text| text.replace("format 1", "format one"),
        |text| text.replace("seed", "salt"),
        |_| String::new(),
    ];
    for change in changes {
        let error = refuse(change);
        assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
        assert!(error.hint().contains("--data-dir"), "{}", error.hint());
    }
}

#[test]
fn every_durability_keeps_what_it_acknowledged() {
    for durability in [Durability::Relaxed, Durability::Batch, Durability::Always] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { durability, ..options(dir.path(), 64 << 20).0 };
        let store = Store::open(options).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4u64 {
                let store = &store;
                scope.spawn(move || {
                    for index in 0..10u64 {
                        let seed = writer << 8 | index;
                        put(store, &seed.to_le_bytes(), &noise(seed, 20_000 * (index as usize % 3) + 10))
                            .unwrap();
                    }
                });
            }
        });
        drop(store);
        let store = open(dir.path());
        for seed in (0..4).flat_map(|writer| (0..10).map(move |index| writer << 8 | index)) {
            assert!(get(&store, &u64::to_le_bytes(seed)).is_some(), "{durability:?}");
        }
    }
}

#[test]
fn only_the_owner_may_look_into_a_store() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("made/store");
    drop(open(&dir));
    assert_eq!(std::fs::metadata(dir).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_check_is_no_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, b"key", b"payload").unwrap();
    assert!(store.peek(b"", b"key").unwrap().is_some());
    assert_eq!(store.stat(b"", b"key").unwrap().hits, 0);
    assert!(get(&store, b"key").is_some());
    assert_eq!(store.stat(b"", b"key").unwrap().hits, 1);
}
