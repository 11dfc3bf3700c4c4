//! The controller: PyTorch's `RemoteCache` role. Every operation is counted at two levels and may be sampled.

mod puts;
mod remote;

use std::sync::Arc;
use std::time::Instant;

use futures_channel::oneshot;

pub use self::puts::{PendingPut, PutOutcome, Refused, Staged};
pub use self::remote::RemoteCache;
use crate::leases::Leases;
use crate::{
    Backend, Blocking, Cursor, Entry, Error, Found, Handed, Head, Inline, Key, Kind, Maintenance, Namespace,
    NoSamples, Operation, Outcome, Page, Put, ReadThrough, Result, Sample, SampleHooks, Stats, Usage,
    Verified, Version, When,
};

/// What becomes of a backend's error, after it was counted and sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailurePolicy {
    /// The caller gets it, as in PyTorch.
    #[default]
    Raise,
    /// For compile-cache kinds ([`crate::Kind::is_compile_cache`]) a failed get is a miss and a failed put is
    /// [`PutOutcome::Refused`]; other kinds get the error.
    Absorb,
}

/// The controller over one backend. Entries in, entries out; [`RemoteCache`] adds a serde.
#[derive(Debug)]
pub struct Cache {
    backend: Arc<dyn Backend>,
    stats: Stats,
    hooks: Arc<dyn SampleHooks>,
    policy: FailurePolicy,
    blocking: Arc<dyn Blocking>,
    maintenance: Option<Arc<dyn Maintenance>>,
    leases: Leases,
}

/// Artifacts up to this length, in bytes, are unpacked on the calling thread.
const VERIFY_INLINE_MAX: u64 = 256 << 10;

/// What a hit is counted with.
#[derive(Debug, Clone, Copy)]
struct Served {
    bytes: u64,
    compile_ms: u32,
    tier: u8,
    handed: Handed,
}

impl Served {
    fn of(answer: &Result<Option<Found>>, handed: Handed) -> Option<Self> {
        let found = answer.as_ref().ok()?.as_ref()?;
        let Entry { artifact, metadata } = &found.entry;
        Some(Self { bytes: artifact.len(), compile_ms: metadata.compile_ms, tier: found.tier, handed })
    }
}

impl Cache {
    /// A cache that raises errors and samples nothing.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            stats: Stats::default(),
            hooks: Arc::new(NoSamples),
            policy: FailurePolicy::Raise,
            blocking: Arc::new(Inline),
            maintenance: None,
            leases: Leases::default(),
        }
    }

    /// The same with these hooks.
    #[must_use]
    pub fn with_hooks(mut self, hooks: Arc<dyn SampleHooks>) -> Self {
        self.hooks = hooks;
        self
    }

    /// The same with this policy.
    #[must_use]
    pub fn with_policy(mut self, policy: FailurePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// The same, with long artifacts unpacked there instead of on the calling thread.
    #[must_use]
    pub fn with_blocking(mut self, blocking: Arc<dyn Blocking>) -> Self {
        self.blocking = blocking;
        self
    }

    /// The same, with damaged entries set aside there, for a person to look at, instead of deleted.
    #[must_use]
    pub fn with_maintenance(mut self, maintenance: Option<Arc<dyn Maintenance>>) -> Self {
        self.maintenance = maintenance;
        self
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Who compiles what, and who waits for it: told of every put here, and asked by front-ends.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The backend, for what needs no counting.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// The entry under `key`.
    ///
    /// # Errors
    /// The backend's, unless the policy absorbs them.
    pub async fn get(&self, key: &Key) -> Result<Option<Found<Verified>>> {
        self.get_many(std::slice::from_ref(key)).await.pop().unwrap_or(Ok(None))
    }

    /// The entries under `keys`, in order, in one backend operation.
    pub async fn get_many(&self, keys: &[Key]) -> Vec<Result<Option<Found<Verified>>>> {
        self.get_decoded(keys, None, Ok).await
    }

    /// The same, looking further where `through` says so: one backend operation more for each step there. What is found there
    /// is a hit like any other.
    pub async fn get_many_through(
        &self,
        keys: &[Key],
        through: Option<&ReadThrough>,
    ) -> Vec<Result<Option<Found<Verified>>>> {
        self.get_decoded(keys, through, Ok).await
    }

    /// As [`Cache::get_many_through`], for whoever passes envelopes on: artifacts may be packed, and damaged, still, and are
    /// portable.
    pub async fn get_many_packed(
        &self,
        keys: &[Key],
        through: Option<&ReadThrough>,
    ) -> Vec<Result<Option<Found>>> {
        let samples: Vec<_> = keys.iter().map(|key| self.open_sample(key, Operation::Get)).collect();
        let (answers, elsewhere) = self.ask(keys, through).await;
        let mut results = Vec::with_capacity(keys.len());
        for (place, ((key, answer), sample)) in keys.iter().zip(answers).zip(samples).enumerate() {
            let served = Served::of(&answer, Handed::Envelope);
            let answer = self.portable(stored_under(key, &elsewhere, place), answer).await;
            self.count_backend_get(key, &answer);
            results.push(self.close_get(key, sample, served, answer));
        }
        results
    }

    /// Asks the backend, then again for what is missing and may be elsewhere. With the answers comes under which other key each
    /// was found: nothing at all where nothing was looked for elsewhere.
    async fn ask(
        &self,
        keys: &[Key],
        through: Option<&ReadThrough>,
    ) -> (Vec<Result<Option<Found>>>, Vec<Option<Key>>) {
        let mut answers = self.backend.get_many(keys).await;
        debug_assert_eq!(answers.len(), keys.len(), "contract 5");
        let elsewhere = match through {
            Some(through) => through.go_on(&*self.backend, keys, &mut answers).await,
            None => Vec::new(),
        };
        (answers, elsewhere)
    }

    /// Packs anew what is stored against another artifact, so that passing it on costs no more than its head. One that cannot be
    /// is damaged, and set aside.
    async fn portable(&self, key: &Key, answer: Result<Option<Found>>) -> Result<Option<Found>> {
        let Some(found) = answer? else { return Ok(None) };
        if found.entry.artifact.is_portable() {
            return Ok(Some(found));
        }
        let artifact = found.entry.artifact.clone();
        match self.offload(move || artifact.make_portable()).await {
            Ok(()) => Ok(Some(found)),
            Err(error) => Err(self.set_aside(key, found.version, error).await),
        }
    }

    /// The entry under `key`, neither counted nor sampled: for what is no lookup.
    ///
    /// # Errors
    /// The backend's.
    pub async fn peek(&self, key: &Key) -> Result<Option<Found<Verified>>> {
        let answer = self.backend.get_many(std::slice::from_ref(key)).await.pop().unwrap_or(Ok(None));
        self.verified(key, answer).await
    }

    /// Checks what a backend answered. Where its own checks passed and the artifact's does not, the entry is set aside: the
    /// next get is a miss.
    async fn verified(&self, key: &Key, answer: Result<Option<Found>>) -> Result<Option<Found<Verified>>> {
        let Some(found) = answer? else { return Ok(None) };
        let artifact = &found.entry.artifact;
        let is_long = artifact.len() > VERIFY_INLINE_MAX || !artifact.is_portable();
        if is_long && !artifact.is_verified() {
            let artifact = artifact.clone();
            if let Err(error) = self.offload(move || artifact.verify().map(drop)).await {
                return Err(self.set_aside(key, found.version, error).await);
            }
        }
        let version = found.version;
        match found.verify() {
            Ok(found) => Ok(Some(found)),
            Err(error) => Err(self.set_aside(key, version, error).await),
        }
    }

    /// Does `work` where it may take long.
    async fn offload<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        self.blocking.run(Box::new(move || {
            if !sender.is_canceled() {
                let _ = sender.send(work());
            }
        }));
        receiver
            .await
            .unwrap_or_else(|_| Err(Error::Unavailable { what: "the cache".to_owned(), source: None }))
    }

    /// See [`Maintenance::group`]; nothing is in a group where there is no disk.
    ///
    /// # Errors
    /// The backend's.
    pub async fn group(&self, leader: Key, keys: Vec<Key>) -> Result<usize> {
        match self.maintenance.clone() {
            Some(maintenance) => self.offload(move || maintenance.group(&leader, &keys)).await,
            None => Ok(0),
        }
    }

    async fn set_aside(&self, key: &Key, version: Version, error: Error) -> Error {
        if !matches!(error, Error::Corrupt { .. }) {
            return error;
        }
        let Some(maintenance) = self.maintenance.clone() else {
            let _ = self.backend.delete(key, When::Version(version)).await;
            return error;
        };
        let (key, reason) = (key.clone(), error.to_string());
        let (sender, receiver) = oneshot::channel();
        self.blocking.run(Box::new(move || {
            let _ = sender.send(maintenance.set_aside(&key, version, &reason).map(drop));
        }));
        let _ = receiver.await;
        error
    }

    /// As [`Cache::get_many`], with `decode` counted as part of the operation: a hit is a hit only if it decodes.
    async fn get_decoded<T>(
        &self,
        keys: &[Key],
        through: Option<&ReadThrough>,
        decode: impl Fn(Found<Verified>) -> Result<T>,
    ) -> Vec<Result<Option<T>>> {
        let samples: Vec<_> = keys.iter().map(|key| self.open_sample(key, Operation::Get)).collect();
        let (answers, elsewhere) = self.ask(keys, through).await;
        let mut results = Vec::with_capacity(keys.len());
        for (place, ((key, answer), sample)) in keys.iter().zip(answers).zip(samples).enumerate() {
            let served = Served::of(&answer, Handed::Artifact);
            let answer = self.verified(stored_under(key, &elsewhere, place), answer).await;
            self.count_backend_get(key, &answer);
            let result = answer.and_then(|found| found.map(&decode).transpose());
            results.push(self.close_get(key, sample, served, result));
        }
        results
    }

    fn count_backend_get<T>(&self, key: &Key, answer: &Result<Option<T>>) {
        let outcome = outcome_of_get(answer);
        // An exception counts whatever was asked for.
        if !key.is_list_of_variants() || outcome == Outcome::Exception {
            self.stats.count_backend(outcome);
        }
    }

    fn close_get<T>(
        &self,
        key: &Key,
        sample: OpenSample,
        served: Option<Served>,
        result: Result<Option<T>>,
    ) -> Result<Option<T>> {
        let outcome = outcome_of_get(&result);
        if !key.is_list_of_variants() || outcome == Outcome::Exception {
            self.stats.count(key.kind(), outcome);
        }
        if let (Outcome::Hit, Some(Served { bytes, compile_ms, tier, handed })) = (outcome, served) {
            self.stats.add_served(key.kind(), bytes, compile_ms, tier, handed);
        }
        let (tier, bytes) = (served.map(|served| served.tier), served.map_or(0, |served| served.bytes));
        self.log_sample(sample, Some(outcome), tier, bytes, result.as_ref().err());
        match result {
            Err(error) if self.absorbs(key.kind()) => {
                self.stats.count_absorbed_get(error.kind());
                Ok(None)
            }
            other => other,
        }
    }

    /// What is known of the entry under `key`. Not counted, unless it fails: it serves `EXISTS`, `TTL` and their like.
    ///
    /// # Errors
    /// The backend's, unless the policy absorbs them.
    pub async fn head(&self, key: &Key) -> Result<Option<Head>> {
        match self.backend.head(key).await {
            Err(error) if self.absorbs(key.kind()) => {
                self.stats.count_absorbed_get(error.kind());
                Ok(None)
            }
            head => head,
        }
    }

    /// The same of what [`Cache::get_many_through`] would find.
    ///
    /// # Errors
    /// The backend's.
    pub async fn head_through(&self, key: &Key, through: Option<&ReadThrough>) -> Result<Option<Head>> {
        let mut head = self.head(key).await?;
        let mut tried = 0;
        while head.is_none()
            && let Some(further) = through.and_then(|through| through.next(key, tried))
        {
            head = self.head(&further).await?;
            tried += 1;
        }
        Ok(head)
    }

    /// See [`Backend::set_expiry`].
    ///
    /// # Errors
    /// The backend's.
    pub async fn set_expiry(&self, key: &Key, expires_ms: Option<u64>, when: When) -> Result<Put> {
        self.backend.set_expiry(key, expires_ms, when).await
    }

    /// See [`Backend::delete`].
    ///
    /// # Errors
    /// The backend's.
    pub async fn delete(&self, key: &Key, when: When) -> Result<bool> {
        self.backend.delete(key, when).await
    }

    /// See [`Backend::scan`].
    ///
    /// # Errors
    /// The backend's.
    pub async fn scan(&self, namespace: &Namespace, cursor: Cursor, limit: usize) -> Result<Page> {
        self.backend.scan(namespace, cursor, limit).await
    }

    /// See [`Backend::clear`].
    ///
    /// # Errors
    /// The backend's.
    pub async fn clear(&self, namespace: &Namespace) -> Result<u64> {
        self.backend.clear(namespace).await
    }

    /// See [`Backend::usage`].
    ///
    /// # Errors
    /// The backend's.
    pub async fn usage(&self, namespace: Option<&Namespace>) -> Result<Usage> {
        self.backend.usage(namespace).await
    }

    /// Counts a get that was given up before its backend answered (its deadline passed): a miss where the policy
    /// absorbs it.
    ///
    /// # Errors
    /// `error` itself, where the policy does not absorb it.
    pub fn refuse_get<T>(&self, key: &Key, error: Error) -> Result<Option<T>> {
        self.stats.count(key.kind(), Outcome::Exception);
        if self.absorbs(key.kind()) {
            self.stats.count_absorbed_get(error.kind());
            return Ok(None);
        }
        Err(error)
    }

    fn absorbs(&self, kind: Kind) -> bool {
        self.policy == FailurePolicy::Absorb && kind.is_compile_cache()
    }

    fn open_sample(&self, key: &Key, operation: Operation) -> OpenSample {
        self.hooks.create_sample(key, operation).map(|sample| (sample, Instant::now()))
    }

    fn log_sample(
        &self,
        sample: OpenSample,
        outcome: Option<Outcome>,
        tier: Option<u8>,
        bytes: u64,
        error: Option<&Error>,
    ) {
        let Some((mut sample, started)) = sample else { return };
        sample.outcome = outcome;
        sample.tier = tier;
        sample.bytes = bytes;
        sample.duration = started.elapsed();
        sample.fail_reason = error.map(ToString::to_string);
        self.hooks.log_sample(sample);
    }
}

/// The key that an answer was found under.
fn stored_under<'a>(key: &'a Key, elsewhere: &'a [Option<Key>], place: usize) -> &'a Key {
    elsewhere.get(place).and_then(Option::as_ref).unwrap_or(key)
}

fn outcome_of_get<T>(answer: &Result<Option<T>>) -> Outcome {
    match answer {
        Ok(Some(_)) => Outcome::Hit,
        Ok(None) => Outcome::Miss,
        Err(_) => Outcome::Exception,
    }
}

type OpenSample = Option<(Sample, Instant)>;
