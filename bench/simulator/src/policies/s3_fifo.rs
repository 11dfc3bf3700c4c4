//! S3-FIFO (Yang and others, SOSP 2023): a small queue that most leave soon, a main queue for what was used twice in it, and a
//! memory of who left it lately.
#![expect(clippy::indexing_slicing, reason = "items are numbered from 0, and there is a counter for each")]

use super::list::List;
use super::{Bytes, Cache};
use crate::trace::Item;

/// The small queue's share of the bytes.
const SMALL_SHARE: u64 = 10;
/// Uses are counted up to this.
const USES_MAX: u8 = 3;
/// Uses in the small queue that lead into the main one.
const USES_TO_STAY: u8 = 2;

#[derive(Debug)]
pub(crate) struct S3Fifo<'a> {
    bytes: Bytes<'a>,
    small: List,
    small_bytes: u64,
    main: List,
    /// As many bytes as the main queue may hold.
    ghosts: List,
    ghost_bytes: u64,
    uses: Vec<u8>,
}

impl<'a> S3Fifo<'a> {
    pub(crate) fn new(items: &'a [Item], capacity_bytes: u64) -> Self {
        let list = || List::new(items.len());
        Self {
            bytes: Bytes::new(items, capacity_bytes),
            small: list(),
            small_bytes: 0,
            main: list(),
            ghosts: list(),
            ghost_bytes: 0,
            uses: vec![0; items.len()],
        }
    }

    fn make_room(&mut self) {
        let is_small_full = self.small_bytes > self.bytes.capacity / SMALL_SHARE;
        if is_small_full || self.main.back().is_none() { self.leave_small() } else { self.leave_main() }
    }

    fn leave_small(&mut self) {
        let Some(item) = self.small.back() else { return };
        self.small.remove(item);
        self.small_bytes -= self.bytes.of(item);
        if self.uses[item as usize] >= USES_TO_STAY {
            self.uses[item as usize] = 0;
            self.main.push_front(item);
            return;
        }
        self.bytes.subtract(item);
        self.ghosts.push_front(item);
        self.ghost_bytes += self.bytes.of(item);
        while self.ghost_bytes > self.bytes.capacity - self.bytes.capacity / SMALL_SHARE
            && let Some(ghost) = self.ghosts.back()
        {
            self.forget(ghost);
        }
    }

    fn leave_main(&mut self) {
        while let Some(item) = self.main.back() {
            self.main.remove(item);
            if self.uses[item as usize] == 0 {
                self.bytes.subtract(item);
                return;
            }
            self.uses[item as usize] -= 1;
            self.main.push_front(item);
        }
    }

    fn forget(&mut self, ghost: u32) {
        self.ghosts.remove(ghost);
        self.ghost_bytes -= self.bytes.of(ghost);
    }
}

impl Cache for S3Fifo<'_> {
    fn get(&mut self, item: u32, _time_ms: u64) -> bool {
        let is_there = self.small.contains(item) || self.main.contains(item);
        if is_there {
            self.uses[item as usize] = (self.uses[item as usize] + 1).min(USES_MAX);
        }
        is_there
    }

    fn put(&mut self, item: u32, _time_ms: u64) {
        if !self.bytes.could_keep(item) {
            return;
        }
        // Asked before room is made: what is forgotten for its sake may be itself.
        let is_ghost = self.ghosts.contains(item);
        if is_ghost {
            self.forget(item);
        }
        while self.bytes.lacks_room_for(item) {
            self.make_room();
        }
        self.uses[item as usize] = 0;
        self.bytes.add(item);
        if is_ghost {
            self.main.push_front(item);
        } else {
            self.small.push_front(item);
            self.small_bytes += self.bytes.of(item);
        }
    }

    fn delete(&mut self, item: u32) {
        if self.small.contains(item) {
            self.small.remove(item);
            self.small_bytes -= self.bytes.of(item);
            self.bytes.subtract(item);
        } else if self.main.contains(item) {
            self.main.remove(item);
            self.bytes.subtract(item);
        }
    }
}
