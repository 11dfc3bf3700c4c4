//! One fetch for all who ask: while an entry is on its way from a slow backend, whoever wants it too waits for that.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use async_trait::async_trait;
use futures_channel::oneshot;
use parking_lot::Mutex;

use crate::{
    Backend, Cursor, Entry, Error, Found, Head, Key, Namespace, Page, Put, Result, Usage, Version, When,
};

/// A backend that is asked once for what many want at the same time.
///
/// A get joins a fetch that is under way, unless its key was written since that began: so a get that begins after a put
/// sees it, whoever is still waiting for what was there before. A fetch that fails is everybody's failure, since each to try
/// by itself is what a backend in trouble needs least. A fetch whose caller gives up ends, and one of those who waited
/// fetches in its place.
///
/// Those who joined do not count as uses of the entry in the backend, only the fetch does. What is absent here: any bound
/// on the time of a fetch, which is the backend's or the caller's.
#[derive(Debug)]
pub struct Flight {
    inner: Arc<dyn Backend>,
    under_way: Mutex<HashMap<Key, Arc<Fetch>>>,
    joined: AtomicU64,
}

/// What a fetch brought, for each who waits for it.
type Brought = Result<Option<Found>, Shared>;

/// A fetch under way: who waits for it, or `None` when it has ended.
#[derive(Debug)]
struct Fetch(Mutex<Option<Vec<oneshot::Sender<Brought>>>>);

/// A failure that several share: of the same kind, with the same text.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
struct Shared(Arc<Error>);

impl From<Shared> for Error {
    fn from(shared: Shared) -> Self {
        Self::Backend { kind: shared.0.kind(), source: Box::new(shared) }
    }
}

/// What a get of one key is.
enum Part<'a> {
    Leads(Landing<'a>),
    Joins(oneshot::Receiver<Brought>),
}

/// The fetch of one key by whoever leads it. Dropped without a result, it lets those who wait try by themselves.
struct Landing<'a> {
    flight: &'a Flight,
    key: &'a Key,
    fetch: Arc<Fetch>,
}

impl Landing<'_> {
    fn land(self, answer: Result<Option<Found>>) -> Result<Option<Found>> {
        let Some(waiting) = self.end() else { return answer };
        let brought = answer.map_err(|error| Shared(Arc::new(error)));
        for sender in waiting {
            // Who gave up meanwhile needs it no more.
            _ = sender.send(brought.clone());
        }
        brought.map_err(Error::from)
    }

    /// Nobody joins from here on; says who did.
    fn end(&self) -> Option<Vec<oneshot::Sender<Brought>>> {
        let mut under_way = self.flight.under_way.lock();
        // A later fetch of the key may have taken its place.
        if under_way.get(self.key).is_some_and(|fetch| Arc::ptr_eq(fetch, &self.fetch)) {
            under_way.remove(self.key);
        }
        drop(under_way);
        self.fetch.0.lock().take().filter(|waiting| !waiting.is_empty())
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// A write: when it has ended, however it did, nobody joins a fetch that began before.
struct Written<'a> {
    flight: &'a Flight,
    key: &'a Key,
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        self.flight.under_way.lock().remove(self.key);
    }
}

impl Flight {
    /// Asks `inner` once for what many want at the same time.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner, under_way: Mutex::default(), joined: AtomicU64::new(0) }
    }

    fn take_part<'a>(&'a self, key: &'a Key) -> Part<'a> {
        let mut under_way = self.under_way.lock();
        if let Some(fetch) = under_way.get(key)
            && let Some(waiting) = &mut *fetch.0.lock()
        {
            let (sender, receiver) = oneshot::channel();
            waiting.push(sender);
            self.joined.fetch_add(1, Relaxed);
            return Part::Joins(receiver);
        }
        let fetch = Arc::new(Fetch(Mutex::new(Some(Vec::new()))));
        under_way.insert(key.clone(), fetch.clone());
        Part::Leads(Landing { flight: self, key, fetch })
    }

    fn written<'a>(&'a self, key: &'a Key) -> Written<'a> {
        Written { flight: self, key }
    }

    /// One attempt at every key that has no answer yet. Those whose fetch was given up are left without one.
    async fn attempt(&self, keys: &[Key], answers: &mut [Option<Result<Option<Found>>>]) {
        let (mut led, mut landings, mut joined) = (Vec::new(), Vec::new(), Vec::new());
        for (place, key) in keys.iter().enumerate() {
            if answers.get(place).is_some_and(Option::is_some) {
                continue;
            }
            match self.take_part(key) {
                Part::Leads(landing) => {
                    led.push(key.clone());
                    landings.push((place, landing));
                }
                Part::Joins(receiver) => joined.push((place, receiver)),
            }
        }
        let mut answer = |place: usize, brought| {
            if let Some(slot) = answers.get_mut(place) {
                *slot = Some(brought);
            }
        };
        // Own fetches first: two who wait for each other's would wait for ever.
        if !led.is_empty() {
            let fetched = self.inner.get_many(&led).await;
            for ((place, landing), fetched) in landings.into_iter().zip(fetched) {
                answer(place, landing.land(fetched));
            }
        }
        for (place, receiver) in joined {
            if let Ok(brought) = receiver.await {
                answer(place, brought.map_err(Error::from));
            }
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Backend for Flight {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn get_many(&self, keys: &[Key]) -> Vec<Result<Option<Found>>> {
        let mut answers: Vec<_> = keys.iter().map(|_| None).collect();
        while answers.iter().any(Option::is_none) {
            self.attempt(keys, &mut answers).await;
        }
        answers.into_iter().flatten().collect()
    }

    async fn head(&self, key: &Key) -> Result<Option<Head>> {
        self.inner.head(key).await
    }

    async fn touch(&self, key: &Key) -> Result<Option<Head>> {
        self.inner.touch(key).await
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<Put> {
        let _written = self.written(key);
        self.inner.put(key, entry, when).await
    }

    async fn stage(&self, key: &Key, entry: Entry, when: When) -> Result<Put> {
        let _written = self.written(key);
        self.inner.stage(key, entry, when).await
    }

    async fn settle_many(&self, versions: &[Version]) -> Vec<Result<()>> {
        self.inner.settle_many(versions).await
    }

    async fn set_expiry(&self, key: &Key, expires_ms: Option<u64>, when: When) -> Result<Put> {
        let _written = self.written(key);
        self.inner.set_expiry(key, expires_ms, when).await
    }

    async fn delete(&self, key: &Key, when: When) -> Result<bool> {
        let _written = self.written(key);
        self.inner.delete(key, when).await
    }

    async fn scan(&self, namespace: &Namespace, cursor: Cursor, limit: usize) -> Result<Page> {
        self.inner.scan(namespace, cursor, limit).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64> {
        let cleared = self.inner.clear(namespace).await;
        self.under_way.lock().retain(|key, _| key.namespace() != namespace);
        cleared
    }

    async fn usage(&self, namespace: Option<&Namespace>) -> Result<Usage> {
        let usage = self.inner.usage(namespace).await?;
        Ok(Usage { shared_fetches: usage.shared_fetches + self.joined.load(Relaxed), ..usage })
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }
}

impl fmt::Display for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flight({})", self.inner)
    }
}
