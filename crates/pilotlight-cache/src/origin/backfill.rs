//! Sends what the queue holds, some of it at a time, and asks the origin now and then whether it answers again.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::counts::Counter;
use super::guard::Lane;
use super::queue::{Action, Job};
use super::{FirstPut, ObjectName, OriginError, OriginFault, Tag, layout};
use crate::layers::tiered::Shared;
use crate::{Error, Key, Namespace};

/// Sent at a time.
const JOBS_MAX: usize = 16;
/// Objects of a listing deleted at a time.
const DELETES_MAX: usize = 16;
const LISTED: usize = 1000;
/// What a power cut may lose of the queue: as of a put into a `relaxed` store.
const SYNCED_EVERY: Duration = Duration::from_secs(1);
/// After an entry that could not be read from the disk.
const DISK_PAUSE: Duration = Duration::from_millis(500);

/// Runs until it is dropped.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut jobs = JoinSet::new();
    let mut probes = JoinSet::new();
    let mut synced = Instant::now();
    loop {
        // A paused lane gets one job for its probe when the pause is over, and no other beside it.
        let paused_until = shared.guard.paused_until(Lane::Writing);
        let jobs_max = match paused_until {
            None => JOBS_MAX,
            Some(until) if until <= Instant::now() => 1,
            Some(_) => 0,
        };
        while jobs.len() < jobs_max
            && let Some(job) = shared.queue.take()
        {
            let shared = Arc::clone(&shared);
            jobs.spawn(async move {
                let outcome = match shared.run_job(&job).await {
                    // It would fail for ever.
                    Err(error) if !error.is_trouble() && error.fault() != OriginFault::Paused => {
                        shared.counts.count(Counter::Dropped);
                        Ok(())
                    }
                    outcome => outcome,
                };
                shared.queue.finish(&job, &outcome);
            });
        }
        shared.queue.flush();
        let wakes = [
            paused_until
                .filter(|until| jobs.is_empty() && *until > Instant::now() && !shared.queue.is_empty()),
            shared.guard.paused_until(Lane::Reading).filter(|_| probes.is_empty()),
            shared.queue.is_unsynced().then_some(synced + SYNCED_EVERY),
        ];
        let wake = wakes.into_iter().flatten().min();
        tokio::select! {
            () = shared.queue.wake.notified() => {}
            () = shared.guard.opened.notified() => {}
            Some(_) = jobs.join_next() => {}
            Some(_) = probes.join_next() => {}
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
        }
        if probes.is_empty()
            && shared.guard.paused_until(Lane::Reading).is_some_and(|until| until <= Instant::now())
        {
            let shared = Arc::clone(&shared);
            // What it answers is in the breaker then.
            probes.spawn(async move { shared.guard.probe().await.is_ok() });
        }
        if shared.queue.is_unsynced() && synced + SYNCED_EVERY <= Instant::now() {
            synced = Instant::now();
            let shared = Arc::clone(&shared);
            shared.options.blocking.clone().run(Box::new(move || shared.queue.sync()));
        }
    }
}

impl Shared {
    async fn run_job(self: &Arc<Self>, job: &Job) -> Result<(), OriginError> {
        match job {
            Job::One(key, action @ (Action::Upload | Action::UploadFirst)) => {
                self.upload(key, *action == Action::UploadFirst).await
            }
            Job::One(key, Action::Remove) => self.remove(&ObjectName::of(key)).await,
            Job::One(key, Action::Keep) => self.keep(key).await,
            Job::Clear(namespace) => self.clear_objects(namespace).await,
        }
    }

    /// Puts the entry that the disk has now; one that has left it meanwhile is counted.
    async fn upload(self: &Arc<Self>, key: &Key, is_first: bool) -> Result<(), OriginError> {
        let found = match self.peek.peek(key).await {
            Ok(Some(found)) => found,
            // Evicted, expired, deleted, or set aside as damaged: nothing to send.
            Ok(None) | Err(Error::Corrupt { .. }) => {
                self.counts.count(Counter::Vanished);
                return Ok(());
            }
            Err(error) => {
                tokio::time::sleep(DISK_PAUSE).await;
                return Err(OriginError::Failed { what: format!("nothing to send: {error}") });
            }
        };
        let sealed = {
            let key = key.clone();
            self.offload(move || layout::object(&key, &found.entry)).await
        };
        let Ok(object) = sealed else {
            self.counts.count(Counter::Vanished);
            return Ok(());
        };
        let tag = self.put_object(key, &object, is_first).await?;
        self.fresh.note(key, tag, self.options.clock.now_ms());
        Ok(())
    }

    pub(crate) async fn put_object(
        &self,
        key: &Key,
        object: &[bytes::Bytes],
        is_first: bool,
    ) -> Result<Option<Tag>, OriginError> {
        let name = ObjectName::of(key);
        if is_first {
            match self.guard.put_if_absent(&name, object).await {
                Ok(FirstPut::Stored(tag)) => {
                    self.counts.count(Counter::Puts);
                    return Ok(tag);
                }
                Ok(FirstPut::Taken) => {
                    self.counts.count(Counter::Taken);
                    return Ok(None);
                }
                // Then the last one wins, as everywhere else.
                Err(OriginError::Unsupported { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let tag = self.guard.put(&name, object).await?;
        self.counts.count(Counter::Puts);
        Ok(tag)
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), OriginError> {
        self.guard.delete(name).await?;
        self.counts.count(Counter::Deletes);
        Ok(())
    }

    /// Puts an object again that is used here and grew old, or is not there any more.
    async fn keep(self: &Arc<Self>, key: &Key) -> Result<(), OriginError> {
        let Some(after) = self.options.keep else { return Ok(()) };
        let about = self.guard.head(&ObjectName::of(key)).await?;
        let now_ms = self.options.clock.now_ms();
        let is_old = |modified_ms: u64| now_ms.saturating_sub(modified_ms) >= after.as_millis() as u64;
        if about.is_none_or(|about| is_old(about.modified_ms)) {
            self.upload(key, false).await?;
            self.counts.count(Counter::Kept);
        }
        Ok(())
    }

    /// Deletes what a listing shows. What another node puts meanwhile may go or stay.
    async fn clear_objects(self: &Arc<Self>, namespace: &Namespace) -> Result<(), OriginError> {
        let prefix = layout::namespace_prefix(namespace);
        let mut after = None;
        loop {
            let listing = self.guard.list(&prefix, after.as_ref(), LISTED).await?;
            let mut deletes = JoinSet::new();
            for (name, _) in &listing.objects {
                if deletes.len() >= DELETES_MAX {
                    joined(deletes.join_next().await)?;
                }
                let (shared, name) = (Arc::clone(self), name.clone());
                deletes.spawn(async move { shared.remove(&name).await });
            }
            while let Some(deleted) = deletes.join_next().await {
                joined(Some(deleted))?;
            }
            match listing.objects.last() {
                Some((last, _)) if listing.is_truncated => after = Some(last.clone()),
                _ => return Ok(()),
            }
        }
    }
}

type Joined = Result<Result<(), OriginError>, tokio::task::JoinError>;

fn joined(ended: Option<Joined>) -> Result<(), OriginError> {
    match ended {
        Some(Ok(outcome)) => outcome,
        Some(Err(_)) => Err(OriginError::Failed { what: "a deletion was broken off".to_owned() }),
        None => Ok(()),
    }
}
