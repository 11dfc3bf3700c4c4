//! When which entries expire.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::index::{SHARD_BITS, shard_of};

/// A note that an entry expires, in 16 bytes: what is kept of its hash finds it in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Expiry {
    /// When, in milliseconds since the Unix epoch, and in the lower bits the entry's shard.
    time_and_shard: u64,
    half: u64,
}

/// What is left for the time: half a million years.
const TIME_MAX: u64 = (1 << (u64::BITS - SHARD_BITS)) - 1;

impl Expiry {
    pub(crate) fn of(expires_ms: u64, hash: u128) -> Self {
        let time = expires_ms.min(TIME_MAX);
        Self { time_and_shard: time << SHARD_BITS | shard_of(hash) as u64, half: hash as u64 }
    }

    fn expires_ms(self) -> u64 {
        self.time_and_shard >> SHARD_BITS
    }

    pub(crate) fn shard(self) -> usize {
        (self.time_and_shard & ((1 << SHARD_BITS) - 1)) as usize
    }

    /// The lower half of the entry's hash.
    pub(crate) fn half(self) -> u64 {
        self.half
    }
}

/// The notes, the next to expire first.
#[derive(Debug, Default)]
pub(crate) struct Expiries(BinaryHeap<Reverse<Expiry>>);

impl Expiries {
    pub(crate) fn push(&mut self, expiry: Expiry) {
        // By an eighth at a time: a doubling would leave up to half of it unused.
        if self.0.len() == self.0.capacity() {
            self.0.reserve_exact(8 + self.0.len() / 8);
        }
        self.0.push(Reverse(expiry));
    }

    /// The next note whose time has come.
    pub(crate) fn pop_due(&mut self, now_ms: u64) -> Option<Expiry> {
        self.0.peek().filter(|Reverse(next)| next.expires_ms() <= now_ms)?;
        let next = self.0.pop();
        if self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to(self.0.len() * 2);
        }
        next.map(|Reverse(next)| next)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn clear(&mut self) {
        self.0 = BinaryHeap::new();
    }

    pub(crate) fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_expires_first_comes_first_and_nothing_comes_before_its_time() {
        let hash = |number: u128| number << 118 | 1 << 64 | number;
        let mut expiries = Expiries::default();
        for number in (0..1000).rev() {
            expiries.push(Expiry::of(5000 + number as u64 % 100, hash(number)));
        }
        expiries.push(Expiry::of(u64::MAX, hash(7)));
        assert_eq!(expiries.pop_due(4999), None);
        let due: Vec<_> = std::iter::from_fn(|| expiries.pop_due(5049)).collect();
        assert_eq!(due.len(), 500);
        assert!(due.is_sorted_by_key(|expiry| expiry.expires_ms()));
        assert!(due.iter().all(|expiry| expiry.shard() as u64 == expiry.half()));
        assert_eq!(std::iter::from_fn(|| expiries.pop_due(u64::MAX >> 11)).count(), 500);
        assert_eq!(expiries.len(), 1, "half a million years are not over");
    }
}
