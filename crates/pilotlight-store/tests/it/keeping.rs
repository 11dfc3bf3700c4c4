use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use pilotlight_store::{Condition, Options, PutRequest, Store, StoreError};

use crate::media::{Fuse, Lasting, Operation, UNWRITABLE, Watched};
use crate::setup::{disk_use, get, noise, options, put, request};

const BOUND: u64 = 32 << 20;

/// Puts of both sizes, in the log and in files: 40 MB, enough to turn the whole store over.
fn storm(store: &Store, space: &[u8], seed: u64) {
    for index in 0..800u64 {
        let payload = noise(seed << 32 | index, if index % 2 == 0 { 9_000 } else { 90_000 });
        let key = format!("storm-{seed}-{index}");
        let request = PutRequest { space, cost_ms: 60_000, ..request(key.as_bytes(), &payload) };
        store.put(&request, Condition::Always).unwrap();
    }
}

#[test]
fn a_pinned_entry_never_leaves_by_space() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(options(dir.path(), BOUND).0).unwrap();
    let entries = [(&b"inline"[..], noise(1, 5_000)), (b"file", noise(2, 50_000))];
    for (key, payload) in &entries {
        // Worth nothing: without the pin it is the first to leave.
        store.put(&PutRequest { cost_ms: 1, ..request(key, payload) }, Condition::Always).unwrap();
        assert!(store.pin(b"", key).unwrap());
    }
    for round in 0..3 {
        storm(&store, b"", round);
        for (key, payload) in &entries {
            assert_eq!(store.peek(b"", key).unwrap().unwrap().payload, payload);
            assert!(store.stat(b"", key).unwrap().is_pinned);
        }
        assert!(disk_use(dir.path()) <= BOUND);
        drop(store);
        store = Store::open(options(dir.path(), BOUND).0).unwrap();
    }
    let (evicted, pinned) = (store.usage(None).evicted, store.usage(None).pinned_bytes);
    assert!(pinned > 55_000, "{pinned} bytes pinned, {evicted} entries evicted");
}

#[test]
fn an_unpinned_entry_leaves_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    put(&store, b"key", &noise(1, 50_000)).unwrap();
    assert!(store.pin(b"", b"key").unwrap());
    assert!(store.unpin(b"", b"key").unwrap());
    assert_eq!(store.usage(None).pinned_bytes, 0);
    storm(&store, b"", 1);
    storm(&store, b"", 2);
    assert_eq!(get(&store, b"key"), None);
    assert!(!store.pin(b"", b"key").unwrap(), "nothing to pin");
}

#[test]
fn an_entry_that_is_too_large_to_be_pinned_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    let payload = noise(1, 20 << 20);
    put(&store, b"key", &payload).unwrap();
    assert!(matches!(store.pin(b"", b"key"), Err(StoreError::PinnedFull { .. })));
    assert_eq!(get(&store, b"key"), Some(payload));
}

/// A full store of entries that are all worth more than what has a cost of 1, and so few that most are drawn.
fn full_store(dir: &Path, payload_len: usize) -> Store {
    // No work in the background, which would make room ahead of need.
    let store = Store::open(Options { tick: Duration::from_secs(3600), ..options(dir, BOUND).0 }).unwrap();
    let mut filled = 0;
    while store.usage(None).evicted == 0 {
        filled += 1;
        let is_first = filled < 9;
        let payload = noise(filled, if is_first { 3_000_000 } else { payload_len });
        // The last ones leave before the first, byte for byte.
        let cost_ms = if is_first { u32::MAX } else { 60_000_000 };
        let request = PutRequest { cost_ms, ..request(b"", &payload) };
        store.put(&PutRequest { key: &filled.to_le_bytes(), ..request }, Condition::Always).unwrap();
    }
    store
}

#[test]
fn an_entry_does_not_leave_for_its_own_pin() {
    for round in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let store = full_store(dir.path(), 60_000);
        // What a pin takes once more is the record: four times as much as may be free now.
        let (head, payload) = (noise(round, 250_000), noise(round, 40_000));
        let request = PutRequest { cost_ms: 1, head: &head, ..request(b"key", &payload) };
        store.put(&request, Condition::Always).unwrap();
        assert!(store.pin(b"", b"key").unwrap(), "it left");
        assert!(store.stat(b"", b"key").unwrap().is_pinned);
        assert_eq!(store.get(b"", b"key").unwrap().unwrap().payload, payload);
    }
}

#[test]
fn nobody_leaves_for_a_payload_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = full_store(dir.path(), 3_000_000);
    // Records have room then, and another file of that length has none.
    put(&store, b"other", &noise(1, 60_000)).unwrap();
    let payload = noise(0, 3_000_000);
    put(&store, b"key", &payload).unwrap();
    let evicted = store.usage(None).evicted;
    put(&store, b"shares", &payload).unwrap();
    assert!(store.pin(b"", b"key").unwrap());
    assert_eq!(store.usage(None).evicted, evicted);
    assert_eq!((get(&store, b"key"), get(&store, b"shares")), (Some(payload.clone()), Some(payload)));
}

#[test]
fn a_pin_that_fails_leaves_no_trace() {
    let media = Watched::disk();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options { media: media.clone(), ..options(dir.path(), BOUND).0 }).unwrap();
    put(&store, b"key", &noise(1, 5_000)).unwrap();
    media.set(|call| match call.operation {
        Operation::Write => Err(io::ErrorKind::Other.into()),
        _ => Ok(()),
    });
    assert!(store.pin(b"", b"key").is_err());
    media.unset();
    assert!(!store.stat(b"", b"key").unwrap().is_pinned);
    assert_eq!(store.usage(None).pinned_bytes, 0);
    assert!(store.pin(b"", b"key").unwrap() && store.usage(None).pinned_bytes > 5_000);
}

#[test]
fn an_entry_put_over_a_pinned_one_is_pinned_and_one_deleted_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    put(&store, b"key", b"old").unwrap();
    store.pin(b"", b"key").unwrap();
    put(&store, b"key", b"new").unwrap();
    assert!(store.stat(b"", b"key").unwrap().is_pinned);
    assert_eq!(get(&store, b"key"), Some(b"new".to_vec()));
    assert!(store.delete(b"", b"key", Condition::Always).unwrap());
    assert_eq!((get(&store, b"key"), store.usage(None).pinned_bytes), (None, 0));
}

#[test]
fn a_store_is_never_pinned_full() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    let mut pinned = 0u64;
    let refused = loop {
        let (key, payload) = (format!("pinned-{pinned}"), noise(pinned, 60_000));
        put(&store, key.as_bytes(), &payload).unwrap();
        match store.pin(b"", key.as_bytes()) {
            Ok(is_pinned) => pinned += u64::from(is_pinned),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::PinnedFull { .. }), "{refused}");
    assert!((150..300).contains(&pinned), "{pinned} entries of 60 kB pinned in 32 MiB");
    storm(&store, b"", 1);
    for index in 0..pinned {
        assert!(get(&store, format!("pinned-{index}").as_bytes()).is_some());
    }
    assert!(disk_use(dir.path()) <= BOUND);
}

#[test]
fn a_namespace_over_its_quota_evicts_only_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let quota = 3 << 20;
    let open = || {
        let store = Store::open(options(dir.path(), BOUND).0).unwrap();
        store.set_quota(b"tenant", Some(quota)).unwrap();
        store
    };
    let mut store = open();
    for index in 0..100u64 {
        // Cheap, and never used: whoever asked the whole store would choose these.
        let key = format!("other-{index}");
        let payload = noise(index, if index % 2 == 0 { 5_000 } else { 60_000 });
        store
            .put(&PutRequest { cost_ms: 1, ..request(key.as_bytes(), &payload) }, Condition::Always)
            .unwrap();
    }
    for round in 1..3 {
        storm(&store, b"tenant", round);
        let tenant = store.usage(Some(b"tenant"));
        assert!((quota * 9 / 10..=quota).contains(&tenant.stored_bytes), "{tenant:?}");
        assert_eq!(store.usage(Some(b"")).entries, 100);
        drop(store);
        store = open();
        assert_eq!(store.usage(Some(b"")).entries, 100);
        assert!(store.usage(Some(b"tenant")).stored_bytes <= quota);
    }
    // A lowered one holds at once.
    store.set_quota(b"tenant", Some(quota / 2)).unwrap();
    assert!(store.usage(Some(b"tenant")).stored_bytes <= quota / 2);
    assert_eq!(store.usage(Some(b"")).entries, 100);
}

#[test]
fn an_entry_larger_than_the_quota_is_refused_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    store.set_quota(b"tenant", Some(100_000)).unwrap();
    let put = |key: &[u8], len| {
        store.put(&PutRequest { space: b"tenant", ..request(key, &noise(1, len)) }, Condition::Always)
    };
    put(b"kept", 50_000).unwrap();
    let error = put(b"huge", 150_000).unwrap_err();
    assert!(matches!(error, StoreError::Full { bound_bytes: 100_000, .. }), "{error}");
    assert!(store.stat(b"tenant", b"kept").is_some());
}

/// Which of the group's members are there, in the order of their puts.
fn present(store: &Store, group: u32, members: usize) -> Vec<usize> {
    let look = || -> Vec<usize> {
        let is_there = |member: &usize| store.stat(b"", format!("g{group}-{member}").as_bytes()).is_some();
        (0..members).filter(is_there).collect()
    };
    // One that is leaving, in the background, may be seen in part: not twice in the same way, for it does leave.
    let mut seen = look();
    loop {
        let again = look();
        if again == seen {
            return seen;
        }
        seen = again;
    }
}

/// Checks that the groups from 1 on are whole or gone, and gives how many are whole. Groups leave also while they are being put;
/// then those are there that were put afterwards.
fn whole_groups(store: &Store, groups: u32, members: usize) -> usize {
    let present: Vec<Vec<usize>> = (1..=groups).map(|group| present(store, group, members)).collect();
    let part = |group: &&Vec<usize>| !group.is_empty() && group.len() < members;
    let parts: Vec<&Vec<usize>> = present.iter().filter(part).collect();
    let came_after = |group: &&Vec<usize>| group.iter().copied().eq(members - group.len()..members);
    assert!(parts.iter().all(came_after), "{parts:?}");
    assert!(parts.len() <= groups as usize / 50, "{parts:?}");
    present.iter().filter(|group| group.len() == members).count()
}

fn put_group(store: &Store, group: u32, members: usize) {
    for member in 0..members {
        let key = format!("g{group}-{member}");
        // Some in the log, some in files; one dear member, the others worth next to nothing.
        let payload =
            noise(u64::from(group) << 8 | member as u64, if member % 2 == 0 { 4_000 } else { 40_000 });
        let cost_ms = if member == 0 { 20_000 } else { 1 };
        let request =
            PutRequest { group: NonZeroU32::new(group), cost_ms, ..request(key.as_bytes(), &payload) };
        store.put(&request, Condition::Always).unwrap();
    }
}

#[test]
fn a_group_leaves_together_or_not_at_all() {
    const MEMBERS: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(options(dir.path(), BOUND).0).unwrap();
    for group in 1..=600 {
        put_group(&store, group, MEMBERS);
        if group % 100 == 0 {
            whole_groups(&store, group, MEMBERS);
            drop(store);
            store = Store::open(options(dir.path(), BOUND).0).unwrap();
            whole_groups(&store, group, MEMBERS);
        }
    }
    let kept = whole_groups(&store, 600, MEMBERS);
    assert!((50..400).contains(&kept), "{kept} groups left of 600");
    assert!(disk_use(dir.path()) <= BOUND);
}

#[test]
fn a_pinned_member_keeps_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    put_group(&store, 1, 6);
    store.pin(b"", b"g1-3").unwrap();
    storm(&store, b"", 1);
    storm(&store, b"", 2);
    assert_eq!(present(&store, 1, 6).len(), 6);
}

#[test]
fn a_group_of_a_space_over_its_quota_leaves_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    store.set_quota(b"", Some(2 << 20)).unwrap();
    (1..100).for_each(|group| put_group(&store, group, 6));
    let kept = whole_groups(&store, 99, 6);
    assert!((5..20).contains(&kept), "{kept} groups of 132 kB left in 2 MiB");
}

/// Puts groups through a disk that fails once; says whether it did.
fn run_groups(fuse: i64) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let bound = 12 << 20;
    let options = || options(dir.path(), bound).0;
    let media = Watched::disk();
    let blown = Fuse::set(&media, fuse, UNWRITABLE, Lasting::Once);
    // What was acknowledged, by group, in the order of the puts.
    let mut kept: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let check = |store: &Store, kept: &BTreeMap<u32, Vec<String>>| {
        for keys in kept.values() {
            let is_there = |key: &&String| store.stat(b"", key.as_bytes()).is_some();
            let there: Vec<&String> = keys.iter().filter(is_there).collect();
            // All of them, or those that were put after the group left.
            assert!(
                there.iter().copied().eq(keys.iter().skip(keys.len() - there.len())),
                "fuse {fuse}: {there:?}"
            );
        }
    };
    {
        let Ok(store) = Store::open(Options { media, ..options() }) else { return true };
        for group in 1..150u32 {
            for member in 0..4u64 {
                let key = format!("g{group}-{member}");
                let payload =
                    noise(u64::from(group) << 8 | member, if member % 2 == 0 { 9_000 } else { 70_000 });
                let group = NonZeroU32::new(group);
                if store
                    .put(&PutRequest { group, ..request(key.as_bytes(), &payload) }, Condition::Always)
                    .is_ok()
                {
                    kept.entry(group.unwrap().get()).or_default().push(key);
                }
            }
        }
        check(&store, &kept);
    }
    let store = Store::open(options()).unwrap();
    check(&store, &kept);
    assert!(store.usage(None).entries > 100);
    blown.is_burnt()
}

#[test]
fn a_failing_medium_leaves_no_part_of_a_group() {
    let runs = (0..).step_by(97).take_while(|fuse| run_groups(*fuse)).count();
    assert!(runs > 10, "{runs} runs");
}
