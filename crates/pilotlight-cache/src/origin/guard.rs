//! What stands in front of an origin: one budget an operation with retries inside it, a breaker for reading and one for
//! writing, a bound on what is under way, and counters. Nothing asks an origin but through here.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use super::breaker::{Breaker, jittered};
use super::counts::Counter;
use super::{About, Fetched, FirstPut, Listing, ObjectName, Origin, OriginCounts, OriginError, Tag};

/// Gets under way at a time. More would only share the same network, and wait in the origin instead of here.
const GETS_MAX: usize = 64;
/// Times that an operation is tried once more.
const RETRIES_MAX: u32 = 2;
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// What a put may take on top of the budget: as long as its bytes take at a megabyte a second. Nobody waits for it longer than
/// for the budget.
const SLOWEST_BYTES_PER_SECOND: u64 = 1 << 20;
/// Asked for when nothing else is, to see whether the origin answers.
const PROBE: &str = "v1/probe";

/// An origin that cannot take more time than it may.
#[derive(Debug)]
pub(crate) struct Guard {
    origin: Arc<dyn Origin>,
    counts: Arc<OriginCounts>,
    budget: Duration,
    reading: Mutex<Breaker>,
    writing: Mutex<Breaker>,
    gets: Semaphore,
    /// A breaker may have opened: somebody has to look when it is time for a probe.
    pub(crate) opened: Notify,
    /// For the jitter.
    random: AtomicU64,
}

/// Which breaker an operation goes by: who may not write can read all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Reading,
    Writing,
}

impl Guard {
    pub(crate) fn new(
        origin: Arc<dyn Origin>,
        counts: Arc<OriginCounts>,
        budget: Duration,
        seed: u64,
    ) -> Self {
        Self {
            origin,
            counts,
            budget,
            reading: Mutex::default(),
            writing: Mutex::default(),
            gets: Semaphore::new(GETS_MAX),
            opened: Notify::new(),
            random: AtomicU64::new(seed),
        }
    }

    pub(crate) fn origin(&self) -> &Arc<dyn Origin> {
        &self.origin
    }

    pub(crate) fn budget(&self) -> Duration {
        self.budget
    }

    /// When that lane may be probed, if nothing else of it may be tried.
    pub(crate) fn paused_until(&self, lane: Lane) -> Option<Instant> {
        self.breaker(lane).lock().open_until()
    }

    /// Why nothing of that lane is tried now, if so.
    pub(crate) fn paused(&self, lane: Lane) -> Option<OriginError> {
        let breaker = self.breaker(lane).lock();
        breaker.open_until().map(|_| OriginError::Paused { failures: breaker.failures() })
    }

    pub(crate) async fn get(
        &self,
        name: &ObjectName,
        max_bytes: u64,
        unless: Option<&Tag>,
    ) -> Result<Fetched, OriginError> {
        self.counts.count(Counter::Gets);
        let fetched =
            self.call(Lane::Reading, self.budget, || self.origin.get(name, max_bytes, unless)).await?;
        if let Fetched::Object { bytes, .. } = &fetched {
            self.counts.add(Counter::ReceivedBytes, bytes.len() as u64);
        }
        Ok(fetched)
    }

    pub(crate) async fn head(&self, name: &ObjectName) -> Result<Option<About>, OriginError> {
        self.call(Lane::Reading, self.budget, || self.origin.head(name)).await
    }

    pub(crate) async fn put(&self, name: &ObjectName, object: &[Bytes]) -> Result<Option<Tag>, OriginError> {
        let (len, budget) = self.sending(object);
        let tag = self.call(Lane::Writing, budget, || self.origin.put(name, object.to_vec())).await?;
        self.counts.add(Counter::SentBytes, len);
        Ok(tag)
    }

    pub(crate) async fn put_if_absent(
        &self,
        name: &ObjectName,
        object: &[Bytes],
    ) -> Result<FirstPut, OriginError> {
        let (len, budget) = self.sending(object);
        let put =
            self.call(Lane::Writing, budget, || self.origin.put_if_absent(name, object.to_vec())).await?;
        self.counts.add(Counter::SentBytes, len);
        Ok(put)
    }

    pub(crate) async fn delete(&self, name: &ObjectName) -> Result<(), OriginError> {
        self.call(Lane::Writing, self.budget, || self.origin.delete(name)).await
    }

    /// Listing serves clearing, so it goes by that lane.
    pub(crate) async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectName>,
        limit: usize,
    ) -> Result<Listing, OriginError> {
        self.call(Lane::Writing, self.budget, || self.origin.list(prefix, after, limit)).await
    }

    /// Asks for an object that is not there, to see whether the origin answers again.
    pub(crate) async fn probe(&self) -> Result<(), OriginError> {
        let deadline = Instant::now() + self.budget;
        let name = ObjectName::given(PROBE);
        let answer = timeout_at(deadline, self.origin.head(&name)).await;
        let answer = answer.unwrap_or(Err(OriginError::Timeout { after: self.budget }));
        let random = self.random();
        let mut breaker = self.reading.lock();
        match answer {
            Err(error) if error.is_trouble() => {
                breaker.fail_probe(Instant::now(), random);
                self.counts.count_fault(error.fault());
                Err(error)
            }
            _ => {
                breaker.succeed();
                Ok(())
            }
        }
    }

    fn sending(&self, object: &[Bytes]) -> (u64, Duration) {
        let len: u64 = object.iter().map(|piece| piece.len() as u64).sum();
        (len, self.budget + Duration::from_secs(len / SLOWEST_BYTES_PER_SECOND))
    }

    fn breaker(&self, lane: Lane) -> &Mutex<Breaker> {
        match lane {
            Lane::Reading => &self.reading,
            Lane::Writing => &self.writing,
        }
    }

    /// One operation, with its retries. While a lane is paused nothing of it is tried; what is written, once the pause is over:
    /// that is the probe then, and [`super::backfill`] sees to it that it is one alone.
    async fn call<T, F>(&self, lane: Lane, budget: Duration, ask: impl Fn() -> F) -> Result<T, OriginError>
    where
        F: Future<Output = Result<T, OriginError>>,
    {
        let (failures, open_until) = {
            let breaker = self.breaker(lane).lock();
            (breaker.failures(), breaker.open_until())
        };
        let is_probe = lane == Lane::Writing && open_until.is_some_and(|until| until <= Instant::now());
        let result = if open_until.is_some() && !is_probe {
            Err(OriginError::Paused { failures })
        } else {
            self.attempt(lane, budget, is_probe, ask).await
        };
        if let Err(error) = &result {
            self.counts.count_fault(error.fault());
        }
        result
    }

    async fn attempt<T, F>(
        &self,
        lane: Lane,
        budget: Duration,
        is_probe: bool,
        ask: impl Fn() -> F,
    ) -> Result<T, OriginError>
    where
        F: Future<Output = Result<T, OriginError>>,
    {
        let deadline = Instant::now() + budget;
        let late = || OriginError::Timeout { after: budget };
        let _slot = match lane {
            // Who waits here for too long does so because others are slow; their failures count.
            Lane::Reading => match timeout_at(deadline, self.gets.acquire()).await {
                Ok(slot) => slot.ok(),
                Err(_) => return Err(late()),
            },
            // Bounded by who sends.
            Lane::Writing => None,
        };
        let mut retries = 0;
        let result = loop {
            let result = timeout_at(deadline, ask()).await.unwrap_or_else(|_| Err(late()));
            let pause = jittered(RETRY_PAUSE.saturating_mul(1 << retries), self.random());
            let is_worth_it = retries < RETRIES_MAX && !is_probe && Instant::now() + pause < deadline;
            match result {
                Err(error) if is_worth_it && error.is_passing() => {}
                result => break result,
            }
            retries += 1;
            self.counts.count(Counter::Retries);
            sleep(pause).await;
        };
        let random = self.random();
        let mut breaker = self.breaker(lane).lock();
        match &result {
            Err(error) if error.is_trouble() && is_probe => breaker.fail_probe(Instant::now(), random),
            Err(error) if error.is_trouble() => breaker.fail(Instant::now(), random),
            _ => breaker.succeed(),
        }
        let is_open = breaker.open_until().is_some();
        drop(breaker);
        if is_open {
            self.opened.notify_one();
        }
        result
    }

    /// Splitmix64: any numbers that differ from node to node will do.
    fn random(&self) -> u64 {
        let mut mixed = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
