//! The policies: each a cache of items by number, bounded in bytes.

mod gdsf;
mod list;
mod lru;
mod on_disk;
mod ours;
mod s3_fifo;
mod sieve;

pub(crate) use self::on_disk::OnDisk;
use crate::trace::Item;

/// A cache under simulation. It knows items by number; their sizes and costs are the trace's.
pub(crate) trait Cache {
    /// Asks for an item; says whether it is there.
    fn get(&mut self, item: u32, time_ms: u64) -> bool;
    /// Keeps an item that is not there, for which others leave. One that is larger than the cache is not kept.
    fn put(&mut self, item: u32, time_ms: u64);
    /// Lets go of an item on request.
    fn delete(&mut self, item: u32);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Lru,
    Sieve,
    S3Fifo,
    Gdsf,
    Ours,
}

impl Policy {
    pub(crate) const ALL: [Self; 5] = [Self::Lru, Self::Sieve, Self::S3Fifo, Self::Gdsf, Self::Ours];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lru => "LRU",
            Self::Sieve => "SIEVE",
            Self::S3Fifo => "S3-FIFO",
            Self::Gdsf => "GDSF",
            Self::Ours => "ours",
        }
    }

    pub(crate) fn cache(self, items: &[Item], capacity_bytes: u64) -> Box<dyn Cache + '_> {
        match self {
            Self::Lru => Box::new(lru::Lru::new(items, capacity_bytes)),
            Self::Sieve => Box::new(sieve::Sieve::new(items, capacity_bytes)),
            Self::S3Fifo => Box::new(s3_fifo::S3Fifo::new(items, capacity_bytes)),
            Self::Gdsf => Box::new(gdsf::Gdsf::new(items, capacity_bytes)),
            Self::Ours => Box::new(ours::Ours::new(items, capacity_bytes)),
        }
    }
}

/// Who takes how many bytes.
#[derive(Debug)]
struct Bytes<'a> {
    items: &'a [Item],
    used: u64,
    capacity: u64,
}

impl<'a> Bytes<'a> {
    fn new(items: &'a [Item], capacity: u64) -> Self {
        Self { items, used: 0, capacity }
    }

    fn of(&self, item: u32) -> u64 {
        self.items.get(item as usize).map_or(0, |item| u64::from(item.size_bytes))
    }

    /// Whether an empty cache could keep the item.
    fn could_keep(&self, item: u32) -> bool {
        (1..=self.capacity).contains(&self.of(item))
    }

    /// Whether something must leave before the item fits.
    fn lacks_room_for(&self, item: u32) -> bool {
        self.used + self.of(item) > self.capacity
    }

    fn add(&mut self, item: u32) {
        self.used += self.of(item);
    }

    fn subtract(&mut self, item: u32) {
        self.used -= self.of(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(sizes: &[u32]) -> Vec<Item> {
        let item = |(key, size_bytes): (usize, &u32)| Item {
            key: key as u64,
            size_bytes: *size_bytes,
            cost_ms: 100,
            group: 0,
        };
        sizes.iter().enumerate().map(item).collect()
    }

    #[test]
    fn every_policy_keeps_its_bound_and_what_it_says_it_keeps() {
        let sizes: Vec<u32> = (0..200).map(|number| 1 + number * 37 % 500).collect();
        let items = items(&sizes);
        for policy in Policy::ALL {
            let mut cache = policy.cache(&items, 5000);
            for step in 0..5000u64 {
                let item = (step * step % 199) as u32;
                if !cache.get(item, step) {
                    cache.put(item, step);
                    assert!(cache.get(item, step), "{}: what was just put is there", policy.name());
                }
                if step % 17 == 0 {
                    cache.delete(item);
                    assert!(!cache.get(item, step), "{}", policy.name());
                }
            }
            let kept: u64 = (0..200)
                .filter(|item| cache.get(*item, 5000))
                .map(|item| u64::from(sizes[item as usize]))
                .sum();
            assert!((4000..=5000).contains(&kept), "{}: {kept} bytes kept", policy.name());
        }
    }

    #[test]
    fn what_is_larger_than_the_cache_takes_nobodys_place() {
        let items = items(&[10, 10, 100]);
        for policy in Policy::ALL {
            let mut cache = policy.cache(&items, 50);
            (0..3).for_each(|item| cache.put(item, 0));
            assert_eq!([0, 1, 2].map(|item| cache.get(item, 1)), [true, true, false], "{}", policy.name());
        }
    }
}
