//! A fast backend in front of an origin that many nodes share.

mod bring;
mod memory;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_channel::oneshot;
use pilotlight_store::Clock;
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use self::memory::{Fresh, Marks, Overtaken};
use crate::origin::guard::{Guard, Lane};
use crate::origin::queue::{Action, Queue, Queued};
use crate::origin::{
    Counter, OnError, Origin, OriginCounts, OriginError, OriginState, Write, backfill, layout,
};
use crate::{
    Backend, Blocking, Cursor, Entry, Error, ErrorKind, Found, Head, Key, Kind, Namespace, Page, Put, Result,
    Usage, Version, When,
};

/// Reads an entry that is to be sent elsewhere: whole, checked, and noting no use of it.
#[async_trait]
pub trait Peek: Send + Sync + fmt::Debug {
    /// The entry under `key`, its artifact verified.
    async fn peek(&self, key: &Key) -> Result<Option<Found>>;
}

/// How a [`Tiered`] goes about it.
#[derive(Debug, Clone)]
pub struct TieredOptions {
    /// How puts reach the origin.
    pub write: Write,
    /// When a put fails.
    pub on_error: OnError,
    /// Nothing is ever written to the origin.
    pub is_read_only: bool,
    /// Longest that a lookup, or a put that waits for it, may wait for the origin, retries included.
    pub timeout: Duration,
    /// An entry of a kind that is replaced over time is looked up again at the origin when it was not for so long.
    pub fresh: Duration,
    /// That the origin lacks an entry is remembered for so long; not at all when zero.
    pub miss: Duration,
    /// An object in use that is older is put again, so that rules which delete by age keep what is used; not at all when `None`.
    pub keep: Option<Duration>,
    /// Most puts that may wait to be sent.
    pub queue_max: usize,
    /// Where they are written down, so that a restart forgets none.
    pub queue_dir: Option<PathBuf>,
    /// Largest artifact that is taken from the origin, in bytes.
    pub entry_bytes_max: u64,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where artifacts are unpacked and checked.
    pub blocking: Arc<dyn Blocking>,
    /// Runs what talks to the origin. Its thread should serve nobody.
    pub runtime: Handle,
    /// For the jitter: another one on each node.
    pub seed: u64,
}

/// A fast backend, and an origin behind it that other nodes share.
///
/// A get asks the origin for what the fast backend lacks, all keys at once and within one budget; what it has is checked,
/// promoted into the fast backend where nothing is, and answered. A put goes into the fast backend and from there into the
/// origin, by way of a queue that survives restarts. A deletion is in that queue before it is done here, and as long as it is,
/// nothing is got under that key: so a promotion brings nothing back.
///
/// Invariant: a promotion never takes the place of what a put, a deletion or a clearing of this node did since its fetch
/// began. Who writes notes it in `Overtaken`, after the queue knows; who fetches asks there last. Both do so under the key's
/// lock, so that of a put and a deletion the queue and the fast backend have the same one last.
///
/// What is absent here: [`Backend::scan`] and [`Backend::usage`] speak of the fast backend alone, since listing an origin takes
/// seconds and money; [`Backend::touch`] asks the origin for nothing that is not here, since a memory tier in front asks it
/// with every hit. Leases are not shared by way of the origin.
#[derive(Debug)]
pub struct Tiered {
    shared: Arc<Shared>,
    backfill: AbortHandle,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) fast: Arc<dyn Backend>,
    pub(crate) peek: Arc<dyn Peek>,
    pub(crate) guard: Guard,
    pub(crate) queue: Queue,
    pub(crate) counts: Arc<OriginCounts>,
    pub(crate) fresh: Fresh,
    pub(crate) options: TieredOptions,
    misses: Marks,
    used: Marks,
    overtaken: Overtaken,
    /// For damaged objects that are moved aside.
    moves: Arc<tokio::sync::Semaphore>,
}

/// Keys of one lookup that are asked for at a time: a client may ask for a million.
const ASKED_MAX: usize = 128;
/// An object in use is looked at once in so long, at most.
const KEPT_EVERY: Duration = Duration::from_secs(24 * 3600);

impl Tiered {
    /// Puts `origin` behind `fast`, whose entries `peek` reads, and begins to send what was left to be sent.
    ///
    /// # Errors
    /// When the queue of the last run cannot be read.
    pub fn start(
        fast: Arc<dyn Backend>,
        peek: Arc<dyn Peek>,
        origin: Arc<dyn Origin>,
        options: TieredOptions,
    ) -> io::Result<Self> {
        let counts = Arc::new(OriginCounts::default());
        let queue_dir = options.queue_dir.as_deref().filter(|_| !options.is_read_only);
        let queue = Queue::open(queue_dir, options.queue_max, options.clock.clone(), counts.clone())?;
        let shared = Arc::new(Shared {
            fast,
            peek,
            guard: Guard::new(origin, counts.clone(), options.timeout, options.seed),
            queue,
            counts,
            fresh: Fresh::default(),
            misses: Marks::default(),
            used: Marks::default(),
            overtaken: Overtaken::default(),
            moves: bring::moves(),
            options,
        });
        let backfill = shared.options.runtime.spawn(backfill::run(shared.clone())).abort_handle();
        Ok(Self { shared, backfill })
    }

    /// The counters.
    pub fn counts(&self) -> &Arc<OriginCounts> {
        &self.shared.counts
    }

    /// What is so now.
    #[must_use]
    pub fn state(&self) -> OriginState {
        let (queued, oldest_ms) = self.shared.queue.backlog();
        let is_paused = |lane| self.shared.guard.paused_until(lane).is_some();
        OriginState {
            queued,
            oldest_ms,
            is_reading_paused: is_paused(Lane::Reading),
            is_writing_paused: is_paused(Lane::Writing),
        }
    }

    /// Waits until all is sent, at most so long, and says whether it is. What is left then is sent after the next start.
    pub async fn drain(&self, longest: Duration) -> bool {
        let shared = self.shared.clone();
        let drained = async move {
            loop {
                let progress = shared.queue.progress.notified();
                if shared.queue.is_empty() {
                    return;
                }
                progress.await;
            }
        };
        let waiting = async move { tokio::time::timeout(longest, drained).await.is_ok() };
        let is_drained = self.shared.on_runtime(waiting).await.unwrap_or(false);
        self.shared.queue.flush();
        self.shared.sync_queue().await;
        is_drained
    }
}

impl Drop for Tiered {
    fn drop(&mut self) {
        self.backfill.abort();
        self.shared.queue.flush();
    }
}

/// Whether what stands under a key is replaced over time, so that another node's entry may be newer than ours. What compilers
/// put under a digest of all that went into it is not; lists of variants grow.
fn is_replaced(key: &Key) -> bool {
    match key.kind() {
        Kind::FxGraph | Kind::AotAutograd | Kind::CppKernel | Kind::Triton => key.is_list_of_variants(),
        Kind::Autotune | Kind::BundledAutotune | Kind::Pgo | Kind::Other => true,
    }
}

impl Shared {
    /// Runs `work` on the runtime that talks to the origin; dropping the answer drops it.
    async fn on_runtime<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let mut tasks = JoinSet::new();
        tasks.spawn_on(work, &self.options.runtime);
        tasks.join_next().await?.ok()
    }

    /// Does `work` where it may take long.
    pub(crate) async fn offload<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        self.options.blocking.run(Box::new(move || {
            if !sender.is_canceled() {
                _ = sender.send(work());
            }
        }));
        receiver
            .await
            .unwrap_or_else(|_| Err(Error::Unavailable { what: "the origin".to_owned(), source: None }))
    }

    async fn sync_queue(self: &Arc<Self>) {
        let shared = self.clone();
        let synced = self.offload(move || {
            shared.queue.sync();
            Ok(())
        });
        // It counts its own failures; what is lost then is sent by whoever puts it next.
        _ = synced.await;
    }

    /// Notes a use of an entry, and now and then has its object looked at: unless that was put at a time that is known.
    fn note_use(&self, key: &Key, modified_ms: Option<u64>) {
        let Some(after) = self.options.keep.filter(|_| !self.options.is_read_only) else { return };
        let now_ms = self.options.clock.now_ms();
        let is_old = modified_ms.is_none_or(|at_ms| now_ms.saturating_sub(at_ms) >= after.as_millis() as u64);
        if self.used.mark(key, now_ms, KEPT_EVERY) && is_old {
            // Where the queue is full the next use asks for it again, a day later.
            self.queue.push(key, Action::Keep, None);
        }
    }

    /// A put into the fast backend: its wish to be sent is in the queue then, and in the journal after a flush.
    fn note_put(&self, key: &Key, when: When, put: &Result<Put>) {
        let Ok(Put::Stored(version)) = *put else { return };
        self.misses.forget(key);
        self.overtaken.by_write(key);
        if self.options.is_read_only {
            return;
        }
        // What is put now is not old.
        self.used.mark(key, self.options.clock.now_ms(), KEPT_EVERY);
        let action = if when == When::Absent { Action::UploadFirst } else { Action::Upload };
        if self.queue.push(key, action, Some(version)) == Queued::Full {
            self.counts.count(Counter::Dropped);
        }
    }

    /// A deletion: from here on nothing is got under the key until it is put again.
    fn note_delete(&self, key: &Key) -> Result<()> {
        if self.queue.push(key, Action::Remove, None) == Queued::Full {
            let what = "the queue of the origin (it is full)".to_owned();
            return Err(Error::Unavailable { what, source: None });
        }
        self.queue.flush();
        self.overtaken.by_write(key);
        Ok(())
    }

    /// The queue is told first: what was to be deleted there is, whatever happens here.
    async fn delete_everywhere(&self, key: &Key, when: When) -> Result<bool> {
        let _alone = self.overtaken.lock(key).await;
        self.note_delete(key)?;
        self.fast.delete(key, when).await
    }

    /// Waits for the origin to have these puts, where puts do: for all of them as long as for one.
    async fn wait_sent(&self, versions: &[Version]) -> Vec<Result<()>> {
        if self.options.write == Write::Behind || self.options.is_read_only {
            return versions.iter().map(|_| Ok(())).collect();
        }
        let paused = self.guard.paused(Lane::Writing);
        let outcomes: Vec<_> = versions.iter().map(|version| self.queue.outcome(*version)).collect();
        let longest = self.guard.budget();
        let waiting = async move {
            let deadline = Instant::now() + longest;
            let mut sent = Vec::with_capacity(outcomes.len());
            for outcome in outcomes {
                sent.push(match (outcome, &paused) {
                    (None, _) => Ok(()),
                    (Some(_), Some(error)) => Err(error.clone()),
                    (Some(outcome), None) => match tokio::time::timeout_at(deadline, outcome).await {
                        Ok(Ok(outcome)) => outcome,
                        // A clearing took its place.
                        Ok(Err(_)) => Ok(()),
                        Err(_) => Err(OriginError::Timeout { after: longest }),
                    },
                });
            }
            sent
        };
        let sent = self.on_runtime(waiting).await;
        let sent = sent.unwrap_or_else(|| versions.iter().map(|_| Err(closing())).collect());
        let tell = |outcome: Result<(), OriginError>| match outcome {
            Err(error) if self.options.on_error == OnError::All => Err(error.into()),
            // It waits in the queue, and is sent when that can be.
            _ => Ok(()),
        };
        sent.into_iter().map(tell).collect()
    }

    /// The put of an entry that the fast backend could not take, where any tier will do.
    async fn put_past_disk(
        self: &Arc<Self>,
        key: &Key,
        entry: Entry,
        when: When,
        error: Error,
    ) -> Result<Put> {
        let is_for_any_tier = self.options.on_error == OnError::Ignore && !self.options.is_read_only;
        let is_disks_trouble = matches!(
            error.kind(),
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Full | ErrorKind::ReadOnly
        );
        if !is_for_any_tier || !is_disks_trouble || when != When::Always {
            return Err(error);
        }
        let (shared, key) = (self.clone(), key.clone());
        let sending = async move {
            let object = {
                let key = key.clone();
                shared.offload(move || layout::object(&key, &entry)).await?
            };
            shared.misses.forget(&key);
            shared.put_object(&key, &object, false).await.map_err(Error::from)
        };
        match self.on_runtime(sending).await {
            Some(Ok(_)) => Ok(Put::Stored(NOT_HERE)),
            _ => Err(error),
        }
    }
}

/// The version of an entry that the fast backend does not hold: none that it ever gave.
const NOT_HERE: Version = Version(0);

fn closing() -> OriginError {
    OriginError::Unreachable { what: "the server is closing".to_owned() }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Backend for Tiered {
    fn name(&self) -> &'static str {
        self.shared.fast.name()
    }

    async fn get_many(&self, keys: &[Key]) -> Vec<Result<Option<Found>>> {
        let mut answers = self.shared.fast.get_many(keys).await;
        let mut wanted = Vec::new();
        for (place, (key, answer)) in keys.iter().zip(&answers).enumerate() {
            match answer {
                Ok(Some(found)) if self.shared.is_due(key) => wanted.push((place, key, Some(found.clone()))),
                Ok(Some(_)) => self.shared.note_use(key, None),
                // What the disk cannot read, the origin may have.
                Ok(None) | Err(_) => wanted.push((place, key, None)),
            }
        }
        let mut wanted = wanted.into_iter();
        let mut tasks = JoinSet::new();
        let (began, longest) = (Instant::now(), self.shared.guard.budget());
        loop {
            while tasks.len() < ASKED_MAX
                && let Some((place, key, here)) = wanted.next()
            {
                if began.elapsed() >= longest {
                    // All that one of them may take: the budget is that of the lookup, however many keys it has.
                    let answer = answers.get_mut(place).filter(|answer| matches!(answer, Ok(None)));
                    if let Some(answer) = answer {
                        *answer = Err(OriginError::Timeout { after: longest }.into());
                    }
                    continue;
                }
                let (shared, key) = (self.shared.clone(), key.clone());
                let asking = async move {
                    match here {
                        Some(found) => (place, Ok(Some(shared.refresh(&key, found).await))),
                        None => (place, shared.bring(&key).await),
                    }
                };
                tasks.spawn_on(asking, &self.shared.options.runtime);
            }
            let Some(ended) = tasks.join_next().await else { return answers };
            let Ok((place, brought)) = ended else { continue };
            let Some(answer) = answers.get_mut(place) else { continue };
            // The disk's error says more than that the origin lacks it, or fails as well.
            if answer.is_ok() || matches!(brought, Ok(Some(_))) {
                *answer = brought;
            }
        }
    }

    async fn head(&self, key: &Key) -> Result<Option<Head>> {
        match self.shared.fast.head(key).await? {
            Some(head) => Ok(Some(head)),
            None => {
                self.shared.bring_here(key).await?;
                self.shared.fast.head(key).await
            }
        }
    }

    async fn touch(&self, key: &Key) -> Result<Option<Head>> {
        let touched = self.shared.fast.touch(key).await?;
        if touched.is_none() {
            return Ok(None);
        }
        if !self.shared.is_due(key) {
            self.shared.note_use(key, None);
            return Ok(touched);
        }
        self.shared.refresh_here(key).await;
        self.shared.fast.head(key).await
    }

    async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<Put> {
        let shared = &self.shared;
        shared.prepare(key, when).await?;
        let put = {
            let _alone = shared.overtaken.lock(key).await;
            let put = shared.fast.put(key, entry.clone(), when).await;
            shared.note_put(key, when, &put);
            put
        };
        shared.queue.flush();
        match put {
            Ok(Put::Stored(version)) => {
                shared.wait_sent(&[version]).await.into_iter().collect::<Result<()>>()?;
                Ok(Put::Stored(version))
            }
            Ok(Put::Unmet) => Ok(Put::Unmet),
            Err(error) => shared.put_past_disk(key, entry, when, error).await,
        }
    }

    async fn stage(&self, key: &Key, entry: Entry, when: When) -> Result<Put> {
        let shared = &self.shared;
        shared.prepare(key, when).await?;
        let staged = {
            let _alone = shared.overtaken.lock(key).await;
            let staged = shared.fast.stage(key, entry.clone(), when).await;
            // From here on, as nobody may ever settle it. If the disk takes it back, there is nothing to be sent.
            shared.note_put(key, when, &staged);
            staged
        };
        match staged {
            Err(error) => shared.put_past_disk(key, entry, when, error).await,
            staged => staged,
        }
    }

    async fn settle_many(&self, versions: &[Version]) -> Vec<Result<()>> {
        let settled = self.shared.fast.settle_many(versions).await;
        self.shared.queue.flush();
        let sent = self.shared.wait_sent(versions).await;
        settled.into_iter().zip(sent).map(|(settled, sent)| settled.and(sent)).collect()
    }

    async fn set_expiry(&self, key: &Key, expires_ms: Option<u64>, when: When) -> Result<Put> {
        if self.shared.fast.head(key).await?.is_none() {
            self.shared.bring_here(key).await?;
        }
        let put = {
            let _alone = self.shared.overtaken.lock(key).await;
            let put = self.shared.fast.set_expiry(key, expires_ms, when).await;
            self.shared.note_put(key, When::Always, &put);
            put
        };
        self.shared.queue.flush();
        put
    }

    async fn delete(&self, key: &Key, when: When) -> Result<bool> {
        let shared = &self.shared;
        let is_here = shared.fast.head(key).await?.is_some();
        match when {
            _ if shared.options.is_read_only => shared.fast.delete(key, when).await,
            When::Absent => shared.fast.delete(key, when).await,
            // Of an entry that is here, or of none.
            When::Version(_) => {
                let _alone = shared.overtaken.lock(key).await;
                let deleted = shared.fast.delete(key, when).await?;
                if deleted {
                    shared.note_delete(key)?;
                }
                Ok(deleted)
            }
            When::Always | When::Present if is_here => shared.delete_everywhere(key, when).await,
            When::Always | When::Present if shared.queue.is_gone(key) => Ok(false),
            When::Always | When::Present => match shared.bring_here(key).await {
                Ok(None) => Ok(false),
                Ok(Some(_)) => shared.delete_everywhere(key, When::Always).await.map(|_| true),
                // It may be there.
                Err(_) => shared.delete_everywhere(key, When::Always).await,
            },
        }
    }

    async fn scan(&self, namespace: &Namespace, cursor: Cursor, limit: usize) -> Result<Page> {
        self.shared.fast.scan(namespace, cursor, limit).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64> {
        if self.shared.options.is_read_only {
            return self.shared.fast.clear(namespace).await;
        }
        let _alone = self.shared.overtaken.lock_all().await;
        self.shared.queue.push_clear(namespace);
        self.shared.queue.flush();
        self.shared.overtaken.by_clear(namespace);
        self.shared.fast.clear(namespace).await
    }

    async fn usage(&self, namespace: Option<&Namespace>) -> Result<Usage> {
        self.shared.fast.usage(namespace).await
    }

    async fn sync(&self) -> Result<()> {
        self.shared.queue.flush();
        self.shared.sync_queue().await;
        self.shared.fast.sync().await
    }
}

impl fmt::Display for Tiered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { fast, guard, options, .. } = &*self.shared;
        write!(f, "tiered({fast}, {}, ", guard.origin())?;
        match options.is_read_only {
            true => f.write_str("read-only)"),
            false => write!(f, "write {}, fail {})", options.write.name(), options.on_error.name()),
        }
    }
}
