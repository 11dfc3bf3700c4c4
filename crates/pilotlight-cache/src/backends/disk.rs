//! The embedded store as a backend: entries in their envelopes.

use std::fmt::{self, Debug};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_channel::oneshot;
use pilotlight_store::media::{Disk, Media};
use pilotlight_store::{
    Clock, Condition, Durability, LookingOnly, OpenError, Options, PutRequest, SHARED, Stat, Store,
    StoreError, Stored, TryGet,
};

use super::groups::group;
use crate::envelope::{self, Sealed};
use crate::recompress::Recompressor;
use crate::trust::Signers;
use crate::{
    Backend, Cursor, Entry, Error, ErrorKind, Found, Head, Key, Namespace, Page, Put, Result, SweepProgress,
    Usage, Version, When,
};

/// Runs a job that may block, somewhere it may: the server gives its thread pool, a client without a runtime runs it on
/// the spot.
pub trait Blocking: Send + Sync + Debug {
    /// Runs `job`, now or soon, exactly once; or drops it, when it is closing.
    fn run(&self, job: Box<dyn FnOnce() + Send>);
}

/// Runs jobs at once on the calling thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inline;

impl Blocking for Inline {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

/// How a [`DiskBackend`] is opened.
#[derive(Debug, Clone)]
pub struct DiskOptions {
    /// The directory; made if it is not there.
    pub dir: PathBuf,
    /// The bound on everything in it, in bytes, as `du` counts; [`DiskOptions::UNBOUNDED`] where it is not known.
    pub max_bytes: u64,
    /// When a put counts as done.
    pub durability: Durability,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where work that may block is done.
    pub blocking: Arc<dyn Blocking>,
    /// Whose entries are taken; anybody's if absent. Here, since puts and imports have no other place in common.
    pub signers: Option<Arc<Signers>>,
}

impl DiskOptions {
    /// For whoever looks into a store, and does not know under which bound it is served.
    pub const UNBOUNDED: u64 = Options::UNBOUNDED;
}

/// Entries in the embedded store. Small ones are read and put on the calling thread, which costs less than handing them
/// over; anything that would wait for the disk, or take long to compress, goes to [`DiskOptions::blocking`].
#[derive(Debug)]
pub struct DiskBackend {
    pub(super) store: Arc<Store>,
    pub(super) clock: Arc<dyn Clock>,
    blocking: Arc<dyn Blocking>,
    is_relaxed: bool,
    max_bytes: u64,
    signers: Option<Arc<Signers>>,
    pub(super) recompressor: Recompressor,
}

/// Artifacts up to this length are put on the calling thread: compressing and appending them takes some 100 us.
const PUT_INLINE_MAX: u64 = 64 << 10;
/// Up to so many bytes are read on the calling thread if the page cache holds them: sending them costs that thread more.
const GET_INLINE_MAX: u64 = 2 << 20;

impl DiskBackend {
    /// Opens the store.
    ///
    /// # Errors
    /// [`OpenError`], each with a hint.
    pub fn open(options: DiskOptions) -> Result<Arc<Self>, OpenError> {
        Self::open_on(Arc::new(Disk), options)
    }

    /// Opens the store to look into it: nothing in the directory changes, and every put is refused.
    ///
    /// # Errors
    /// As [`DiskBackend::open`].
    pub fn look(options: DiskOptions) -> Result<Arc<Self>, OpenError> {
        Self::open_on(LookingOnly::at(Arc::new(Disk)), options)
    }

    fn open_on(media: Arc<dyn Media>, options: DiskOptions) -> Result<Arc<Self>, OpenError> {
        Self::open_with(media, options, Store::open)
    }

    pub(super) fn open_with(
        media: Arc<dyn Media>,
        options: DiskOptions,
        open: impl FnOnce(Options) -> Result<Store, OpenError>,
    ) -> Result<Arc<Self>, OpenError> {
        let DiskOptions { dir, max_bytes, durability, clock, blocking, signers } = options;
        let options = Options { durability, clock: clock.clone(), media, ..Options::new(dir, max_bytes) };
        let store = open(options)?;
        let is_relaxed = durability == Durability::Relaxed;
        let (store, recompressor) = (Arc::new(store), Recompressor::default());
        Ok(Arc::new(Self { store, clock, blocking, is_relaxed, max_bytes, signers, recompressor }))
    }

    /// Refuses what none of the signers signed, where there are any.
    pub(super) fn admit(&self, key: &Key, entry: &Entry) -> Result<()> {
        match &self.signers {
            Some(signers) => signers.check(key, entry, self.clock.now_ms()),
            None => Ok(()),
        }
    }

    /// Runs `work` where blocking is allowed, and waits for it without blocking.
    pub(super) async fn offload<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        let store = self.store.clone();
        self.blocking.run(Box::new(move || {
            // Whoever asked may have given up meanwhile: a job that waited behind a stalled disk must not write over what
            // was put since, and a pile of them must not be worked off for nobody.
            if !sender.is_canceled() {
                let _ = sender.send(work(&store));
                store.try_tidy();
            }
        }));
        let closing = |_| Error::Unavailable { what: "the store".to_owned(), source: None };
        receiver.await.map_err(closing)?
    }

    /// Only what is put on the calling thread is staged, in a store that waits for no sync: so settling never waits for
    /// the medium. Everything else is put whole.
    async fn put_entry(&self, key: &Key, mut entry: Entry, when: When, ack: Acknowledged) -> Result<Put> {
        self.admit(key, &entry)?;
        if entry.metadata.created_ms == 0 {
            entry.metadata.created_ms = self.clock.now_ms();
        }
        if self.is_relaxed && entry.artifact.len() <= PUT_INLINE_MAX {
            return put_stored(&self.store, key, &entry, when, group(key), ack);
        }
        let key = key.clone();
        self.offload(move |store| {
            put_stored(store, &key, &entry, when, group(&key), Acknowledged::NowOrNever)
        })
        .await
    }

    async fn get(&self, key: &Key) -> Result<Option<Found>> {
        let space = key.namespace().as_str().as_bytes();
        let Some(stat) = self.store.stat(space, key.bytes()) else { return Ok(None) };
        // With a base there may be any number of bytes to read.
        if stat.stored_bytes <= GET_INLINE_MAX
            && !stat.is_based
            && let TryGet::Ready(found) = self.store.try_get(space, key.bytes()).map_err(from_store)?
        {
            return found.map(|stored| open_stored(&self.store, key, stored)).transpose();
        }
        let key = key.clone();
        self.offload(move |store| {
            let space = key.namespace().as_str().as_bytes();
            let found = store.get(space, key.bytes()).map_err(from_store)?;
            found.map(|stored| open_stored(store, &key, stored)).transpose()
        })
        .await
    }
}

/// The entry out of its envelope. Where the store's own check passed and the head's did not, it is set aside here, as with any
/// damage: the next get is a miss. The artifact is checked by whoever wants its bytes.
pub(super) fn open_stored(store: &Store, key: &Key, stored: Stored) -> Result<Found> {
    let (sealed, base, stat) = envelopes(stored);
    let mut entry = envelope::read_stored(&sealed, base.as_ref())
        .inspect_err(|error| set_aside(store, key, error, stat.version))?
        .expiring_at(stat.expires_ms);
    // A signed head says when its signer made it; here entries are as old as by our own clock.
    entry.metadata.created_ms = stat.created_ms;
    Ok(Found { entry, version: Version(stat.version), tier: 0 })
}

/// An entry's envelope, and that of its base if it has one.
pub(crate) fn envelopes(stored: Stored) -> (Sealed, Option<Sealed>, Stat) {
    let Stored { head, payload, base, stat, .. } = stored;
    let sealed = |head, payload| Sealed { head, payload, payload_digest: None };
    let base = base.map(|base| sealed(base.head, base.payload));
    (sealed(head, payload), base, stat)
}

pub(crate) fn set_aside(store: &Store, key: &Key, error: &Error, version: u64) {
    if matches!(error, Error::Corrupt { .. }) {
        let space = key.namespace().as_str().as_bytes();
        let _ = store.set_aside(space, key.bytes(), version, &error.to_string());
    }
}

/// How a put is acknowledged. Only [`Acknowledged::Now`] may take as long as a walk through all that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acknowledged {
    Now,
    NowOrNever,
    WhenSettled,
}

pub(super) fn put_stored(
    store: &Store,
    key: &Key,
    entry: &Entry,
    when: When,
    group: Option<NonZeroU32>,
    ack: Acknowledged,
) -> Result<Put> {
    let Sealed { head, payload, payload_digest } = envelope::seal(entry)?;
    let request = PutRequest {
        space: key.namespace().as_str().as_bytes(),
        key: key.bytes(),
        head: &head,
        payload: &payload,
        digest: payload_digest.as_ref().map(|digest| *digest.as_bytes()),
        logical_len: entry.artifact.len() as u32,
        cost_ms: entry.metadata.compile_ms,
        created_ms: entry.metadata.created_ms,
        expires_ms: entry.metadata.expires_ms,
        group,
    };
    let version = match ack {
        Acknowledged::Now => store.put(&request, condition(when)),
        Acknowledged::NowOrNever => store.try_put(&request, condition(when)),
        Acknowledged::WhenSettled => store.stage(&request, condition(when)),
    };
    version.map(put).map_err(from_store)
}

#[async_trait]
impl Backend for DiskBackend {
    fn name(&self) -> &'static str {
        "DiskBackend"
    }

    async fn get_many(&self, keys: &[Key]) -> Vec<Result<Option<Found>>> {
        let mut answers = Vec::with_capacity(keys.len());
        for key in keys {
            answers.push(self.get(key).await);
        }
        answers
    }

    async fn head(&self, key: &Key) -> Result<Option<Head>> {
        Ok(self.store.stat(key.namespace().as_str().as_bytes(), key.bytes()).as_ref().map(head))
    }

    async fn touch(&self, key: &Key) -> Result<Option<Head>> {
        Ok(self.store.touch(key.namespace().as_str().as_bytes(), key.bytes()).as_ref().map(head))
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<Put> {
        self.put_entry(key, entry, when, Acknowledged::NowOrNever).await
    }

    async fn stage(&self, key: &Key, entry: Entry, when: When) -> Result<Put> {
        self.put_entry(key, entry, when, Acknowledged::WhenSettled).await
    }

    async fn settle_many(&self, versions: &[Version]) -> Vec<Result<()>> {
        let settle = |version: &Version| self.store.settle(version.0).map_err(from_store);
        let settled = versions.iter().map(settle).collect();
        if !self.store.is_tidy() {
            let store = self.store.clone();
            self.blocking.run(Box::new(move || {
                store.try_tidy();
            }));
        }
        settled
    }

    async fn set_expiry(&self, key: &Key, expires_ms: Option<u64>, when: When) -> Result<Put> {
        let key = key.clone();
        self.offload(move |store| {
            let space = key.namespace().as_str().as_bytes();
            store.set_expiry(space, key.bytes(), expires_ms, condition(when)).map(put).map_err(from_store)
        })
        .await
    }

    async fn delete(&self, key: &Key, when: When) -> Result<bool> {
        let delete = move |store: &Store, key: &Key| {
            let space = key.namespace().as_str().as_bytes();
            store.delete(space, key.bytes(), condition(when)).map_err(from_store)
        };
        if self.is_relaxed {
            return delete(&self.store, key);
        }
        let key = key.clone();
        self.offload(move |store| delete(store, &key)).await
    }

    async fn scan(&self, namespace: &Namespace, cursor: Cursor, limit: usize) -> Result<Page> {
        let namespace = namespace.clone();
        self.offload(move |store| {
            let page = store.scan(namespace.as_str().as_bytes(), cursor.0, limit).map_err(from_store)?;
            let named = |(key, stat): (Bytes, Stat)| (Key::in_namespace(namespace.clone(), key), head(&stat));
            Ok(Page { keys: page.keys.into_iter().map(named).collect(), next: Cursor(page.next) })
        })
        .await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64> {
        let namespace = namespace.clone();
        self.offload(move |store| store.clear(namespace.as_str().as_bytes()).map_err(from_store)).await
    }

    async fn usage(&self, namespace: Option<&Namespace>) -> Result<Usage> {
        let usage = self.store.usage(namespace.map(|namespace| namespace.as_str().as_bytes()));
        Ok(Usage {
            entries: usage.entries,
            logical_bytes: usage.logical_bytes,
            stored_bytes: usage.stored_bytes,
            bound_bytes: Some(usage.bound_bytes),
            evicted: usage.evicted,
            expired: usage.expired,
            quarantined: usage.quarantined,
            deduplicated: usage.deduplicated,
            recompressed: usage.rewritten,
            recompressed_bytes: usage.rewritten_bytes,
            deltas: usage.based,
            orphans: usage.orphans,
            sweep: (!usage.is_swept)
                .then_some(SweepProgress { looked_at: usage.swept_files, files: usage.files }),
            shared_fetches: 0,
        })
    }

    async fn sync(&self) -> Result<()> {
        self.offload(|store| store.sync().map_err(from_store)).await
    }
}

impl fmt::Display for DiskBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk({} MiB)", self.max_bytes >> 20)
    }
}

fn condition(when: When) -> Condition {
    match when {
        When::Always => Condition::Always,
        When::Absent => Condition::Absent,
        When::Present => Condition::Present,
        When::Version(version) => Condition::Version(version.0),
    }
}

fn put(version: Option<u64>) -> Put {
    version.map_or(Put::Unmet, |version| Put::Stored(Version(version)))
}

pub(super) fn head(stat: &Stat) -> Head {
    Head {
        version: Version(stat.version),
        artifact_len: u64::from(stat.logical_len),
        stored_bytes: stat.stored_bytes,
        created_ms: stat.created_ms,
        expires_ms: stat.expires_ms,
        accessed_ms: stat.accessed_ms,
        hits: stat.hits,
        compile_ms: stat.cost_ms,
        is_pinned: stat.is_pinned,
        group: stat.group.filter(|group| *group != SHARED),
    }
}

pub(crate) fn from_store(error: StoreError) -> Error {
    match error {
        StoreError::Full { needed_bytes, bound_bytes } => Error::Full { needed_bytes, bound_bytes },
        StoreError::PinnedFull { pinned_bytes, max_bytes } => Error::PinnedFull { pinned_bytes, max_bytes },
        StoreError::DiskFull { .. } | StoreError::Unswept { .. } => Error::backend(ErrorKind::Full, error),
        StoreError::TooLarge { what, size_bytes, max_bytes } => {
            Error::TooLarge { what, size_bytes, max_bytes }
        }
        StoreError::Corrupt { what } => Error::Corrupt { what },
        StoreError::ReadOnly => Error::ReadOnly { what: "the store".to_owned() },
        StoreError::Io { action, source } => {
            Error::Unavailable { what: format!("the disk (cannot {action})"), source: Some(source) }
        }
    }
}
