//! A backend of one's own: entries in a map, nothing else. Run with `cargo run --example own_backend`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use pilotlight_cache::{
    Backend, Cache, Cursor, Entry, Error, Found, Head, Key, Namespace, Page, PassthroughSerde, Put,
    RemoteCache, Result, Usage, Version, When,
};

/// The smallest useful backend: last writer wins, no expiry, no preconditions, nothing to list.
#[derive(Debug, Default)]
struct MapBackend(Mutex<HashMap<Key, (Version, Entry)>>);

#[async_trait::async_trait]
impl Backend for MapBackend {
    fn name(&self) -> &'static str {
        "MapBackend"
    }

    async fn get_many(&self, keys: &[Key]) -> Vec<Result<Option<Found>>> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found =
            |(version, entry): &(Version, Entry)| Found { entry: entry.clone(), version: *version, tier: 0 };
        keys.iter().map(|key| Ok(map.get(key).map(found))).collect()
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<Put> {
        if when != When::Always {
            return Err(Error::Unsupported { what: "a precondition".to_owned() });
        }
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let version = Version(map.values().map(|(version, _)| version.0).max().unwrap_or(0) + 1);
        map.insert(key.clone(), (version, entry));
        Ok(Put::Stored(version))
    }

    // There is no medium to spare: a staged put is a put.
    async fn stage(&self, key: &Key, entry: Entry, when: When) -> Result<Put> {
        self.put(key, entry, when).await
    }

    async fn settle_many(&self, versions: &[Version]) -> Vec<Result<()>> {
        versions.iter().map(|_| Ok(())).collect()
    }

    async fn delete(&self, key: &Key, _when: When) -> Result<bool> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key).is_some())
    }

    // What this backend cannot do, it says: a default that pretends would be found out in production.
    async fn head(&self, _key: &Key) -> Result<Option<Head>> {
        Err(Error::Unsupported { what: "head".to_owned() })
    }
    async fn touch(&self, _key: &Key) -> Result<Option<Head>> {
        Err(Error::Unsupported { what: "touch".to_owned() })
    }
    async fn set_expiry(&self, _key: &Key, _expires_ms: Option<u64>, _when: When) -> Result<Put> {
        Err(Error::Unsupported { what: "expiry".to_owned() })
    }
    async fn scan(&self, _namespace: &Namespace, _cursor: Cursor, _limit: usize) -> Result<Page> {
        Err(Error::Unsupported { what: "scan".to_owned() })
    }
    async fn clear(&self, _namespace: &Namespace) -> Result<u64> {
        Err(Error::Unsupported { what: "clear".to_owned() })
    }
    async fn usage(&self, _namespace: Option<&Namespace>) -> Result<Usage> {
        Ok(Usage::default())
    }
    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}

impl std::fmt::Display for MapBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("map")
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let cache = RemoteCache::new(Cache::new(Arc::new(MapBackend::default())), PassthroughSerde);
    let key = Key::new("pt2:fx-graph-v1::fabc:c1");
    assert_eq!(cache.get(&key).await?, None);
    cache.put(&key, &"a compiled graph".into()).await?;
    assert_eq!(cache.get(&key).await?, Some("a compiled graph".into()));
    assert_eq!(cache.cache().stats().snapshot().tier_hits[0], 1);
    Ok(())
}
