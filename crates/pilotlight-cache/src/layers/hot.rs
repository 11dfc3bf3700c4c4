//! The memory tier: hot entries, whole and ready to send, in front of a local backend.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use quick_cache::Weighter;

use crate::{
    Backend, BackendExt, Cursor, Entry, Found, Head, Key, Namespace, Page, Put, Result, Usage, Version, When,
};

/// A bounded memory tier over a backend whose [`Backend::touch`] is cheap.
///
/// Every hit is checked against the inner backend's version of the entry, which is a look into memory for the disk
/// store. So the tier can never answer with an entry that was overwritten, deleted, expired or evicted below, whatever
/// order threads finish in, and the store's hit counts stay true. What is absent here: any invalidation message.
#[derive(Debug)]
pub struct Hot {
    inner: Arc<dyn Backend>,
    entries: quick_cache::sync::Cache<Key, (Version, Entry), ByBytes>,
    bound_bytes: u64,
}

/// What an entry costs in the tier: its bytes and about what the maps keep besides.
#[derive(Debug, Clone)]
struct ByBytes;

const OVERHEAD_BYTES: u64 = 192;

impl Weighter<Key, (Version, Entry)> for ByBytes {
    fn weight(&self, key: &Key, (_, entry): &(Version, Entry)) -> u64 {
        weight(key, entry)
    }
}

fn weight(key: &Key, entry: &Entry) -> u64 {
    key.bytes().len() as u64 + entry.artifact.kept_bytes() + OVERHEAD_BYTES
}

impl Hot {
    /// Keeps up to `bound_bytes` of `inner`'s entries in memory.
    pub fn new(inner: Arc<dyn Backend>, bound_bytes: u64) -> Self {
        // The estimate only sizes the maps; 64 KiB is small for a compile-cache entry and large for anything else.
        let estimated_entries =
            usize::try_from(bound_bytes / (64 << 10)).unwrap_or(usize::MAX).clamp(64, 1 << 20);
        let entries = quick_cache::sync::Cache::with_weighter(estimated_entries, bound_bytes, ByBytes);
        Self { inner, entries, bound_bytes }
    }

    fn keep(&self, key: &Key, entry: Entry, version: Version) {
        // One entry may not push out most of the tier.
        if weight(key, &entry) <= self.bound_bytes / 4 {
            self.entries.insert(key.clone(), (version, entry));
        }
    }

    async fn get_one(&self, key: &Key) -> Result<Option<Found>> {
        let Some((version, entry)) = self.entries.get(key) else {
            return self.get_inner(key).await;
        };
        match self.inner.touch(key).await? {
            Some(head) if head.version == version => {
                let mut found = Found { entry, version, tier: 0 };
                // The producer's copy does not know yet when the backend put it.
                found.entry.metadata.created_ms = head.created_ms;
                Ok(Some(found))
            }
            Some(_) => self.get_inner(key).await,
            // What the next tier has lost, one behind it may have.
            None => {
                self.entries.remove(key);
                self.get_inner(key).await
            }
        }
    }

    async fn get_inner(&self, key: &Key) -> Result<Option<Found>> {
        let found = self.inner.get(key).await?;
        Ok(found.map(|found| {
            self.keep(key, found.entry.clone(), found.version);
            Found { tier: found.tier + 1, ..found }
        }))
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Backend for Hot {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn get_many(&self, keys: &[Key]) -> Vec<Result<Option<Found>>> {
        // The inner backend is local, so asking it key by key costs no round trip.
        let mut answers = Vec::with_capacity(keys.len());
        for key in keys {
            answers.push(self.get_one(key).await);
        }
        answers
    }

    async fn head(&self, key: &Key) -> Result<Option<Head>> {
        self.inner.head(key).await
    }

    async fn touch(&self, key: &Key) -> Result<Option<Head>> {
        self.inner.touch(key).await
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<Put> {
        // What is put is not hot yet: most entries are asked for later or never, and a herd's first get brings one in. An
        // older copy stays until it is found stale or pushed out.
        self.inner.put(key, entry, when).await
    }

    async fn stage(&self, key: &Key, entry: Entry, when: When) -> Result<Put> {
        self.inner.stage(key, entry, when).await
    }

    async fn settle_many(&self, versions: &[Version]) -> Vec<Result<()>> {
        self.inner.settle_many(versions).await
    }

    async fn set_expiry(&self, key: &Key, expires_ms: Option<u64>, when: When) -> Result<Put> {
        self.inner.set_expiry(key, expires_ms, when).await
    }

    async fn delete(&self, key: &Key, when: When) -> Result<bool> {
        let deleted = self.inner.delete(key, when).await?;
        if deleted {
            self.entries.remove(key);
        }
        Ok(deleted)
    }

    async fn scan(&self, namespace: &Namespace, cursor: Cursor, limit: usize) -> Result<Page> {
        self.inner.scan(namespace, cursor, limit).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64> {
        let cleared = self.inner.clear(namespace).await?;
        // Entries of other namespaces are fetched again on their next get; a scan of the tier would cost more.
        self.entries.clear();
        Ok(cleared)
    }

    async fn usage(&self, namespace: Option<&Namespace>) -> Result<Usage> {
        self.inner.usage(namespace).await
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }
}

impl fmt::Display for Hot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hot({} MiB, {})", self.bound_bytes >> 20, self.inner)
    }
}
