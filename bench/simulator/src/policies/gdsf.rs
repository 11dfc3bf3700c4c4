//! GreedyDual-Size-Frequency (Cherkasova 1998), exact: of all entries the one worth least leaves, found in an ordered set.
//! Sizes count with a block on top, as ours do: without it the tiniest entries are worth most of all.
#![expect(clippy::indexing_slicing, reason = "items are numbered from 0, and there is a place for each")]

use std::collections::BTreeSet;

use super::{Bytes, Cache};
use crate::trace::Item;

const OVERHEAD_BYTES: f64 = 4096.0;

#[derive(Debug)]
pub(crate) struct Gdsf<'a> {
    bytes: Bytes<'a>,
    /// By worth; positive floats compare as their bits do.
    order: BTreeSet<(u64, u32)>,
    /// Uses and worth of what is kept.
    kept: Vec<Option<(f64, f64)>>,
    floor: f64,
}

impl<'a> Gdsf<'a> {
    pub(crate) fn new(items: &'a [Item], capacity_bytes: u64) -> Self {
        let kept = vec![None; items.len()];
        Self { bytes: Bytes::new(items, capacity_bytes), order: BTreeSet::new(), kept, floor: 0.0 }
    }

    fn note_use(&mut self, item: u32) {
        let of = &self.bytes.items[item as usize];
        let uses = match self.kept[item as usize] {
            None => 1.0,
            Some((uses, worth)) => {
                self.order.remove(&(worth.to_bits(), item));
                uses + 1.0
            }
        };
        let cost_ms = f64::from(of.cost_ms_taken());
        let worth = self.floor + uses * cost_ms / (f64::from(of.size_bytes) + OVERHEAD_BYTES);
        self.order.insert((worth.to_bits(), item));
        self.kept[item as usize] = Some((uses, worth));
    }
}

impl Cache for Gdsf<'_> {
    fn get(&mut self, item: u32, _time_ms: u64) -> bool {
        let is_there = self.kept[item as usize].is_some();
        if is_there {
            self.note_use(item);
        }
        is_there
    }

    fn put(&mut self, item: u32, _time_ms: u64) {
        if !self.bytes.could_keep(item) {
            return;
        }
        while self.bytes.lacks_room_for(item)
            && let Some((worth, victim)) = self.order.first().copied()
        {
            self.floor = f64::from_bits(worth);
            self.delete(victim);
        }
        self.bytes.add(item);
        self.note_use(item);
    }

    fn delete(&mut self, item: u32) {
        if let Some((_, worth)) = self.kept[item as usize].take() {
            self.order.remove(&(worth.to_bits(), item));
            self.bytes.subtract(item);
        }
    }
}
