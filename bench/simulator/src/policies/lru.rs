//! Least recently used.

use super::list::List;
use super::{Bytes, Cache};
use crate::trace::Item;

#[derive(Debug)]
pub(crate) struct Lru<'a> {
    bytes: Bytes<'a>,
    list: List,
}

impl<'a> Lru<'a> {
    pub(crate) fn new(items: &'a [Item], capacity_bytes: u64) -> Self {
        Self { bytes: Bytes::new(items, capacity_bytes), list: List::new(items.len()) }
    }
}

impl Cache for Lru<'_> {
    fn get(&mut self, item: u32, _time_ms: u64) -> bool {
        let is_there = self.list.contains(item);
        if is_there {
            self.list.remove(item);
            self.list.push_front(item);
        }
        is_there
    }

    fn put(&mut self, item: u32, _time_ms: u64) {
        if !self.bytes.could_keep(item) {
            return;
        }
        while self.bytes.lacks_room_for(item)
            && let Some(victim) = self.list.back()
        {
            self.delete(victim);
        }
        self.list.push_front(item);
        self.bytes.add(item);
    }

    fn delete(&mut self, item: u32) {
        if self.list.contains(item) {
            self.list.remove(item);
            self.bytes.subtract(item);
        }
    }
}
