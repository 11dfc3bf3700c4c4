//! A doubly linked list of item numbers, without allocation in use.
#![expect(clippy::indexing_slicing, reason = "items are numbered from 0, and the list has a place for each")]

const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct List {
    /// Towards the front and towards the back.
    links: Vec<(u32, u32)>,
    is_in: Vec<bool>,
    front: u32,
    back: u32,
}

impl List {
    pub(crate) fn new(items: usize) -> Self {
        Self { links: vec![(NONE, NONE); items], is_in: vec![false; items], front: NONE, back: NONE }
    }

    pub(crate) fn contains(&self, item: u32) -> bool {
        self.is_in[item as usize]
    }

    pub(crate) fn push_front(&mut self, item: u32) {
        self.links[item as usize] = (NONE, self.front);
        match self.front {
            NONE => self.back = item,
            front => self.links[front as usize].0 = item,
        }
        self.front = item;
        self.is_in[item as usize] = true;
    }

    pub(crate) fn remove(&mut self, item: u32) {
        let (before, behind) = self.links[item as usize];
        match before {
            NONE => self.front = behind,
            before => self.links[before as usize].1 = behind,
        }
        match behind {
            NONE => self.back = before,
            behind => self.links[behind as usize].0 = before,
        }
        self.is_in[item as usize] = false;
    }

    pub(crate) fn back(&self) -> Option<u32> {
        some(self.back)
    }

    /// The neighbour towards the front.
    pub(crate) fn before(&self, item: u32) -> Option<u32> {
        some(self.links[item as usize].0)
    }
}

fn some(item: u32) -> Option<u32> {
    (item != NONE).then_some(item)
}
