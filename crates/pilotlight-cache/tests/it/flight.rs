//! One fetch for all who ask at the same time, and never one that is too old.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use async_trait::async_trait;
use bytes::Bytes;
use pilotlight_cache::{
    Backend, BackendExt, Cursor, Entry, Error, ErrorKind, Flight, Found, Head, Key, MemoryBackend, Namespace,
    Page, Put, Result, Usage, Version, When,
};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// A memory backend whose every get takes a permit after it has read, and fails if it is told to.
#[derive(Debug)]
struct Slow {
    memory: MemoryBackend,
    permits: Semaphore,
    fetched: AtomicU64,
    failures: AtomicU64,
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("slow")
    }
}

#[async_trait]
impl Backend for Slow {
    fn name(&self) -> &'static str {
        "Slow"
    }
    async fn get_many(&self, keys: &[Key]) -> Vec<Result<Option<Found>>> {
        self.fetched.fetch_add(keys.len() as u64, SeqCst);
        let read = self.memory.get_many(keys).await;
        self.permits.acquire().await.expect("open").forget();
        if self.failures.load(SeqCst) > 0 {
            self.failures.fetch_sub(1, SeqCst);
            return keys.iter().map(|_| Err(Error::backend(ErrorKind::Unavailable, "away"))).collect();
        }
        read
    }
    async fn head(&self, key: &Key) -> Result<Option<Head>> {
        self.memory.head(key).await
    }
    async fn touch(&self, key: &Key) -> Result<Option<Head>> {
        self.memory.touch(key).await
    }
    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<Put> {
        self.memory.put(key, entry, when).await
    }
    async fn stage(&self, key: &Key, entry: Entry, when: When) -> Result<Put> {
        self.memory.stage(key, entry, when).await
    }
    async fn settle_many(&self, versions: &[Version]) -> Vec<Result<()>> {
        self.memory.settle_many(versions).await
    }
    async fn set_expiry(&self, key: &Key, expires_ms: Option<u64>, when: When) -> Result<Put> {
        self.memory.set_expiry(key, expires_ms, when).await
    }
    async fn delete(&self, key: &Key, when: When) -> Result<bool> {
        self.memory.delete(key, when).await
    }
    async fn scan(&self, namespace: &Namespace, cursor: Cursor, limit: usize) -> Result<Page> {
        self.memory.scan(namespace, cursor, limit).await
    }
    async fn clear(&self, namespace: &Namespace) -> Result<u64> {
        self.memory.clear(namespace).await
    }
    async fn usage(&self, namespace: Option<&Namespace>) -> Result<Usage> {
        self.memory.usage(namespace).await
    }
    async fn sync(&self) -> Result<()> {
        self.memory.sync().await
    }
}

struct Fleet {
    slow: Arc<Slow>,
    flight: Arc<Flight>,
}

type Asked = JoinHandle<Result<Option<Bytes>>>;

impl Fleet {
    async fn with(key: &Key, artifact: &'static str) -> Self {
        let slow = Arc::new(Slow {
            memory: MemoryBackend::new(64 << 20),
            permits: Semaphore::new(0),
            fetched: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        });
        let fleet = Self { flight: Arc::new(Flight::new(slow.clone())), slow };
        fleet.put(key, artifact).await;
        fleet
    }

    async fn put(&self, key: &Key, artifact: &'static str) {
        assert!(matches!(self.flight.put(key, Entry::new(artifact), When::Always).await, Ok(Put::Stored(_))));
    }

    /// Asks for `key` in a task of its own, and returns when that waits for the backend or for another.
    async fn ask(&self, key: &Key) -> Asked {
        let before = self.under_way().await;
        let (flight, key) = (self.flight.clone(), key.clone());
        let asked = tokio::spawn(async move {
            let found = flight.get(&key).await?;
            Ok(found.map(|found| found.entry.artifact.verify().unwrap().into_bytes()))
        });
        while self.under_way().await == before {
            tokio::task::yield_now().await;
        }
        asked
    }

    async fn under_way(&self) -> (u64, u64) {
        (self.fetched(), self.flight.usage(None).await.unwrap().shared_fetches)
    }

    fn fetched(&self) -> u64 {
        self.slow.fetched.load(SeqCst)
    }

    fn let_pass(&self, fetches: usize) {
        self.slow.permits.add_permits(fetches);
    }
}

async fn answer(asked: Asked) -> Option<Bytes> {
    asked.await.unwrap().unwrap()
}

#[tokio::test]
async fn many_who_ask_for_one_entry_cost_one_fetch() {
    let key = Key::new("key");
    let fleet = Fleet::with(&key, "artifact").await;
    let mut asked = Vec::new();
    for _ in 0..50 {
        asked.push(fleet.ask(&key).await);
    }
    assert_eq!(fleet.under_way().await, (1, 49));
    fleet.let_pass(1);
    for asked in asked {
        assert_eq!(answer(asked).await.as_deref(), Some(&b"artifact"[..]));
    }
    assert_eq!(fleet.fetched(), 1);
    fleet.let_pass(1);
    assert!(fleet.flight.get(&key).await.unwrap().is_some());
    assert_eq!(fleet.fetched(), 2, "a fetch that has ended answers nobody any more");
}

#[tokio::test]
async fn a_get_that_begins_after_a_put_sees_it() {
    let key = Key::new("key");
    let fleet = Fleet::with(&key, "old").await;
    let early = fleet.ask(&key).await;
    fleet.put(&key, "new").await;
    let late = fleet.ask(&key).await;
    let later = fleet.ask(&key).await;
    assert_eq!(fleet.under_way().await, (2, 1));
    fleet.let_pass(2);
    assert_eq!(answer(early).await.as_deref(), Some(&b"old"[..]));
    assert_eq!(answer(late).await.as_deref(), Some(&b"new"[..]));
    assert_eq!(answer(later).await.as_deref(), Some(&b"new"[..]));
    for write in ["delete", "clear", "expiry"] {
        fleet.put(&key, "again").await;
        let early = fleet.ask(&key).await;
        match write {
            "delete" => assert!(fleet.flight.delete(&key, When::Always).await.unwrap()),
            "clear" => assert_eq!(fleet.flight.clear(&Namespace::default()).await.unwrap(), 1),
            _ => _ = fleet.flight.set_expiry(&key, Some(1), When::Present).await.unwrap(),
        }
        let late = fleet.ask(&key).await;
        fleet.let_pass(2);
        assert_eq!(answer(early).await.as_deref(), Some(&b"again"[..]), "{write}");
        assert_eq!(answer(late).await, None, "{write}");
    }
}

#[tokio::test]
async fn who_gives_up_leaves_the_fetch_to_one_who_waits() {
    let key = Key::new("key");
    let fleet = Fleet::with(&key, "artifact").await;
    let leader = fleet.ask(&key).await;
    let waiting = [fleet.ask(&key).await, fleet.ask(&key).await];
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    fleet.let_pass(1);
    for asked in waiting {
        assert_eq!(answer(asked).await.as_deref(), Some(&b"artifact"[..]));
    }
    assert_eq!(fleet.fetched(), 2);
}

#[tokio::test]
async fn a_failure_is_everybodys_and_ends_with_the_fetch() {
    let key = Key::new("key");
    let fleet = Fleet::with(&key, "artifact").await;
    fleet.slow.failures.store(1, SeqCst);
    let asked = [fleet.ask(&key).await, fleet.ask(&key).await, fleet.ask(&key).await];
    fleet.let_pass(1);
    for asked in asked {
        let error = asked.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Unavailable, "away"));
    }
    assert_eq!(fleet.fetched(), 1);
    fleet.let_pass(1);
    assert!(fleet.flight.get(&key).await.unwrap().is_some());
}

#[tokio::test]
async fn two_who_ask_for_the_same_keys_in_other_orders_wait_for_nobody_for_ever() {
    let [a, b, c] = ["a", "b", "c"].map(Key::new);
    let fleet = Fleet::with(&a, "a").await;
    fleet.put(&b, "b").await;
    let ask = |keys: Vec<Key>| {
        let flight = fleet.flight.clone();
        tokio::spawn(async move { flight.get_many(&keys).await })
    };
    let both =
        [ask(vec![a.clone(), c.clone(), b.clone()]), ask(vec![b.clone(), a.clone(), b.clone(), c.clone()])];
    while fleet.flight.usage(None).await.unwrap().shared_fetches < 4 {
        tokio::task::yield_now().await;
    }
    fleet.let_pass(2);
    for (asked, hits) in both.into_iter().zip([[true, false, true].as_slice(), &[true, true, true, false]]) {
        let found: Vec<bool> =
            asked.await.unwrap().into_iter().map(|found| found.unwrap().is_some()).collect();
        assert_eq!(found, hits);
    }
    assert_eq!(fleet.fetched(), 3, "each key once");
}
