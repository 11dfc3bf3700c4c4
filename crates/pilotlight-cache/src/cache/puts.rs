//! Puts: in one step or in two, counted when they are through.

use super::{Cache, OpenSample};
use crate::trust::Reason;
use crate::{Entry, Error, ErrorKind, Key, Kind, Operation, Outcome, Put, Result, Version, When};

/// What a put did, after the failure policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// Stored under this version.
    Stored(Version),
    /// The precondition did not hold.
    Unmet,
    /// Not kept, for this reason, and the policy says that nobody fails over it.
    Refused(Refused),
}

/// Why a put was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// As it is counted.
    pub kind: ErrorKind,
    /// What is wrong with its signature, if that is why.
    pub unverified: Option<Reason>,
}

impl Refused {
    fn over(error: &Error) -> Self {
        let unverified = match error {
            Error::Unverified(refusal) => Some(refusal.reason()),
            _ => None,
        };
        Self { kind: error.kind(), unverified }
    }
}

/// How far the first half of a put came.
#[derive(Debug)]
pub enum Staged {
    /// It is over.
    Done(PutOutcome),
    /// It is to be settled.
    Pending(PendingPut),
}

/// A put that is staged and neither acknowledged nor counted yet. Made by [`Cache::stage`], for [`Cache::settle_many`].
#[derive(Debug)]
pub struct PendingPut {
    open: OpenPut,
    version: Version,
}

/// A put that is not counted yet.
#[derive(Debug)]
struct OpenPut {
    kind: Kind,
    /// Whoever may wait for it.
    awaited: Option<Key>,
    is_counted: bool,
    bytes: u64,
    sample: OpenSample,
}

impl Cache {
    /// Stores `entry` under `key` if `when` holds.
    ///
    /// # Errors
    /// The backend's, unless the policy absorbs them.
    pub async fn put(&self, key: &Key, entry: Entry, when: When) -> Result<PutOutcome> {
        let open = self.open_put(key, &entry);
        let result = self.backend.put(key, entry, when).await;
        self.close_put(open, result)
    }

    /// The first half of a put, see [`Backend::stage`](crate::Backend::stage): what it comes to is told, and counted, by
    /// [`Cache::settle_many`].
    ///
    /// # Errors
    /// The backend's, unless the policy absorbs them.
    pub async fn stage(&self, key: &Key, entry: Entry, when: When) -> Result<Staged> {
        let open = self.open_put(key, &entry);
        match self.backend.stage(key, entry, when).await {
            Ok(Put::Stored(version)) => Ok(Staged::Pending(PendingPut { open, version })),
            result => self.close_put(open, result).map(Staged::Done),
        }
    }

    /// The second half of these puts, in order.
    ///
    /// # Cancellation
    /// A put whose second half never runs is not counted; the backend settles it by itself sooner or later.
    pub async fn settle_many(&self, puts: Vec<PendingPut>) -> Vec<Result<PutOutcome>> {
        let versions: Vec<_> = puts.iter().map(|put| put.version).collect();
        let results = self.backend.settle_many(&versions).await;
        debug_assert_eq!(results.len(), puts.len(), "contract 15");
        puts.into_iter()
            .zip(results)
            .map(|(PendingPut { open, version }, result)| {
                self.close_put(open, result.map(|()| Put::Stored(version)))
            })
            .collect()
    }

    fn open_put(&self, key: &Key, entry: &Entry) -> OpenPut {
        OpenPut {
            kind: key.kind(),
            awaited: key.kind().is_leasable().then(|| key.clone()),
            is_counted: !key.is_list_of_variants(),
            bytes: entry.artifact.len(),
            sample: self.open_sample(key, Operation::Put),
        }
    }

    fn close_put(&self, open: OpenPut, result: Result<Put>) -> Result<PutOutcome> {
        let OpenPut { kind, awaited, is_counted, bytes, sample } = open;
        let outcome = match &result {
            Ok(Put::Stored(_)) if !is_counted => None,
            Ok(Put::Stored(_)) => Some(Outcome::Put),
            Ok(Put::Unmet) => None,
            Err(_) => Some(Outcome::Exception),
        };
        if let Some(outcome) = outcome {
            self.stats.count(kind, outcome);
            self.stats.count_backend(outcome);
        }
        if outcome == Some(Outcome::Put) {
            self.stats.add_received(kind, bytes);
        }
        self.log_sample(sample, outcome, None, bytes, result.as_ref().err());
        match (&awaited, &result) {
            (Some(key), Ok(_)) => self.leases.put(key),
            (Some(key), Err(_)) => self.leases.refused(key),
            (None, _) => {}
        }
        match result {
            Ok(Put::Stored(version)) => Ok(PutOutcome::Stored(version)),
            Ok(Put::Unmet) => Ok(PutOutcome::Unmet),
            Err(error) if self.absorbs(kind) => {
                self.stats.count_refused_put(error.kind());
                Ok(PutOutcome::Refused(Refused::over(&error)))
            }
            Err(error) => Err(error),
        }
    }

    /// Counts a put that was refused before it reached the backend (too large, past its deadline), and says what to
    /// tell the client: `Ok` with the refusal where the policy absorbs it.
    ///
    /// # Errors
    /// `error` itself, where the policy does not absorb it.
    pub fn refuse_put(&self, key: &Key, error: Error) -> Result<PutOutcome> {
        self.stats.count(key.kind(), Outcome::Exception);
        // Who may not put was not waited for: whoever leads goes on.
        if error.kind() != ErrorKind::Denied {
            self.leases.refused(key);
        }
        if self.absorbs(key.kind()) {
            self.stats.count_refused_put(error.kind());
            return Ok(PutOutcome::Refused(Refused::over(&error)));
        }
        Err(error)
    }
}
