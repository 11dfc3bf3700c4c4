//! Entries in this process' memory: for tests, examples and short-lived servers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use pilotlight_store::{Clock, SystemClock};

use crate::{
    Backend, Cursor, Entry, Error, Found, Head, Key, Namespace, Page, Put, Result, Usage, Version, When,
};

/// Keeps entries in memory, up to a bound in bytes: a put beyond it is refused as `Full`. Nothing is evicted.
#[derive(Debug)]
pub struct MemoryBackend {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    bound_bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Ordered by hash, so that a cursor is a place that stays meaningful while entries come and go.
    entries: BTreeMap<(u64, Namespace, Bytes), Kept>,
    last_version: u64,
    stored_bytes: u64,
    expired: u64,
}

#[derive(Debug, Clone)]
struct Kept {
    entry: Entry,
    version: Version,
    accessed_ms: u64,
    hits: u32,
}

impl MemoryBackend {
    /// Keeps at most `bound_bytes` of keys and artifacts.
    #[must_use]
    pub fn new(bound_bytes: u64) -> Self {
        Self::with_clock(bound_bytes, Arc::new(SystemClock))
    }

    /// The same with another clock, for tests.
    #[must_use]
    pub fn with_clock(bound_bytes: u64, clock: Arc<dyn Clock>) -> Self {
        Self { state: Mutex::default(), clock, bound_bytes }
    }
}

impl State {
    /// The live entry under `key`; an expired one is dropped on the way.
    fn live(&mut self, key: &Key, now_ms: u64) -> Option<&mut Kept> {
        let place = place(key);
        if self.entries.get(&place)?.is_expired(now_ms) {
            self.remove(&place);
            self.expired += 1;
            return None;
        }
        self.entries.get_mut(&place)
    }

    fn remove(&mut self, place: &(u64, Namespace, Bytes)) -> bool {
        let removed = self.entries.remove(place);
        if let Some(kept) = &removed {
            self.stored_bytes -= size(place.2.len(), &kept.entry);
        }
        removed.is_some()
    }
}

impl Kept {
    fn is_expired(&self, now_ms: u64) -> bool {
        self.entry.metadata.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms)
    }

    fn head(&self, key_len: usize) -> Head {
        Head {
            version: self.version,
            artifact_len: self.entry.artifact.len(),
            stored_bytes: size(key_len, &self.entry),
            created_ms: self.entry.metadata.created_ms,
            expires_ms: self.entry.metadata.expires_ms,
            accessed_ms: self.accessed_ms,
            hits: self.hits,
            compile_ms: self.entry.metadata.compile_ms,
            is_pinned: false,
            group: None,
        }
    }
}

/// Whether a write may take place, given what is there.
pub(crate) fn holds(when: When, current: Option<Version>) -> bool {
    match when {
        When::Always => true,
        When::Absent => current.is_none(),
        When::Present => current.is_some(),
        When::Version(expected) => current == Some(expected),
    }
}

fn place(key: &Key) -> (u64, Namespace, Bytes) {
    // 0 is the cursor's start and end: no entry stands there.
    (key.log_hash().max(1), key.namespace().clone(), key.bytes().clone())
}

fn size(key_len: usize, entry: &Entry) -> u64 {
    key_len as u64 + entry.artifact.len()
}

#[async_trait]
impl Backend for MemoryBackend {
    fn name(&self) -> &'static str {
        "MemoryBackend"
    }

    async fn get_many(&self, keys: &[Key]) -> Vec<Result<Option<Found>>> {
        let now_ms = self.clock.now_ms();
        let mut state = self.state.lock();
        keys.iter()
            .map(|key| {
                Ok(state.live(key, now_ms).map(|kept| {
                    kept.accessed_ms = now_ms;
                    kept.hits = kept.hits.saturating_add(1);
                    Found { entry: kept.entry.clone(), version: kept.version, tier: 0 }
                }))
            })
            .collect()
    }

    async fn head(&self, key: &Key) -> Result<Option<Head>> {
        let now_ms = self.clock.now_ms();
        Ok(self.state.lock().live(key, now_ms).map(|kept| kept.head(key.bytes().len())))
    }

    async fn touch(&self, key: &Key) -> Result<Option<Head>> {
        let now_ms = self.clock.now_ms();
        Ok(self.state.lock().live(key, now_ms).map(|kept| {
            kept.accessed_ms = now_ms;
            kept.hits = kept.hits.saturating_add(1);
            kept.head(key.bytes().len())
        }))
    }

    async fn put(&self, key: &Key, mut entry: Entry, when: When) -> Result<Put> {
        let now_ms = self.clock.now_ms();
        let mut state = self.state.lock();
        let current = state.live(key, now_ms);
        if !holds(when, current.as_ref().map(|kept| kept.version)) {
            return Ok(Put::Unmet);
        }
        let replaced_bytes = current.map_or(0, |kept| size(key.bytes().len(), &kept.entry));
        let added_bytes = size(key.bytes().len(), &entry);
        let stored_bytes = state.stored_bytes - replaced_bytes + added_bytes;
        if stored_bytes > self.bound_bytes {
            return Err(Error::Full { needed_bytes: added_bytes, bound_bytes: self.bound_bytes });
        }
        if entry.metadata.created_ms == 0 {
            entry.metadata.created_ms = now_ms;
        }
        state.stored_bytes = stored_bytes;
        state.last_version += 1;
        let version = Version(state.last_version);
        state.entries.insert(place(key), Kept { entry, version, accessed_ms: now_ms, hits: 0 });
        Ok(Put::Stored(version))
    }

    async fn stage(&self, key: &Key, entry: Entry, when: When) -> Result<Put> {
        self.put(key, entry, when).await
    }

    async fn settle_many(&self, versions: &[Version]) -> Vec<Result<()>> {
        versions.iter().map(|_| Ok(())).collect()
    }

    async fn set_expiry(&self, key: &Key, expires_ms: Option<u64>, when: When) -> Result<Put> {
        let now_ms = self.clock.now_ms();
        let mut state = self.state.lock();
        state.last_version += 1;
        let version = Version(state.last_version);
        match state.live(key, now_ms) {
            Some(kept) if holds(when, Some(kept.version)) => {
                kept.entry.metadata.expires_ms = expires_ms;
                kept.version = version;
                Ok(Put::Stored(version))
            }
            _ => Ok(Put::Unmet),
        }
    }

    async fn delete(&self, key: &Key, when: When) -> Result<bool> {
        let now_ms = self.clock.now_ms();
        let mut state = self.state.lock();
        let current = state.live(key, now_ms).map(|kept| kept.version);
        Ok(holds(when, current) && state.remove(&place(key)))
    }

    async fn scan(&self, namespace: &Namespace, cursor: Cursor, limit: usize) -> Result<Page> {
        let now_ms = self.clock.now_ms();
        let state = self.state.lock();
        let mut page = Page::default();
        for ((hash, space, bytes), kept) in
            state.entries.range((cursor.0, Namespace::default(), Bytes::new())..)
        {
            // A page ends between two hashes, never inside one: the cursor could not tell where.
            if page.keys.len() >= limit.max(1) && page.next.0 != *hash {
                page.next = Cursor(*hash);
                return Ok(page);
            }
            page.next = Cursor(*hash);
            if space == namespace && !kept.is_expired(now_ms) {
                page.keys.push((Key::in_namespace(space.clone(), bytes.clone()), kept.head(bytes.len())));
            }
        }
        page.next = Cursor::START;
        Ok(page)
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64> {
        let now_ms = self.clock.now_ms();
        let mut state = self.state.lock();
        let State { entries, stored_bytes, .. } = &mut *state;
        let mut cleared = 0;
        entries.retain(|(_, space, bytes), kept| {
            if space != namespace {
                return true;
            }
            cleared += u64::from(!kept.is_expired(now_ms));
            *stored_bytes -= size(bytes.len(), &kept.entry);
            false
        });
        Ok(cleared)
    }

    async fn usage(&self, namespace: Option<&Namespace>) -> Result<Usage> {
        let now_ms = self.clock.now_ms();
        let state = self.state.lock();
        let mut usage =
            Usage { bound_bytes: Some(self.bound_bytes), expired: state.expired, ..Usage::default() };
        for ((_, space, bytes), kept) in &state.entries {
            if namespace.is_none_or(|wanted| wanted == space) && !kept.is_expired(now_ms) {
                usage.entries += 1;
                usage.logical_bytes += kept.entry.artifact.len();
                usage.stored_bytes += size(bytes.len(), &kept.entry);
            }
        }
        Ok(usage)
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(feature = "origin")]
#[async_trait]
impl crate::Peek for MemoryBackend {
    async fn peek(&self, key: &Key) -> Result<Option<Found>> {
        let now_ms = self.clock.now_ms();
        let mut state = self.state.lock();
        let found = state.live(key, now_ms);
        Ok(found.map(|kept| Found { entry: kept.entry.clone(), version: kept.version, tier: 0 }))
    }
}

impl fmt::Display for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory({} MiB)", self.bound_bytes >> 20)
    }
}
