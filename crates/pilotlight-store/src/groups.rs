//! Entries that are of use only together: for want of space they leave together, or not at all.
//!
//! A group is a number that callers choose, in a space. What is absent here: any other way to leave. By age, by request and
//! by damage an entry goes alone. A group that leaves does so by one record, which speaks for all puts of the group with
//! lower sequence numbers, so that no crash leaves a part of it.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering::Acquire;

use parking_lot::Mutex;

use crate::Result;
use crate::format::RecordType;
use crate::index::Slot;
use crate::store::Inner;

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

    fn members(&self, group: Group) -> Vec<u128> {
        self.members.lock().get(&group).cloned().unwrap_or_default()
    }

    /// The number of the record by which the group left, if a member of before could still come back.
    pub(crate) fn left_seq(&self, group: Group) -> u64 {
        let left = self.left.lock();
        left.iter().filter(|(other, ..)| *other == group).map(|(_, seq, _)| *seq).max().unwrap_or(0)
    }
}

impl Inner {
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
