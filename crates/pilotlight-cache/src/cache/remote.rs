//! A cache of objects.

use super::Cache;
use crate::{Entry, Key, Operation, Outcome, Result, Serde, When};

/// A cache of objects: [`Cache`] with a serde, as `torch._inductor.remote_cache.RemoteCache`.
#[derive(Debug)]
pub struct RemoteCache<S> {
    cache: Cache,
    serde: S,
}

impl<S: Serde> RemoteCache<S> {
    /// Objects of `serde` in `cache`.
    pub fn new(cache: Cache, serde: S) -> Self {
        Self { cache, serde }
    }

    /// The cache below, for its counters.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The object under `key`: opens a sample, fetches, decodes, counts a hit or a miss, logs the sample.
    ///
    /// # Errors
    /// The backend's or the serde's, counted as an exception and with its text as the sample's `fail_reason`.
    pub async fn get(&self, key: &Key) -> Result<Option<S::Object>> {
        self.cache
            .get_decoded(std::slice::from_ref(key), None, |found| self.serde.decode(found.entry.artifact))
            .await
            .pop()
            .unwrap_or(Ok(None))
    }

    /// Stores `object` under `key`.
    ///
    /// # Errors
    /// The serde's, or the backend's, counted as an exception and with its text as the sample's `fail_reason`.
    pub async fn put(&self, key: &Key, object: &S::Object) -> Result<()> {
        let artifact = match self.serde.encode(object) {
            Ok(artifact) => artifact,
            Err(error) => {
                let sample = self.cache.open_sample(key, Operation::Put);
                self.cache.log_sample(sample, Some(Outcome::Exception), None, 0, Some(&error));
                self.cache.stats.count(key.kind(), Outcome::Exception);
                return Err(error);
            }
        };
        self.cache.put(key, Entry::new(artifact), When::Always).await.map(|_| ())
    }
}
