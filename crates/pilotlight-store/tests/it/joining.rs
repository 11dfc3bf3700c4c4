use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_store::{
    Condition, Durability, GROUP_ENTRIES_MAX, Options, PutRequest, SHARED, Store, StoreError,
};

use crate::media::crash::{Crash, Moment};
use crate::media::{FileSystem, Fuse, Lasting, Simulated, UNWRITABLE, Watched};
use crate::setup::{Dice, disk_use, get, noise, options, original, put, request, seed, turn};

const BOUND: u64 = 32 << 20;
const MEMBERS: usize = 6;

fn number(group: u32) -> NonZeroU32 {
    NonZeroU32::new(group).unwrap()
}

fn key(group: u32, member: usize) -> Vec<u8> {
    format!("g{group}-{member}").into_bytes()
}

/// Puts entries of which each is on its own: some in the log, some in files; the first is dear, the others worth next to nothing.
fn put_members(store: &Store, group: u32) -> Result<(), StoreError> {
    for member in 0..MEMBERS {
        let len = if member % 2 == 0 { 4_000 } else { 40_000 };
        let payload = noise(u64::from(group) << 8 | member as u64, len);
        let cost_ms = if member == 0 { 20_000 } else { 1 };
        store.put(&PutRequest { cost_ms, ..request(&key(group, member), &payload) }, Condition::Always)?;
    }
    Ok(())
}

fn join_members(store: &Store, group: u32) -> Result<usize, StoreError> {
    let keys: Vec<Vec<u8>> = (0..MEMBERS).map(|member| key(group, member)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    store.join(b"", keys[0], number(group), &keys[1..])
}

fn put_and_join(store: &Store, group: u32) {
    put_members(store, group).unwrap();
    assert_eq!(join_members(store, group).unwrap(), MEMBERS);
}

fn present(store: &Store, group: u32) -> Vec<usize> {
    (0..MEMBERS).filter(|member| store.stat(b"", &key(group, *member)).is_some()).collect()
}

fn group_of(store: &Store, key: &[u8]) -> Option<u32> {
    store.stat(b"", key).unwrap().group.map(NonZeroU32::get)
}

/// Enough of what is dear to turn the whole store over.
fn storm(store: &Store, seed: u64) {
    for index in 0..800u64 {
        let payload = noise(seed << 32 | index, if index % 2 == 0 { 9_000 } else { 90_000 });
        let key = format!("storm-{seed}-{index}");
        let request = PutRequest { cost_ms: 60_000, ..request(key.as_bytes(), &payload) };
        store.put(&request, Condition::Always).unwrap();
    }
}

/// A store that makes no room while nobody puts, so that no group is seen while it leaves.
fn quiet(dir: &Path, bound: u64) -> Options {
    Options { tick: Duration::from_secs(3600), ..options(dir, bound).0 }
}

#[test]
fn entries_that_joined_leave_together_or_not_at_all() {
    let bound = 12 << 20;
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(quiet(dir.path(), bound)).unwrap();
    for group in 1..=200 {
        put_members(&store, group).unwrap();
        join_members(&store, group).unwrap();
        if group % 100 == 0 {
            drop(store);
            store = Store::open(quiet(dir.path(), bound)).unwrap();
            let there = (1..=group).map(|group| present(&store, group).len());
            let parts = there.clone().filter(|len| !matches!(*len, 0 | MEMBERS)).count();
            // An entry may have left before its group was joined.
            assert!(parts <= 2, "{parts} of {group} groups are there in part");
            let whole = there.filter(|len| *len == MEMBERS).count();
            assert!((20..90).contains(&whole), "{whole} of {group} groups are left");
        }
    }
    assert!(disk_use(dir.path()) <= bound);
}

#[test]
fn a_group_that_others_push_out_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    (1..=5).for_each(|group| put_and_join(&store, group));
    for round in 0..3 {
        storm(&store, round);
    }
    for group in 1..=5 {
        assert_eq!(present(&store, group), [0; 0], "group {group}");
    }
}

#[test]
fn a_join_changes_nothing_but_the_group_and_the_version() {
    let dir = tempfile::tempdir().unwrap();
    let (options, clock) = options(dir.path(), BOUND);
    let store = Store::open(options).unwrap();
    put_members(&store, 1).unwrap();
    let expires_ms = Some(crate::setup::START_MS * 2);
    store.set_expiry(b"", b"g1-0", expires_ms, Condition::Always).unwrap();
    get(&store, b"g1-1").unwrap();
    turn(&store, b"", b"g1-2").unwrap();
    let before: Vec<_> =
        (0..MEMBERS).map(|member| store.peek(b"", &key(1, member)).unwrap().unwrap()).collect();
    clock.advance_ms(10_000);
    assert_eq!(join_members(&store, 1).unwrap(), MEMBERS);
    for (member, before) in before.iter().enumerate() {
        let after = store.peek(b"", &key(1, member)).unwrap().unwrap();
        assert_eq!(original(&after), original(before));
        assert_eq!((&after.head, after.stat.group), (&before.head, Some(number(1))));
        assert!(after.stat.version > before.stat.version);
        let but = |stat: pilotlight_store::Stat| pilotlight_store::Stat {
            version: 0,
            stored_bytes: 0,
            group: None,
            ..stat
        };
        assert_eq!(but(after.stat), but(before.stat));
    }
    // Again, it costs nothing.
    let version = store.stat(b"", b"g1-3").unwrap().version;
    assert_eq!(join_members(&store, 1).unwrap(), MEMBERS);
    assert_eq!(store.stat(b"", b"g1-3").unwrap().version, version);
}

#[test]
fn a_group_outlives_reopens_cleaning_and_whatever_happens_to_its_entries() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(options(dir.path(), BOUND).0).unwrap();
    put_and_join(&store, 1);
    put(&store, b"g1-1", &noise(9, 50_000)).unwrap();
    put(&store, b"g1-2", &noise(9, 5_000)).unwrap();
    assert!(turn(&store, b"", b"g1-3").unwrap());
    store.set_expiry(b"", b"g1-4", Some(crate::setup::START_MS * 2), Condition::Always).unwrap();
    // It moves all along the log meanwhile.
    assert!(store.pin(b"", b"g1-5").unwrap());
    for round in 0..2 {
        storm(&store, round);
        drop(store);
        store = Store::open(options(dir.path(), BOUND).0).unwrap();
        for member in 0..MEMBERS {
            assert_eq!(group_of(&store, &key(1, member)), Some(1), "member {member}");
        }
    }
    store.unpin(b"", b"g1-5").unwrap();
    (2..4).for_each(|round| storm(&store, round));
    assert_eq!(present(&store, 1), [0; 0]);
}

#[test]
fn a_member_that_is_deleted_is_gone_from_the_group_and_the_others_leave_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    put_and_join(&store, 1);
    for gone in [0, 3] {
        assert!(store.delete(b"", &key(1, gone), Condition::Always).unwrap());
    }
    put(&store, b"g1-3", b"another").unwrap();
    assert_eq!(group_of(&store, b"g1-3"), None);
    assert_eq!(join_members(&store, 1).unwrap(), 0, "the leader is gone");
    assert!(store.pin(b"", b"g1-1").unwrap());
    storm(&store, 1);
    storm(&store, 2);
    assert_eq!(present(&store, 1), [1, 2, 4, 5]);
    store.unpin(b"", b"g1-1").unwrap();
    storm(&store, 3);
    storm(&store, 4);
    assert_eq!(present(&store, 1), [0; 0]);
}

#[test]
fn what_two_groups_need_belongs_to_neither_and_stays_when_they_leave() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(options(dir.path(), BOUND).0).unwrap();
    (1..=3).for_each(|group| put_and_join(&store, group));
    assert_eq!(store.join(b"", b"g2-0", number(2), &[b"g1-1", b"g1-2", b"absent"]).unwrap(), 1);
    assert_eq!(store.join(b"", b"g3-0", number(3), &[b"g1-1"]).unwrap(), 1);
    // The group that a leader is in stays its own; what is shared leads nobody.
    assert_eq!(store.join(b"", b"g3-0", number(77), &[b"g3-1"]).unwrap(), 2);
    assert_eq!(store.join(b"", b"g1-1", number(77), &[b"g3-1"]).unwrap(), 0);
    drop(store);
    store = Store::open(options(dir.path(), BOUND).0).unwrap();
    let shared = Some(SHARED.get());
    assert_eq!(
        [group_of(&store, b"g1-0"), group_of(&store, b"g1-1"), group_of(&store, b"g1-2")],
        [Some(1), shared, shared]
    );
    // Used as by both.
    (0..30).for_each(|_| drop(get(&store, b"g1-2")));
    store.pin(b"", b"g1-1").unwrap();
    storm(&store, 1);
    storm(&store, 2);
    assert_eq!([present(&store, 2), present(&store, 3)], [vec![], vec![]]);
    assert!(present(&store, 1).contains(&1), "pinned");
    assert!(!present(&store, 1).contains(&0), "what is pinned keeps no group that it left");
}

#[test]
fn a_group_takes_so_many_and_the_others_stay_on_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    let keys: Vec<String> = (0..GROUP_ENTRIES_MAX + 10).map(|index| format!("k{index}")).collect();
    for key in &keys {
        put(&store, key.as_bytes(), b"small").unwrap();
    }
    let all: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
    assert_eq!(store.join(b"", all[0], number(1), &all[1..]).unwrap(), GROUP_ENTRIES_MAX);
    assert_eq!(group_of(&store, all[GROUP_ENTRIES_MAX - 1]), Some(1));
    assert_eq!(group_of(&store, all[GROUP_ENTRIES_MAX]), None);
    // Who leaves makes room.
    assert!(store.delete(b"", all[1], Condition::Always).unwrap());
    assert_eq!(store.join(b"", all[0], number(1), &all[GROUP_ENTRIES_MAX..]).unwrap(), 2);
}

#[test]
fn a_group_that_leaves_while_it_is_joined_is_joined_no_further() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(quiet(dir.path(), 12 << 20)).unwrap();
    // The least worthy of all by far, and kept until the store is full.
    (1..=10).for_each(|group| put_members(&store, group).unwrap());
    let keys: Vec<Vec<u8>> =
        (1..=10).flat_map(|group| (1..MEMBERS).map(move |member| key(group, member))).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    assert_eq!(store.join(b"", keys[0], number(1), &keys[1..]).unwrap(), keys.len());
    store.pin(b"", keys[0]).unwrap();
    storm(&store, 1);
    store.unpin(b"", keys[0]).unwrap();
    let others: Vec<String> = (0..800).map(|index| format!("storm-1-{index}")).collect();
    let others: Vec<&[u8]> = others.iter().map(String::as_bytes).collect();
    assert_eq!(store.join(b"", keys[0], number(1), &others).unwrap(), 0);
    assert_eq!(keys.iter().find(|key| store.stat(b"", key).is_some()), None);
    let there: Vec<_> = others.iter().filter_map(|key| store.stat(b"", key)).collect();
    // But for the one whose own put made the group leave.
    let late = there.iter().filter(|stat| stat.group.is_some()).count();
    assert!(there.len() > 50 && late <= 1, "{late} of {} are in a group that left", there.len());
}

#[test]
fn a_join_where_nobody_may_write_is_refused_and_one_of_nothing_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), BOUND).0).unwrap();
    assert_eq!(store.join(b"", b"absent", number(1), &[b"absent too"]).unwrap(), 0);
    assert_eq!(store.join(b"space", b"absent", number(1), &[]).unwrap(), 0);
    assert_eq!(store.spaces().len(), 1, "no space comes of it");
    put_members(&store, 1).unwrap();
    drop(store);
    let media = pilotlight_store::LookingOnly::at(Arc::new(pilotlight_store::media::Disk));
    let store = Store::open(Options { media, ..options(dir.path(), BOUND).0 }).unwrap();
    assert!(matches!(join_members(&store, 1), Err(StoreError::ReadOnly)));
}

/// Puts and joins groups through a disk that fails once, by group whether the join was acknowledged; and whether the disk did.
fn run_through_failure(fuse: i64) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let bound = 12 << 20;
    let media = Watched::disk();
    let blown = Fuse::set(&media, fuse, UNWRITABLE, Lasting::Once);
    let mut joined = Vec::new();
    let check = |store: &Store, joined: &[u32]| {
        for group in joined {
            let there = present(store, *group);
            assert!(matches!(there.len(), 0 | MEMBERS), "fuse {fuse}: {there:?} of group {group}");
        }
    };
    {
        let Ok(store) = Store::open(Options { media, ..quiet(dir.path(), bound) }) else { return true };
        for group in 1..150 {
            if put_members(&store, group).is_ok() && join_members(&store, group).ok() == Some(MEMBERS) {
                joined.push(group);
            }
        }
        check(&store, &joined);
    }
    let store = Store::open(quiet(dir.path(), bound)).unwrap();
    check(&store, &joined);
    assert!(store.usage(None).entries > 100);
    blown.is_burnt()
}

#[test]
fn a_failing_medium_leaves_no_part_of_a_group_that_was_joined() {
    let runs = (0..).step_by(499).take_while(|fuse| run_through_failure(*fuse)).count();
    assert!(runs > 5, "{runs} runs");
}

#[test]
fn a_kill_at_any_call_leaves_no_part_of_a_group_that_was_joined() {
    const BOUND: u64 = (8 << 20) + (64 << 10);
    let seed = seed();
    let options = |media: Arc<Simulated>| Options {
        media,
        durability: Durability::Relaxed,
        tick: Duration::from_secs(3600),
        ..Options::new("/store", BOUND)
    };
    let media = Simulated::holding(FileSystem::default());
    let store = Store::open(options(media.clone())).unwrap();
    let groups = 40;
    (1..=groups).for_each(|group| put_and_join(&store, group));
    let moments = Arc::new(Mutex::new(Vec::new()));
    let recorded = moments.clone();
    media.record(move |files, change| {
        recorded.lock().push(Moment { files: files.clone(), change: change.clone() });
    });
    // Dear and of two sizes: groups leave one after the other, and the log is cleaned.
    for index in 0..120u64 {
        let payload = noise(index << 32 | seed, if index % 2 == 0 { 9_000 } else { 90_000 });
        let key = format!("storm-{index}");
        store
            .put(&PutRequest { cost_ms: 60_000, ..request(key.as_bytes(), &payload) }, Condition::Always)
            .unwrap();
    }
    let left =
        groups as usize - (1..=groups).filter(|group| present(&store, *group).len() == MEMBERS).count();
    assert!(left > 10, "{left} groups left");
    drop(store);
    media.record(|_, _| {});
    let mut dice = Dice::new(seed);
    let moments = std::mem::take(&mut *moments.lock());
    assert!(moments.len() > 100, "{} calls", moments.len());
    for (at, moment) in moments.iter().enumerate() {
        let store = Store::open(options(Simulated::holding(moment.after(Crash::Kill, &mut dice)))).unwrap();
        for group in 1..=groups {
            let there = present(&store, group).len();
            assert!(
                matches!(there, 0 | MEMBERS),
                "seed {seed}, call {at}, {moment}: {there} of group {group}"
            );
        }
    }
}
