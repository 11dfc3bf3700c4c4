//! Puts of a connection: when they may be done, and how far they came.

use bytes::Bytes;
use pilotlight_cache::envelope::recast;
use pilotlight_cache::{Entry, Error, Key, Metadata, PendingPut, PutOutcome, Staged, Verified, When};

use super::audit::{Note, deed};
use super::error::Fault;
use super::reply::Reply;
use super::session::{Session, key_too_long};

/// A put that is staged.
#[derive(Debug)]
pub(crate) struct Owed {
    put: PendingPut,
    /// What to answer if settling goes well.
    reply: Reply,
    note: Option<Note>,
}

impl Session {
    /// Stores `artifact` under `key`: counted, and with failures absorbed as the cache's policy says.
    pub(crate) async fn put(
        &self,
        key: &Key,
        artifact: Bytes,
        expires_ms: Option<u64>,
        when: When,
    ) -> Result<PutOutcome, Fault> {
        let compile_ms = if key.kind().is_compile_cache() { recast::time_taken_ms(&artifact) } else { 0 };
        let metadata = Metadata { expires_ms, compile_ms, ..Metadata::default() };
        self.put_entry(key, Entry { artifact: Verified::from_producer(artifact).into(), metadata }, when)
            .await
    }

    /// The same for the last thing a command does: what it answers waits in [`Session::staged`].
    pub(crate) async fn stage(
        &mut self,
        key: &Key,
        artifact: Bytes,
        expires_ms: Option<u64>,
        when: When,
    ) -> Result<Option<PutOutcome>, Fault> {
        let compile_ms = if key.kind().is_compile_cache() { recast::time_taken_ms(&artifact) } else { 0 };
        let metadata = Metadata { expires_ms, compile_ms, ..Metadata::default() };
        let entry = Entry { artifact: Verified::from_producer(artifact).into(), metadata };
        let (when, keeps_first) = match self.misfit(key, &entry).map_or_else(|| self.when(key, when), Err) {
            Ok(condition) => condition,
            Err(error) => return Ok(Some(self.server().cache.refuse_put(key, error)?)),
        };
        match self.server().cache.stage(key, entry, when).await? {
            Staged::Done(outcome) => Ok(Some(self.told(key, outcome, keeps_first)?)),
            Staged::Pending(put) => {
                self.staged = Some(put);
                Ok(None)
            }
        }
    }

    /// What is owed for the command that ran last: a put that is staged, if it left one.
    pub(crate) fn owe(&mut self, reply: Reply) -> Result<Owed, Reply> {
        match self.staged.take() {
            Some(put) => Ok(Owed { put, reply, note: self.unsettled.take() }),
            None => Err(reply),
        }
    }

    /// Settles what was staged, and says what to answer.
    pub(crate) async fn settle(&self, owed: Vec<Owed>) -> Vec<Reply> {
        let (puts, rest): (Vec<_>, Vec<_>) =
            owed.into_iter().map(|Owed { put, reply, note }| (put, (reply, note))).unzip();
        let outcomes = self.server().cache.settle_many(puts).await;
        let answer = |(outcome, (reply, note))| {
            let settled = match outcome {
                Ok(PutOutcome::Stored(_)) => Reply::Ok,
                Ok(PutOutcome::Unmet | PutOutcome::Refused(_)) => Reply::Nil,
                Err(error) => Reply::Error(Fault::from(error)),
            };
            self.audit_as(note, deed(&settled));
            match (settled, reply) {
                (_, Reply::Silence) => Reply::Silence,
                (Reply::Ok, reply) => reply,
                (settled, _) => settled,
            }
        };
        outcomes.into_iter().zip(rest).map(answer).collect()
    }

    /// The same with metadata of the caller's.
    pub(crate) async fn put_entry(&self, key: &Key, entry: Entry, when: When) -> Result<PutOutcome, Fault> {
        let cache = &self.server().cache;
        let (when, keeps_first) = match self.misfit(key, &entry).map_or_else(|| self.when(key, when), Err) {
            Ok(condition) => condition,
            Err(error) => return Ok(cache.refuse_put(key, error)?),
        };
        let outcome = cache.put(key, entry, when).await?;
        self.told(key, outcome, keeps_first)
    }

    /// When to put under `key`, and whether that is less often than asked: where who puts first wins, never over what is there.
    fn when(&self, key: &Key, when: When) -> Result<(When, bool), Error> {
        match when {
            When::Absent => Ok((when, false)),
            _ if self.may_replace(key) => Ok((when, false)),
            When::Always => Ok((When::Absent, true)),
            When::Present | When::Version(_) => Err(keeps_first(key)),
        }
    }

    /// What a put came to that was to be done always, and could only be done where nothing was.
    fn told(&self, key: &Key, outcome: PutOutcome, is_kept_first: bool) -> Result<PutOutcome, Fault> {
        match outcome {
            PutOutcome::Unmet if is_kept_first => {
                Ok(self.server().cache.refuse_put(key, keeps_first(key))?)
            }
            outcome => Ok(outcome),
        }
    }

    /// Why an entry cannot be put, whatever room there is.
    fn misfit(&self, key: &Key, entry: &Entry) -> Option<Error> {
        let size_bytes = entry.artifact.len();
        let max_bytes = self.server().config.entry_bytes_max;
        let too_large = || Error::TooLarge { what: "entry", size_bytes, max_bytes };
        key_too_long(key.bytes()).or_else(|| (size_bytes > max_bytes).then(too_large))
    }
}

/// Why nothing is put over what is there.
fn keeps_first(key: &Key) -> Error {
    Error::Denied { what: format!("in namespace `{}` who puts first wins", key.namespace().as_str()) }
}
