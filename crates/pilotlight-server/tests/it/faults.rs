//! A backend that fails, or hangs, when it is told to.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use async_trait::async_trait;
use parking_lot::Mutex;
use pilotlight_cache::{
    Backend, Cursor, Entry, Error, ErrorKind, Found, Head, Key, MemoryBackend, Namespace, Page, Put, Result,
    Usage, Version, When,
};
use tokio::sync::Notify;

/// Memory with switches.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: MemoryBackend,
    /// What every operation fails with.
    failure: Mutex<Option<ErrorKind>>,
    /// Whether every get and put waits for [`Faulty::release`].
    is_hanging: AtomicBool,
    arrived: Mutex<Option<std::sync::mpsc::Sender<()>>>,
    release: Notify,
    pub(crate) syncs: AtomicU64,
    settle_failure: Mutex<Option<ErrorKind>>,
}

impl Faulty {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryBackend::new(1 << 30),
            failure: Mutex::default(),
            is_hanging: AtomicBool::new(false),
            arrived: Mutex::default(),
            release: Notify::new(),
            syncs: AtomicU64::new(0),
            settle_failure: Mutex::default(),
        })
    }

    pub(crate) fn fail_with(&self, kind: Option<ErrorKind>) {
        *self.failure.lock() = kind;
    }

    /// Has staged puts fail when they are settled.
    pub(crate) fn fail_settling_with(&self, kind: Option<ErrorKind>) {
        *self.settle_failure.lock() = kind;
    }

    /// Has operations hang from now on; the receiver hears of each that begins.
    pub(crate) fn hang(&self) -> std::sync::mpsc::Receiver<()> {
        let (sender, receiver) = std::sync::mpsc::channel();
        *self.arrived.lock() = Some(sender);
        self.is_hanging.store(true, SeqCst);
        receiver
    }

    pub(crate) fn release(&self) {
        self.is_hanging.store(false, SeqCst);
        self.release.notify_one();
    }

    async fn trip(&self) -> Result<()> {
        if self.is_hanging.load(SeqCst) {
            if let Some(arrived) = &*self.arrived.lock() {
                let _ = arrived.send(());
            }
            self.release.notified().await;
        }
        match *self.failure.lock() {
            Some(kind) => Err(Error::backend(kind, "injected")),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Backend for Faulty {
    fn name(&self) -> &'static str {
        "Faulty"
    }
    async fn get_many(&self, keys: &[Key]) -> Vec<Result<Option<Found>>> {
        match self.trip().await {
            Ok(()) => self.inner.get_many(keys).await,
            Err(error) => keys.iter().map(|_| Err(Error::backend(error.kind(), "injected"))).collect(),
        }
    }
    async fn head(&self, key: &Key) -> Result<Option<Head>> {
        self.trip().await?;
        self.inner.head(key).await
    }
    async fn touch(&self, key: &Key) -> Result<Option<Head>> {
        self.trip().await?;
        self.inner.touch(key).await
    }
    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<Put> {
        self.trip().await?;
        self.inner.put(key, entry, when).await
    }
    async fn stage(&self, key: &Key, entry: Entry, when: When) -> Result<Put> {
        self.trip().await?;
        self.inner.stage(key, entry, when).await
    }
    async fn settle_many(&self, versions: &[Version]) -> Vec<Result<()>> {
        let failure = *self.settle_failure.lock();
        match failure {
            Some(kind) => versions.iter().map(|_| Err(Error::backend(kind, "injected"))).collect(),
            None => self.inner.settle_many(versions).await,
        }
    }
    async fn set_expiry(&self, key: &Key, expires_ms: Option<u64>, when: When) -> Result<Put> {
        self.trip().await?;
        self.inner.set_expiry(key, expires_ms, when).await
    }
    async fn delete(&self, key: &Key, when: When) -> Result<bool> {
        self.trip().await?;
        self.inner.delete(key, when).await
    }
    async fn scan(&self, namespace: &Namespace, cursor: Cursor, limit: usize) -> Result<Page> {
        self.trip().await?;
        self.inner.scan(namespace, cursor, limit).await
    }
    async fn clear(&self, namespace: &Namespace) -> Result<u64> {
        self.trip().await?;
        self.inner.clear(namespace).await
    }
    async fn usage(&self, namespace: Option<&Namespace>) -> Result<Usage> {
        self.inner.usage(namespace).await
    }
    async fn sync(&self) -> Result<()> {
        self.syncs.fetch_add(1, SeqCst);
        self.inner.sync().await
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty({})", self.inner)
    }
}
