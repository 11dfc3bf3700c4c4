//! What a node remembers of an origin: a little, for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::MutexGuard;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::origin::Tag;
use crate::{Key, Namespace};

/// Keys that are remembered, of each sort: some 4 MB.
const REMEMBERED: usize = 1 << 16;
/// A put holds one while the disk writes: few of them share one by chance.
const LOCKS: usize = 256;

/// Two keys that come to one number cost a lookup more, or one less of what a moment later is looked up all the same.
fn number(key: &Key) -> u64 {
    xxh3_64_with_seed(key.bytes(), xxh3_64(key.namespace().as_str().as_bytes()))
}

/// When something was noted of a key.
#[derive(Debug)]
pub(super) struct Marks(quick_cache::sync::Cache<u64, u64>);

impl Default for Marks {
    fn default() -> Self {
        Self(quick_cache::sync::Cache::new(REMEMBERED))
    }
}

impl Marks {
    /// Whether something was noted within the last `span`.
    pub(super) fn is_marked(&self, key: &Key, now_ms: u64, span: Duration) -> bool {
        !span.is_zero()
            && self
                .0
                .get(&number(key))
                .is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < span.as_millis() as u64)
    }

    /// Notes it, if it was not within the last `span`; says whether it did.
    pub(super) fn mark(&self, key: &Key, now_ms: u64, span: Duration) -> bool {
        let is_news = !self.is_marked(key, now_ms, span);
        if is_news {
            self.0.insert(number(key), now_ms);
        }
        is_news
    }

    pub(super) fn forget(&self, key: &Key) {
        self.0.remove(&number(key));
    }
}

/// When an entry was last compared with its object, and which object that was.
#[derive(Debug)]
pub(crate) struct Fresh(quick_cache::sync::Cache<u64, (u64, Option<Tag>)>);

impl Default for Fresh {
    fn default() -> Self {
        Self(quick_cache::sync::Cache::new(REMEMBERED))
    }
}

impl Fresh {
    pub(crate) fn note(&self, key: &Key, tag: Option<Tag>, now_ms: u64) {
        self.0.insert(number(key), (now_ms, tag));
    }

    pub(super) fn is_due(&self, key: &Key, now_ms: u64, after: Duration) -> bool {
        let compared = self.0.get(&number(key));
        compared.is_none_or(|(at_ms, _)| now_ms.saturating_sub(at_ms) >= after.as_millis() as u64)
    }

    pub(super) fn tag(&self, key: &Key) -> Option<Tag> {
        self.0.get(&number(key))?.1
    }
}

/// Fetches under way, and whether a write of this node overtook them.
#[derive(Debug)]
pub(super) struct Overtaken {
    fetches: Mutex<HashMap<Key, Vec<Arc<AtomicBool>>>>,
    /// How many there are, for writes, which mostly come when there are none.
    count: AtomicUsize,
    /// A promotion and a deletion of one key wait for each other.
    locks: Vec<tokio::sync::Mutex<()>>,
}

impl Default for Overtaken {
    fn default() -> Self {
        let locks = std::iter::repeat_with(tokio::sync::Mutex::default).take(LOCKS).collect();
        Self { fetches: Mutex::default(), count: AtomicUsize::new(0), locks }
    }
}

/// A fetch of one key.
#[derive(Debug)]
pub(super) struct Fetch<'a> {
    of: &'a Overtaken,
    key: &'a Key,
    is_overtaken: Arc<AtomicBool>,
}

impl Fetch<'_> {
    pub(super) fn is_overtaken(&self) -> bool {
        self.is_overtaken.load(Ordering::Acquire)
    }
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        let mut fetches = self.of.fetches.lock();
        if let Some(of_key) = fetches.get_mut(self.key) {
            of_key.retain(|other| !Arc::ptr_eq(other, &self.is_overtaken));
            if of_key.is_empty() {
                fetches.remove(self.key);
            }
        }
        self.of.count.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Overtaken {
    pub(super) fn begin<'a>(&'a self, key: &'a Key) -> Fetch<'a> {
        let is_overtaken = Arc::new(AtomicBool::new(false));
        let mut fetches = self.fetches.lock();
        self.count.fetch_add(1, Ordering::AcqRel);
        fetches.entry(key.clone()).or_default().push(is_overtaken.clone());
        Fetch { of: self, key, is_overtaken }
    }

    /// A write of `key` took place.
    pub(super) fn by_write(&self, key: &Key) {
        if self.count.load(Ordering::Acquire) > 0
            && let Some(of_key) = self.fetches.lock().get(key)
        {
            of_key.iter().for_each(|fetch| fetch.store(true, Ordering::Release));
        }
    }

    /// All of a namespace was deleted.
    pub(super) fn by_clear(&self, namespace: &Namespace) {
        for (_, of_key) in self.fetches.lock().iter().filter(|(key, _)| key.namespace() == namespace) {
            of_key.iter().for_each(|fetch| fetch.store(true, Ordering::Release));
        }
    }

    pub(super) async fn lock(&self, key: &Key) -> Option<MutexGuard<'_, ()>> {
        let lock = self.locks.get(number(key) as usize % LOCKS)?;
        Some(lock.lock().await)
    }

    /// In order, so that two of these cannot wait for each other.
    pub(super) async fn lock_all(&self) -> Vec<MutexGuard<'_, ()>> {
        let mut all = Vec::with_capacity(LOCKS);
        for lock in &self.locks {
            all.push(lock.lock().await);
        }
        all
    }
}
