//! Read, compute, write, as one step.

use bytes::Bytes;
use pilotlight_cache::{Found, Key, PutOutcome, Verified, When};

use crate::resp::command::Outcome;
use crate::resp::error::Fault;
use crate::resp::reply::Reply;
use crate::resp::session::Session;

/// What to do about the entry that was read.
pub(super) enum Change {
    /// Leave it and answer this.
    Keep(Reply),
    /// Put this in its place, then answer.
    Put { artifact: Bytes, expires_ms: Option<u64>, reply: Reply },
}

/// Changes the entry under `key` to what `compute` makes of it. Another client's write in between makes it compute
/// again; the command's deadline bounds how often.
///
/// The read is not a lookup and is not counted as one; nor is its failure absorbed, which would look like an absent key
/// that can never be created.
pub(super) async fn update(
    session: &Session,
    key: &Key,
    mut compute: impl FnMut(Option<&Found<Verified>>) -> Result<Change, Fault>,
) -> Outcome {
    let cache = &session.server().cache;
    loop {
        let found = match cache.peek(key).await {
            Ok(found) => found,
            Err(error) => {
                cache.refuse_put(key, error)?;
                return Ok(Reply::Nil);
            }
        };
        let when = found.as_ref().map_or(When::Absent, |found| When::Version(found.version));
        let (artifact, expires_ms, reply) = match compute(found.as_ref())? {
            Change::Keep(reply) => return Ok(reply),
            Change::Put { artifact, expires_ms, reply } => (artifact, expires_ms, reply),
        };
        match session.put(key, artifact, expires_ms, when).await? {
            PutOutcome::Stored(_) => return Ok(reply),
            PutOutcome::Refused(_) => return Ok(Reply::Nil),
            PutOutcome::Unmet => tokio::task::yield_now().await,
        }
    }
}

/// When an entry that replaces `found` expires, if its expiry is to stay.
pub(super) fn expiry_of(found: Option<&Found<Verified>>) -> Option<u64> {
    found.and_then(|found| found.entry.metadata.expires_ms)
}
