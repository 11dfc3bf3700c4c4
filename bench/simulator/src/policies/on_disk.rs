//! Ours as a whole: the store itself, in a directory, with its log, its files and its thread that makes room ahead of need.
//!
//! It is given a bound under which it may fill as many bytes as the others; what it spends on blocks that are not full, on keys
//! and on what is dead in the log is its own to bear.
#![expect(clippy::indexing_slicing, reason = "items are numbered from 0")]

use std::path::Path;

use pilotlight_store::{Condition, Options, PutRequest, Store};

use super::Cache;
use crate::random::Random;
use crate::trace::Item;

/// What a record takes on top of its payload, about.
const RECORD_BYTES: u32 = 96;

/// A store takes no bound under which it may fill less.
const CAPACITY_MIN: u64 = 8 << 20;

pub(crate) struct OnDisk<'a> {
    items: &'a [Item],
    store: Store,
    /// Artifacts are its beginnings, each behind a stamp of its own.
    noise: Vec<u8>,
}

impl<'a> OnDisk<'a> {
    /// Whether a store can be so small.
    pub(crate) fn can_hold(capacity_bytes: u64) -> bool {
        capacity_bytes >= CAPACITY_MIN
    }

    /// A store in `dir`, which must be empty.
    pub(crate) fn new(items: &'a [Item], capacity_bytes: u64, dir: &Path) -> Result<Self, String> {
        let mut bound = capacity_bytes;
        while room(bound) < capacity_bytes {
            bound += bound / 128;
        }
        let store = Store::open(Options::new(dir, bound)).map_err(|error| error.to_string())?;
        let size_max = items.iter().map(|item| item.size_bytes as usize).max().unwrap_or(0);
        let mut random = Random::new(1);
        let noise = (0..=size_max / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        Ok(Self { items, store, noise })
    }
}

/// What a store with this bound may fill: see `space.rs` there.
fn room(bound: u64) -> u64 {
    let segment = (bound / 128).clamp(1 << 20, 128 << 20);
    bound.saturating_sub(segment + segment / 4 + (bound / 16).min(256 << 20))
}

impl Cache for OnDisk<'_> {
    fn get(&mut self, item: u32, _time_ms: u64) -> bool {
        self.store.touch(b"", &self.items[item as usize].key.to_le_bytes()).is_some()
    }

    fn put(&mut self, item: u32, _time_ms: u64) {
        let item = &self.items[item as usize];
        let key = item.key.to_le_bytes();
        let len = item.size_bytes.saturating_sub(RECORD_BYTES).max(8) as usize;
        self.noise[..8].copy_from_slice(&key);
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&key);
        let request = PutRequest {
            space: b"",
            key: &key,
            head: &[],
            payload: &self.noise[..len],
            digest: Some(digest),
            logical_len: item.size_bytes,
            cost_ms: item.cost_ms,
            created_ms: 1,
            expires_ms: None,
            group: None,
        };
        // Refused is as good as evicted at once.
        let _ = self.store.put(&request, Condition::Always);
    }

    fn delete(&mut self, item: u32) {
        let _ = self.store.delete(b"", &self.items[item as usize].key.to_le_bytes(), Condition::Always);
    }
}
