//! Notes every use of a backend, so that what eviction would make of it can be simulated.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Backend, Cursor, Entry, Found, Head, Key, Namespace, Page, Put, Result, Usage, Version, When, backends,
};

/// What was done with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It was asked for, and may not have been there.
    Get,
    /// It was stored.
    Put,
    /// It was deleted by request.
    Delete,
}

/// One use of an entry, as a trace of them has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// What was done.
    pub done: Use,
    /// [`Key::log_hash`]: a trace names no keys.
    pub key_hash: u64,
    /// What it takes where it is kept, in bytes; 0 when unknown, as of a miss.
    pub stored_bytes: u64,
    /// What it cost to compile, in milliseconds; 0 when unknown.
    pub compile_ms: u32,
    /// Whom it leaves with; 0 for nobody.
    pub group: u32,
}

/// Takes uses, in the order in which they happen.
pub trait TraceSink: Send + Sync + fmt::Debug {
    /// Notes one. Called for each operation, on threads that must not wait.
    fn note(&self, used: Used);
}

/// A backend whose uses are noted. Behind a memory tier, which tells the backend of each of its hits, and in front of the
/// backend that evicts.
///
/// A clear is not noted: a trace knows no namespaces.
#[derive(Debug)]
pub struct Recorder {
    inner: Arc<dyn Backend>,
    sink: Arc<dyn TraceSink>,
}

impl Recorder {
    /// Notes what is done with `inner`'s entries in `sink`.
    pub fn new(inner: Arc<dyn Backend>, sink: Arc<dyn TraceSink>) -> Self {
        Self { inner, sink }
    }

    fn note(&self, done: Use, key: &Key, head: Option<&Head>) {
        self.sink.note(Used {
            done,
            key_hash: key.log_hash(),
            stored_bytes: head.map_or(0, |head| head.stored_bytes),
            compile_ms: head.map_or(0, |head| head.compile_ms),
            group: backends::group(key).map_or(0, std::num::NonZeroU32::get),
        });
    }

    async fn note_put(&self, key: &Key, put: &Result<Put>) {
        if let Ok(Put::Stored(_)) = put {
            let head = self.inner.head(key).await.ok().flatten();
            self.note(Use::Put, key, head.as_ref());
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Backend for Recorder {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn get_many(&self, keys: &[Key]) -> Vec<Result<Option<Found>>> {
        let answers = self.inner.get_many(keys).await;
        for (key, answer) in keys.iter().zip(&answers) {
            let is_there = matches!(answer, Ok(Some(_)));
            let head = if is_there { self.inner.head(key).await.ok().flatten() } else { None };
            self.note(Use::Get, key, head.as_ref());
        }
        answers
    }

    async fn head(&self, key: &Key) -> Result<Option<Head>> {
        self.inner.head(key).await
    }

    async fn touch(&self, key: &Key) -> Result<Option<Head>> {
        let answer = self.inner.touch(key).await;
        self.note(Use::Get, key, answer.as_ref().ok().and_then(Option::as_ref));
        answer
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<Put> {
        let put = self.inner.put(key, entry, when).await;
        self.note_put(key, &put).await;
        put
    }

    async fn stage(&self, key: &Key, entry: Entry, when: When) -> Result<Put> {
        let put = self.inner.stage(key, entry, when).await;
        self.note_put(key, &put).await;
        put
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
            self.note(Use::Delete, key, None);
        }
        Ok(deleted)
    }

    async fn scan(&self, namespace: &Namespace, cursor: Cursor, limit: usize) -> Result<Page> {
        self.inner.scan(namespace, cursor, limit).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64> {
        self.inner.clear(namespace).await
    }

    async fn usage(&self, namespace: Option<&Namespace>) -> Result<Usage> {
        self.inner.usage(namespace).await
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }
}

impl fmt::Display for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "recorded({})", self.inner)
    }
}
