//! Entries in their envelopes, for Pilotlight's own client: nothing is lost on the way, and it checks digests itself.
//!
//! They are the entries that `GET` and `SET` see under the same keys.

use pilotlight_cache::envelope::{self, Sealed};
use pilotlight_cache::{Error, Found, PutOutcome, When};

use super::strings::get_each;
use crate::resp::command::{Args, Outcome, is};
use crate::resp::error::Fault;
use crate::resp::reply::Reply;
use crate::resp::session::Session;

pub(crate) async fn mget(session: &mut Session, args: &Args) -> Outcome {
    get_each(session, args, envelope_or_nil).await
}

fn envelope_or_nil(found: Option<Found>) -> Outcome {
    let Some(found) = found else { return Ok(Reply::Nil) };
    Ok(Reply::Bulk(envelope::seal(&found.entry)?.to_whole()))
}

/// Stores what is in the envelope, once it has proved whole. A damaged one is an error also where a compiler waits: only
/// our client sends them, and it does not fail over that.
pub(crate) async fn put(session: &mut Session, args: &Args) -> Outcome {
    let when = match args.from(3) {
        [] => When::Always,
        [option] if is(option, "nx") => When::Absent,
        _ => return Err(Fault::SYNTAX),
    };
    let key = session.key(args.at(1)?);
    let cache = &session.server().cache;
    let opened = Sealed::from_whole(args.at(2)?.clone())
        .and_then(|sealed| envelope::open_bare(&sealed, session.server().config.entry_bytes_max));
    let mut entry = match opened {
        Ok(bare) => bare.into_entry(),
        Err(error @ Error::TooLarge { .. }) => {
            cache.refuse_put(&key, error)?;
            return Ok(Reply::Nil);
        }
        Err(error) => {
            let what = error.to_string();
            // Counted as any put that failed; what the policy makes of it is for clients that would fail over it.
            let _ = cache.refuse_put(&key, error);
            return Err(Error::Invalid { what }.into());
        }
    };
    // Entries are aged by this server's clock, whatever the clients' say.
    entry.metadata.created_ms = 0;
    Ok(match session.put_entry(&key, entry, when).await? {
        PutOutcome::Stored(_) => Reply::Ok,
        PutOutcome::Unmet | PutOutcome::Refused(_) => Reply::Nil,
    })
}
