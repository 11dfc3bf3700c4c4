//! A part of the index: slots side by side, and a table of where which one is.
//!
//! A hash table of the slots themselves would be a quarter to more than half empty, at a hundred bytes a slot. Here the table
//! holds numbers of four bytes, and the slots have an eighth to spare. What is walked, sampled and skipped is an array.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::index::Slot;

/// The slots whose hashes start alike.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    slots: Vec<Slot>,
    /// Places in `slots`, by the lower half of the hash.
    places: HashTable<u32>,
}

/// One part in so many is made room for ahead.
const SPARE: usize = 8;

fn is_at(slots: &[Slot], place: u32, hash: u128) -> bool {
    slots.get(place as usize).is_some_and(|slot| slot.hash == hash)
}

fn half_at(slots: &[Slot], place: u32) -> u64 {
    slots.get(place as usize).map_or(0, |slot| slot.hash as u64)
}

impl Shard {
    /// Makes room for so many slots, which takes addresses and no memory before they come: a shard that grew step by step would
    /// leave behind what it outgrew.
    pub(crate) fn reserve(&mut self, slots: usize) {
        let Self { slots: vec, places } = self;
        vec.reserve_exact(slots);
        places.reserve(slots, |place| half_at(vec, *place));
    }

    pub(crate) fn get(&self, hash: u128) -> Option<&Slot> {
        let place = self.places.find(hash as u64, |place| is_at(&self.slots, *place, hash))?;
        self.slots.get(*place as usize)
    }

    pub(crate) fn get_mut(&mut self, hash: u128) -> Option<&mut Slot> {
        let place = self.places.find(hash as u64, |place| is_at(&self.slots, *place, hash))?;
        self.slots.get_mut(*place as usize)
    }

    /// A hash with this lower half, if there is one: two in a shard are as likely as two equal hashes of 74 bits.
    pub(crate) fn find_half(&self, half: u64) -> Option<u128> {
        let place = self.places.find(half, |place| half_at(&self.slots, *place) == half)?;
        self.slots.get(*place as usize).map(|slot| slot.hash)
    }

    /// Puts `slot` in place of the one of the same hash, which is returned.
    pub(crate) fn insert(&mut self, slot: Slot) -> Option<Slot> {
        let Self { slots, places } = self;
        let is_it = |place: &u32| is_at(slots, *place, slot.hash);
        match places.entry(slot.hash as u64, is_it, |place| half_at(slots, *place)) {
            Entry::Occupied(entry) => {
                slots.get_mut(*entry.get() as usize).map(|old| std::mem::replace(old, slot))
            }
            Entry::Vacant(entry) => {
                entry.insert(slots.len() as u32);
                if slots.len() == slots.capacity() {
                    slots.reserve_exact(4 + slots.len() / SPARE);
                }
                slots.push(slot);
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, hash: u128) -> Option<Slot> {
        let Self { slots, places } = self;
        let entry = places.find_entry(hash as u64, |place| is_at(slots, *place, hash)).ok()?;
        let (place, _) = entry.remove();
        let removed = slots.swap_remove(place as usize);
        let last = slots.len() as u32;
        if let Some(moved) = slots.get(place as usize)
            && let Some(its_place) = places.find_mut(moved.hash as u64, |other| *other == last)
        {
            *its_place = place;
        }
        if slots.len() < slots.capacity() / 2 {
            slots.shrink_to(slots.len() + slots.len() / SPARE);
            places.shrink_to(slots.len(), |place| half_at(slots, *place));
        }
        Some(removed)
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Slot> {
        self.slots.iter()
    }

    /// All slots, to be changed but for their hashes.
    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Slot> {
        self.slots.iter_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::index::Place;
    use crate::policy::Standing;

    const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

    fn slot(hash: u128, seq: u64) -> Slot {
        Slot {
            hash,
            seq,
            expires_ms: 0,
            created_ms: 0,
            place: Place { segment: 0, offset: 0, record_len: 0 },
            payload_len: 0,
            logical_len: 0,
            cost_ms: 0,
            accessed_s: 0,
            standing: Standing::default(),
            hits: 0,
            space: 0,
            group_number: None,
            is_external: false,
            is_pinned: false,
            is_base: false,
            is_rewritten: false,
            base_len: 0,
        }
    }

    #[test]
    fn a_shard_is_a_map_of_its_slots_whatever_comes_and_goes() {
        let mut shard = Shard::default();
        let mut model: HashMap<u128, u64> = HashMap::new();
        let mut state = 7u64;
        for seq in 0..200_000u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Up to 3000 keys, then down again.
            let hash = (u128::from(state >> 33) % 3000).wrapping_mul(SPREAD);
            if state >> 40 & 7 > if seq < 100_000 { 2 } else { 5 } {
                let old = shard.insert(slot(hash, seq)).map(|slot| slot.seq);
                assert_eq!(old, model.insert(hash, seq));
            } else {
                assert_eq!(shard.remove(hash).map(|slot| slot.seq), model.remove(&hash));
            }
            assert_eq!(shard.get(hash).map(|slot| slot.seq), model.get(&hash).copied());
        }
        assert_eq!(shard.len(), model.len());
        assert!(shard.iter().all(|slot| model.get(&slot.hash) == Some(&slot.seq)));
        assert!(model.keys().all(|hash| shard.find_half(*hash as u64) == Some(*hash)));
        assert!(shard.slots.capacity() <= 2 * shard.len() + 4, "memory is given back");
    }

    #[test]
    fn a_slot_takes_less_than_a_hundred_and_twenty_bytes_of_memory() {
        let mut shard = Shard::default();
        for count in 1..5000u128 {
            shard.insert(slot(count.wrapping_mul(SPREAD), 0));
            // A small shard is no matter: 1024 of them are a megabyte.
            if count > 500 {
                let table = shard.places.capacity() * 8 / 7 * 5;
                let bytes = shard.slots.capacity() * size_of::<Slot>() + table;
                assert!(bytes < 128 * count as usize, "{bytes} bytes for {count} slots");
            }
        }
    }
}
