use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use pilotlight_store::{Condition, Options, Store};

use crate::media::{Fuse, Lasting, Operation, UNWRITABLE, Watched};
use crate::setup::{get, noise, open, options, request};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

pub(crate) fn stage(store: &Store, key: &[u8], payload: &[u8]) -> u64 {
    store.stage(&request(key, payload), Condition::Always).unwrap().expect("an unconditional put")
}

/// What a kill would leave: the files as they are now.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn watched(dir: &Path) -> (Arc<Watched>, Options) {
    let media = Watched::disk();
    (media.clone(), Options { media, ..options(dir, 16 << 20).0 })
}

#[test]
fn staged_entries_are_seen_at_once_and_survive_a_kill_when_settled() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("live"));
    let versions: Vec<u64> = (0..10u8).map(|i| stage(&store, &[i], &noise(i.into(), 3000))).collect();
    for i in 0..10u8 {
        assert_eq!(get(&store, &[i]), Some(noise(i.into(), 3000)));
    }
    assert_eq!(store.scan(b"", 0, 100).unwrap().keys.len(), 10, "keys are read from what is staged, too");
    store.settle(versions[4]).unwrap();
    // Without the lock file's owner: this process still runs.
    copy(&dir.path().join("live"), &dir.path().join("killed"));
    let killed = open(&dir.path().join("killed"));
    for i in 0..10u8 {
        assert_eq!(get(&killed, &[i]), Some(noise(i.into(), 3000)), "what was staged went with it");
    }
}

#[test]
fn puts_staged_together_are_written_together() {
    let dir = tempfile::tempdir().unwrap();
    let (media, options) = watched(dir.path());
    let store = Store::open(options).unwrap();
    store.put(&request(b"first", b"begins the segment"), Condition::Always).unwrap();
    let before = media.calls(Operation::Write);
    let versions: Vec<u64> = (0..16u8).map(|i| stage(&store, &[i], &[i; 1000])).collect();
    assert_eq!(media.calls(Operation::Write), before);
    versions.iter().for_each(|version| store.settle(*version).unwrap());
    assert_eq!(media.calls(Operation::Write), before + 1);
}

#[test]
fn whoever_stages_much_is_not_let_pile_it_up() {
    let dir = tempfile::tempdir().unwrap();
    let (media, options) = watched(dir.path());
    let store = Store::open(options).unwrap();
    for i in 0..200u8 {
        stage(&store, &[i], &noise(i.into(), 30_000));
    }
    assert!(media.calls(Operation::Write) >= 4, "6 MB staged, at most 1 MiB waiting");
}

/// Applies what was staged and not refused, in order.
fn settle_all(store: &Store, staged: &mut Vec<(u64, Vec<u8>, Vec<u8>)>, model: &mut Model) {
    for (version, key, payload) in staged.drain(..) {
        if store.settle(version).is_ok() {
            model.insert(key, payload);
        }
    }
}

fn check(store: &Store, model: &Model, lasting: Lasting, what: &str) {
    for key in 0..8u8 {
        assert_eq!(get(store, &[key]).as_ref(), model.get(&[key][..]), "{what}, key {key}");
    }
    store.tidy();
    let usage = store.usage(None);
    assert_eq!(usage.entries, model.len() as u64, "{what}");
    assert_eq!(usage.logical_bytes, model.values().map(|value| value.len() as u64).sum::<u64>(), "{what}");
    let files =
        model.values().filter(|value| value.len() > 32 << 10).collect::<std::collections::BTreeSet<_>>();
    // While refused bytes cannot be cut off, the payload files that they name are held.
    let is_held = lasting == Lasting::ForEver && usage.files > files.len() as u64;
    assert!(is_held || usage.files == files.len() as u64, "{what}: payload files neither leak nor go early");
}

/// Stages, deletes and settles at random while the medium fails at call number `calls`; says whether it did.
fn run(seed: u64, calls: i64, lasting: Lasting) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let (media, options) = watched(dir.path());
    let fuse = Fuse::set(&media, calls, UNWRITABLE, lasting);
    let mut model = Model::new();
    let what = format!("seed {seed}, call {calls}, {lasting:?}");
    {
        let Ok(store) = Store::open(options) else { return true };
        let mut staged = Vec::new();
        let dice = noise(seed, 4 * 60);
        for (turn, dice) in dice.chunks(4).enumerate() {
            let key = vec![dice[0] % 8];
            match dice[1] % 8 {
                0 => {
                    settle_all(&store, &mut staged, &mut model);
                    check(&store, &model, lasting, &what);
                }
                1 => {
                    let deleted = store.delete(b"", &key, Condition::Always);
                    settle_all(&store, &mut staged, &mut model);
                    if deleted.is_ok() {
                        model.remove(&key);
                    }
                    check(&store, &model, lasting, &what);
                }
                _ => {
                    let len = [10, 900, 5000, 30_000, 30_000, 40_000][dice[2] as usize % 6];
                    // Few different payloads: equal ones share a file.
                    let payload = noise(turn as u64 % 5, len);
                    if let Ok(Some(version)) = store.stage(&request(&key, &payload), Condition::Always) {
                        staged.push((version, key, payload));
                    }
                }
            }
        }
        settle_all(&store, &mut staged, &mut model);
        check(&store, &model, lasting, &what);
    }
    if fuse.is_burnt() && lasting == Lasting::ForEver {
        // Nothing could be cut off: what was refused may come back, what was acknowledged must.
        return true;
    }
    check(&open(dir.path()), &model, lasting, &format!("{what}, reopened"));
    fuse.is_burnt()
}

#[test]
fn a_failed_write_takes_back_all_that_was_staged() {
    for seed in 1..3 {
        for lasting in [Lasting::Once, Lasting::ForEver] {
            let runs = (0..).take_while(|calls| run(seed, *calls, lasting)).count();
            assert!(runs > 30, "{runs} runs");
        }
    }
}

#[test]
fn threads_that_stage_and_settle_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let store = &store;
                scope.spawn(move || {
                    for round in 0..60u8 {
                        let versions: Vec<u64> = (0..8u8)
                            .map(|i| stage(store, &[thread, round % 7, i], &[thread ^ round; 700]))
                            .collect();
                        for version in versions {
                            store.settle(version).unwrap();
                        }
                    }
                });
            }
        });
    }
    let store = open(dir.path());
    for thread in 0..4u8 {
        for slot in 0..7u8 {
            let last = (0..60u8).rev().find(|round| round % 7 == slot).unwrap();
            for i in 0..8u8 {
                assert_eq!(get(&store, &[thread, slot, i]), Some(vec![thread ^ last; 700]));
            }
        }
    }
}
