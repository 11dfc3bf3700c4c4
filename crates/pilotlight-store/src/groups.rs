//! Entries that are of use only together: for want of space they leave together, or not at all.
//!
//! A group is a number that callers choose, in a space. What is absent here: any other way to leave. By age, by request and
//! by damage an entry goes alone. A group that leaves does so by one record, which speaks for all puts of the group with
//! lower sequence numbers, so that no crash leaves a part of it.
//!
//! An entry is put into a group, or joins one later: then it is put again, as when it is pinned. One that a second group needs
//! belongs to none from there on, and stays or leaves by itself. To leave with the first would take it from the second, which
//! may be in use every day; and whoever uses either uses it, so it is worth more than what it was grouped with.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering::Acquire;

use parking_lot::Mutex;

use crate::format::{RecordType, key_hash};
use crate::index::Slot;
use crate::ops::{Condition, TryGet};
use crate::read::{Noted, Wait};
use crate::store::{Inner, Store};
use crate::write::Purpose;
use crate::{Result, StoreError};

/// In the place of a group's number: several groups need the entry, and it belongs to none.
pub const SHARED: NonZeroU32 = NonZeroU32::MAX;

/// Entries of a group at most, which joins keep to; who finds no room stays as it is. Whenever one of a group is drawn to leave,
/// all of it is looked at.
pub const GROUP_ENTRIES_MAX: usize = 1024;

/// Entries of one space that were put with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Group {
    pub(crate) space: u16,
    pub(crate) number: NonZeroU32,
}

/// Who belongs to which group.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    members: Mutex<HashMap<Group, Vec<u128>>>,
    /// Groups that left lately, by which record, and up to which record a failed write could bring a member back.
    left: Mutex<Vec<(Group, u64, u64)>>,
}

impl Groups {
    /// Notes that `new` stands in the place of `old`, which was under the same key.
    pub(crate) fn note(&self, old: Option<&Slot>, new: Option<&Slot>) {
        let member = |slot: Option<&Slot>| slot.and_then(|slot| Some((slot.group()?, slot.hash)));
        let (old, new) = (member(old), member(new));
        if old == new {
            return;
        }
        let mut members = self.members.lock();
        if let Some((group, hash)) = old
            && let Some(hashes) = members.get_mut(&group)
        {
            hashes.retain(|other| *other != hash);
            if hashes.is_empty() {
                members.remove(&group);
            }
        }
        if let Some((group, hash)) = new {
            members.entry(group).or_default().push(hash);
        }
    }

    fn len(&self, group: Group) -> usize {
        self.members.lock().get(&group).map_or(0, Vec::len)
    }

    fn members(&self, group: Group) -> Vec<u128> {
        self.members.lock().get(&group).cloned().unwrap_or_default()
    }

    /// The number of the record by which the group left, if a member of before could still come back.
    pub(crate) fn left_seq(&self, group: Group) -> u64 {
        let left = self.left.lock();
        left.iter().filter(|(other, ..)| *other == group).map(|(_, seq, _)| *seq).max().unwrap_or(0)
    }
}

impl Store {
    /// Puts the entries under `leader` and `keys` into one group, and says how many of them are in it then. It is the group that
    /// the one under `leader` is in already, else `group`. An entry of another group becomes [`SHARED`]; more than
    /// [`GROUP_ENTRIES_MAX`] do not fit in. Nothing else of an entry changes, but for its version.
    ///
    /// # Errors
    /// As [`Store::put`] and [`Store::get`]; some may have joined then.
    pub fn join(&self, space: &[u8], leader: &[u8], group: NonZeroU32, keys: &[&[u8]]) -> Result<usize> {
        let (joined, staged) = self.inner.stage_join(space, leader, group, keys);
        staged.into_iter().try_for_each(|version| self.settle(version))?;
        joined
    }
}

impl Inner {
    /// Stages what it takes for the entries to be in one group, and says how many are; all that was staged is to be settled.
    fn stage_join(
        &self,
        space: &[u8],
        leader: &[u8],
        number: NonZeroU32,
        keys: &[&[u8]],
    ) -> (Result<usize>, Vec<u64>) {
        let mut staged = Vec::new();
        let of_leader = self.group_number(space, leader);
        let number = of_leader.flatten().unwrap_or(number);
        let Some(space_number) = self.space_number(space).filter(|_| of_leader.is_some() && number != SHARED)
        else {
            return (Ok(0), staged);
        };
        let group = Group { space: space_number, number };
        let mut joined = 0;
        for key in std::iter::once(&leader).chain(keys) {
            match self.stage_joining(space, key, group, &mut staged) {
                Ok(is_in) => joined += usize::from(is_in),
                Err(error) => return (Err(error), staged),
            }
            // It may have left meanwhile, with all that joined so far: the others are of no use to each other.
            if self.group_number(space, leader) != Some(Some(number)) {
                return (Ok(0), staged);
            }
        }
        (Ok(joined), staged)
    }

    /// The number of the group that the entry under `key` is in, if there is one.
    fn group_number(&self, space: &[u8], key: &[u8]) -> Option<Option<NonZeroU32>> {
        let hash = key_hash(space, key, self.seed);
        let now_ms = self.options.clock.now_ms();
        let shard = self.index.shard(hash);
        shard.get(hash).filter(|slot| !slot.is_expired(now_ms)).map(|slot| slot.group_number)
    }

    /// Says whether the entry under `key` is in the group then.
    fn stage_joining(&self, space: &[u8], key: &[u8], group: Group, staged: &mut Vec<u64>) -> Result<bool> {
        let mut tried = None;
        loop {
            let Some(own) = self.group_number(space, key) else { return Ok(false) };
            let into = match own {
                Some(own) if own == group.number => return Ok(true),
                Some(own) if own != SHARED => SHARED,
                None if self.groups.len(group) < GROUP_ENTRIES_MAX => group.number,
                Some(_) | None => return Ok(false),
            };
            let stored = match self.get(space, key, Wait::Allowed, Noted::No) {
                Ok(TryGet::Ready(Some(stored))) => stored,
                Ok(TryGet::Ready(None) | TryGet::WouldBlock) | Err(StoreError::Corrupt { .. }) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            };
            // Another write may have come between, here or below: then the loop looks at what it wrote.
            if stored.stat.group != own {
                continue;
            }
            if stored.check_not_tried(&mut tried).is_err() {
                return Ok(false);
            }
            let (request, condition) = (stored.again(space, key), Condition::Version(stored.stat.version));
            match self.stage(&request, condition, Purpose::Join(into), stored.form()) {
                Ok(None) => {}
                Ok(Some(seq)) => {
                    staged.push(seq);
                    return Ok(into == group.number);
                }
                Err(StoreError::PinnedFull { .. } | StoreError::Unswept { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// How much keeping the group is worth: what all of it saves for every byte that all of it takes. Infinitely much when
    /// one of it is pinned.
    pub(crate) fn worth_together(&self, group: Group) -> f32 {
        let (mut worth, mut bytes) = (0.0, 0.0);
        for hash in self.groups.members(group) {
            if let Some(slot) = self.index.shard(hash).get(hash).filter(|slot| slot.group() == Some(group)) {
                if slot.is_pinned {
                    return f32::INFINITY;
                }
                let stored = slot.stored_bytes() as f32;
                worth += slot.standing.worth() * stored;
                bytes += stored;
            }
        }
        if bytes > 0.0 { worth / bytes } else { 0.0 }
    }

    /// Evicts the whole group. Nobody else may make room meanwhile: a record that the cleaner moved behind the one by which
    /// the group leaves would come back at an open, when that is gone.
    pub(crate) fn leave_together(&self, group: Group) -> Result<()> {
        let number = group.number.get().to_le_bytes();
        let name = self.spaces.read().get(usize::from(group.space)).cloned().unwrap_or_default();
        let key: [&[u8]; 2] = [&number, &name];
        let hash = u128::from(group.number.get());
        let (seq, _) = self.log.append(&self.removal(RecordType::Leave, &key, hash, group.space), None)?;
        self.settle(seq)?;
        self.groups.left.lock().push((group, seq, u64::MAX));
        let mut released = Vec::new();
        // A put takes its number and notes its group under one lock. When each lock was free once since, whoever has a number
        // below the record's is on the list.
        self.index.shards_from(0).for_each(drop);
        for hash in self.groups.members(group) {
            let mut shard = self.index.shard(hash);
            let is_gone = |slot: &&Slot| slot.group() == Some(group) && slot.seq < seq;
            if let Some(slot) = shard.get(hash).filter(is_gone).copied() {
                shard.remove(hash);
                released.push(self.forget(&slot));
                self.note_evicted(&slot);
            }
        }
        // After all of them: a reader may see a group in part while it leaves, and not for as long as files take.
        released.iter().for_each(|files| self.release(files));
        // Whoever replaced a member meanwhile gives it back if its write fails; later ones found none to replace.
        let (until, written) = (self.log.last_seq(), self.log.written_seq.load(Acquire));
        let mut left = self.groups.left.lock();
        left.retain_mut(|(other, _, last)| {
            *last = if *other == group { until.min(*last) } else { *last };
            *last > written
        });
        Ok(())
    }
}
