//! SIEVE (Zhang and others, NSDI 2024): a queue, a bit an entry, and a hand that goes from the old end to the new,
//! sparing once what was used.
#![expect(clippy::indexing_slicing, reason = "items are numbered from 0, and there is a bit for each")]

use super::list::List;
use super::{Bytes, Cache};
use crate::trace::Item;

#[derive(Debug)]
pub(crate) struct Sieve<'a> {
    bytes: Bytes<'a>,
    list: List,
    is_used: Vec<bool>,
    hand: Option<u32>,
}

impl<'a> Sieve<'a> {
    pub(crate) fn new(items: &'a [Item], capacity_bytes: u64) -> Self {
        let (list, is_used) = (List::new(items.len()), vec![false; items.len()]);
        Self { bytes: Bytes::new(items, capacity_bytes), list, is_used, hand: None }
    }

    fn victim(&mut self) -> Option<u32> {
        loop {
            let item = self.hand.or_else(|| self.list.back())?;
            self.hand = self.list.before(item);
            if !std::mem::take(&mut self.is_used[item as usize]) {
                return Some(item);
            }
        }
    }
}

impl Cache for Sieve<'_> {
    fn get(&mut self, item: u32, _time_ms: u64) -> bool {
        let is_there = self.list.contains(item);
        self.is_used[item as usize] |= is_there;
        is_there
    }

    fn put(&mut self, item: u32, _time_ms: u64) {
        if !self.bytes.could_keep(item) {
            return;
        }
        while self.bytes.lacks_room_for(item)
            && let Some(victim) = self.victim()
        {
            self.delete(victim);
        }
        self.list.push_front(item);
        self.is_used[item as usize] = false;
        self.bytes.add(item);
    }

    fn delete(&mut self, item: u32) {
        if self.list.contains(item) {
            if self.hand == Some(item) {
                self.hand = self.list.before(item);
            }
            self.list.remove(item);
            self.bytes.subtract(item);
        }
    }
}
