//! From the origin into the fast backend: what is not here, and what may be newer there.

use std::sync::Arc;

use bytes::Bytes;

use super::{NOT_HERE, Shared, closing, is_replaced};
use crate::origin::{About, Counter, Fetched, ObjectName, OriginError, layout};
use crate::{BackendExt, Entry, Error, ErrorKind, Found, Key, Put, Result, When};

/// Damaged objects that are moved aside at a time; others are left, and found again.
const MOVES_MAX: usize = 4;

/// What the origin has under a key.
enum There {
    Entry(Entry, About),
    Nothing,
    Unchanged,
}

impl Shared {
    /// Whether an entry that is here is to be compared with the origin's.
    pub(super) fn is_due(&self, key: &Key) -> bool {
        is_replaced(key)
            && self.fresh.is_due(key, self.options.clock.now_ms(), self.options.fresh)
            && !self.queue.is_ahead(key)
    }

    /// What the condition of a put is tested on has to be here: the origin's entry, if there is none. An origin that cannot be
    /// asked leaves it at what is here.
    pub(super) async fn prepare(self: &Arc<Self>, key: &Key, when: When) -> Result<()> {
        if matches!(when, When::Absent | When::Present) && self.fast.head(key).await?.is_none() {
            _ = self.bring_here(key).await;
        }
        Ok(())
    }

    /// As [`Shared::bring`], from any thread.
    pub(super) async fn bring_here(self: &Arc<Self>, key: &Key) -> Result<Option<Found>> {
        let (shared, key) = (self.clone(), key.clone());
        let bringing = async move { shared.bring(&key).await };
        self.on_runtime(bringing).await.unwrap_or_else(|| Err(closing().into()))
    }

    /// As [`Shared::refresh`], from any thread, of the entry that is here.
    pub(super) async fn refresh_here(self: &Arc<Self>, key: &Key) {
        let (shared, key) = (self.clone(), key.clone());
        let refreshing = async move {
            if let Ok(Some(found)) = shared.peek.peek(&key).await {
                shared.refresh(&key, found).await;
            }
        };
        _ = self.on_runtime(refreshing).await;
    }

    /// The entry under a key that is not here, promoted if it can be.
    pub(super) async fn bring(self: &Arc<Self>, key: &Key) -> Result<Option<Found>> {
        // In this order: who deletes tells the queue first, and then those who fetch.
        let fetch = self.overtaken.begin(key);
        if self.queue.is_gone(key) {
            return Ok(None);
        }
        if self.misses.is_marked(key, self.options.clock.now_ms(), self.options.miss) {
            self.counts.count(Counter::Spared);
            return Ok(None);
        }
        let (entry, about) = match self.fetch(key, None).await? {
            There::Entry(entry, about) => (entry, about),
            There::Nothing | There::Unchanged => {
                self.counts.count(Counter::Misses);
                if !self.options.miss.is_zero() && !fetch.is_overtaken() {
                    self.misses.mark(key, self.options.clock.now_ms(), self.options.miss);
                }
                return Ok(None);
            }
        };
        let alone = self.overtaken.lock(key).await;
        if fetch.is_overtaken() {
            drop(alone);
            // What that write left here is what counts.
            return self.fast.get(key).await;
        }
        let promoted = self.fast.put(key, entry.clone(), When::Absent).await;
        drop(alone);
        match promoted {
            Ok(Put::Stored(version)) => {
                self.counts.count(Counter::Hits);
                self.fresh.note(key, about.tag, self.options.clock.now_ms());
                self.note_use(key, Some(about.modified_ms));
                Ok(Some(Found { entry, version, tier: 1 }))
            }
            Ok(Put::Unmet) => self.fast.get(key).await,
            // What the policy on signers refuses here must not come in by another door.
            Err(error) if matches!(error.kind(), ErrorKind::Unverified | ErrorKind::Denied) => {
                self.counts.count(Counter::Untrusted);
                Ok(None)
            }
            Err(_) => {
                self.counts.count(Counter::Hits);
                self.counts.count(Counter::Unpromoted);
                Ok(Some(Found { entry, version: NOT_HERE, tier: 1 }))
            }
        }
    }

    /// The entry under a key that is here, or the origin's if that is another one. An origin that cannot be asked turns no hit
    /// into a miss.
    pub(super) async fn refresh(self: &Arc<Self>, key: &Key, here: Found) -> Found {
        let fetch = self.overtaken.begin(key);
        let tag = self.fresh.tag(key);
        let there = self.fetch(key, tag.as_ref()).await;
        let now_ms = self.options.clock.now_ms();
        let (entry, about) = match there {
            Ok(There::Entry(entry, about)) => (entry, about),
            // Of what was deleted elsewhere the copies stay until they are evicted, as those of other kinds do.
            Ok(There::Nothing | There::Unchanged) => {
                self.counts.count(Counter::Unchanged);
                self.fresh.note(key, tag, now_ms);
                return here;
            }
            Err(_) => {
                self.counts.count(Counter::Stale);
                // Not with every get: that would make each wait for an origin that hangs.
                self.fresh.note(key, tag, now_ms);
                return here;
            }
        };
        if entry.artifact.is_same(&here.entry.artifact)
            && entry.metadata.expires_ms == here.entry.metadata.expires_ms
        {
            self.counts.count(Counter::Unchanged);
            self.fresh.note(key, about.tag, now_ms);
            return here;
        }
        let alone = self.overtaken.lock(key).await;
        if fetch.is_overtaken() {
            drop(alone);
            return self.fast.get(key).await.ok().flatten().unwrap_or(here);
        }
        let replaced = self.fast.put(key, entry.clone(), When::Version(here.version)).await;
        drop(alone);
        match replaced {
            Ok(Put::Stored(version)) => {
                self.counts.count(Counter::Hits);
                self.fresh.note(key, about.tag, now_ms);
                Found { entry, version, tier: 1 }
            }
            Ok(Put::Unmet) => self.fast.get(key).await.ok().flatten().unwrap_or(here),
            Err(_) => {
                self.counts.count(Counter::Stale);
                self.fresh.note(key, tag, now_ms);
                here
            }
        }
    }

    /// What the origin has under `key`, every check of it passed. What fails one is moved aside there, and is nothing.
    async fn fetch(self: &Arc<Self>, key: &Key, unless: Option<&crate::origin::Tag>) -> Result<There> {
        let name = ObjectName::of(key);
        let artifact_max = self.options.entry_bytes_max;
        let (bytes, about) = match self.guard.get(&name, layout::object_bytes_max(artifact_max), unless).await
        {
            Ok(Fetched::Object { bytes, about }) => (bytes, about),
            Ok(Fetched::Absent) => return Ok(There::Nothing),
            Ok(Fetched::Unchanged) => return Ok(There::Unchanged),
            // One that nobody may put here, and so none of ours.
            Err(OriginError::TooLarge { .. }) => return Ok(There::Nothing),
            Err(error) => return Err(error.into()),
        };
        let checked = {
            let (key, bytes) = (key.clone(), bytes.clone());
            self.offload(move || {
                let (named, entry) = layout::read(&bytes, artifact_max)?;
                if named != key {
                    return Err(Error::Corrupt {
                        what: "an object that holds another key's entry".to_owned(),
                    });
                }
                entry.artifact.verify()?;
                Ok(entry)
            })
            .await
        };
        match checked {
            Ok(entry) => {
                let is_expired = |at_ms: u64| at_ms <= self.options.clock.now_ms();
                if entry.metadata.expires_ms.is_some_and(is_expired) {
                    return Ok(There::Nothing);
                }
                Ok(There::Entry(entry, about))
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => Err(error),
            // Of a later version, or too large: somebody else's, and not damaged.
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::TooLarge) => {
                Ok(There::Nothing)
            }
            Err(_) => {
                self.counts.count(Counter::Quarantined);
                self.move_aside(name, bytes);
                Ok(There::Nothing)
            }
        }
    }

    /// Moves a damaged object to where nobody looks for entries: a person may. In the background, and only so many at a time; one
    /// that stays is found again. What another node puts in its place at that moment may go with it, and is put again.
    fn move_aside(self: &Arc<Self>, name: ObjectName, bytes: Bytes) {
        if self.options.is_read_only {
            return;
        }
        let Ok(permit) = self.moves.clone().try_acquire_owned() else { return };
        let shared = self.clone();
        self.options.runtime.spawn(async move {
            let _permit = permit;
            // The copy may fail, as where the origin is full: the damaged one goes all the same.
            _ = shared.guard.put(&name.quarantined(), &[bytes]).await;
            _ = shared.guard.delete(&name).await;
        });
    }
}

/// Room for [`MOVES_MAX`] moves.
pub(super) fn moves() -> Arc<tokio::sync::Semaphore> {
    Arc::new(tokio::sync::Semaphore::new(MOVES_MAX))
}
