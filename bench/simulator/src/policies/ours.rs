//! Ours: the store's own rule, over a table in place of the store's index.
#![expect(clippy::indexing_slicing, reason = "items are numbered from 0, and there is a place for each")]

use pilotlight_store::policy::{Asset, Candidates, Policy, SAMPLE, Standing};

use super::{Bytes, Cache};
use crate::random::Random;
use crate::trace::Item;

/// The store draws at random too, from a seed of its own.
const SEED: u64 = 1;

#[derive(Debug)]
pub(crate) struct Ours<'a> {
    bytes: Bytes<'a>,
    policy: Policy,
    candidates: Candidates<u32>,
    kept: Vec<Option<Kept>>,
    /// What is kept, in no order: to draw from.
    all: Vec<u32>,
    random: Random,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    standing: Standing,
    /// In `all`.
    place: usize,
}

impl<'a> Ours<'a> {
    pub(crate) fn new(items: &'a [Item], capacity_bytes: u64) -> Self {
        Self {
            bytes: Bytes::new(items, capacity_bytes),
            policy: Policy::new(capacity_bytes),
            candidates: Candidates::default(),
            kept: vec![None; items.len()],
            all: Vec::new(),
            random: Random::new(SEED),
        }
    }

    fn asset(&self, item: u32) -> Asset {
        let item = &self.bytes.items[item as usize];
        Asset { cost_ms: item.cost_ms, stored_bytes: u64::from(item.size_bytes) }
    }

    fn victim(&mut self) -> Option<u32> {
        for _ in 0..SAMPLE {
            let item = *self.all.get(self.random.below(self.all.len()))?;
            if let Some(kept) = self.kept[item as usize] {
                self.candidates.offer(item, kept.standing.worth());
            }
        }
        while let Some((item, worth)) = self.candidates.take_least() {
            if self.kept[item as usize].is_some_and(|kept| kept.standing.worth() == worth) {
                return Some(item);
            }
        }
        None
    }
}

impl Cache for Ours<'_> {
    fn get(&mut self, item: u32, _time_ms: u64) -> bool {
        let asset = self.asset(item);
        let Some(kept) = &mut self.kept[item as usize] else { return false };
        kept.standing = self.policy.used(&kept.standing, &asset);
        true
    }

    fn put(&mut self, item: u32, _time_ms: u64) {
        if !self.bytes.could_keep(item) {
            return;
        }
        while self.bytes.lacks_room_for(item)
            && let Some(victim) = self.victim()
        {
            if let Some(kept) = self.kept[victim as usize] {
                self.policy.note_evicted(self.bytes.items[victim as usize].key, &kept.standing);
            }
            self.delete(victim);
        }
        let standing = self.policy.enter(self.bytes.items[item as usize].key, &self.asset(item));
        self.kept[item as usize] = Some(Kept { standing, place: self.all.len() });
        self.all.push(item);
        self.bytes.add(item);
    }

    fn delete(&mut self, item: u32) {
        let Some(kept) = self.kept[item as usize].take() else { return };
        self.all.swap_remove(kept.place);
        if let Some(moved) = self.all.get(kept.place)
            && let Some(kept_there) = &mut self.kept[*moved as usize]
        {
            kept_there.place = kept.place;
        }
        self.bytes.subtract(item);
    }
}
