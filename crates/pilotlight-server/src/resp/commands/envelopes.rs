//! Entries in their envelopes, for Pilotlight's own client: nothing is lost on the way, and it checks digests itself. So
//! envelopes are passed on at the price of their heads: here no artifact is unpacked, which takes no time from other clients.
//!
//! They are the entries that `GET` and `SET` see under the same keys.

use pilotlight_cache::envelope::{self, Sealed};
use pilotlight_cache::{Error, Found, GROUP_ENTRIES_MAX, KEY_LEN_MAX, PutOutcome, Refused, When};

use crate::resp::command::{Args, Outcome, is};
use crate::resp::error::Fault;
use crate::resp::reply::Reply;
use crate::resp::session::Session;

pub(crate) async fn mget(session: &mut Session, args: &Args) -> Outcome {
    let cache = &session.server().cache;
    let names = args.from(1);
    let (keys, long): (Vec<_>, Vec<_>) =
        names.iter().map(|name| session.key(name)).partition(|key| key.bytes().len() <= KEY_LEN_MAX);
    let (fitting, others) = keys.split_at(session.fitting(&keys).await);
    let mut answers = cache.get_many_packed(fitting, session.standing.through()).await;
    answers.extend(others.iter().map(|key| session.refuse_for_room(key)));
    let mut answers = answers.into_iter();
    let mut refusals = long.iter().map(|key| session.refuse_long(key));
    let replies: Result<_, Fault> = names
        .iter()
        .map(|name| {
            let is_long = name.len() > KEY_LEN_MAX;
            let answer = if is_long { refusals.next() } else { answers.next() };
            envelope_or_nil(answer.unwrap_or(Ok(None))?)
        })
        .collect();
    Ok(Reply::Array(replies?))
}

fn envelope_or_nil(found: Option<Found>) -> Outcome {
    let Some(found) = found else { return Ok(Reply::Nil) };
    let Sealed { head, payload, .. } = envelope::seal(&found.entry)?;
    Ok(Reply::Envelope { head, payload })
}

/// Stores an envelope whose head is whole and says what fits. One whose head is damaged or that is too large is an error also
/// where a compiler waits: only our client sends them, and it does not fail over that. Damage behind the head is found by whoever reads it.
pub(crate) async fn put(session: &mut Session, args: &Args) -> Outcome {
    let when = match args.from(3) {
        [] => When::Always,
        [option] if is(option, "nx") => When::Absent,
        _ => return Err(Fault::SYNTAX),
    };
    let key = session.key(args.at(1)?);
    let cache = &session.server().cache;
    let opened = Sealed::from_whole(args.at(2)?.clone())
        .and_then(|sealed| envelope::read(&sealed, session.server().config.entry_bytes_max));
    let mut entry = match opened {
        Ok(entry) => entry,
        Err(error) => {
            let fault = match &error {
                Error::TooLarge { .. } => Fault::too_large(&error),
                error => Error::Invalid { what: error.to_string() }.into(),
            };
            // Counted as any put that failed; what the policy makes of it is for clients that would fail over it.
            let _ = cache.refuse_put(&key, error);
            return Err(fault);
        }
    };
    // Entries are aged by this server's clock, whatever the clients' say; a signed head says what it says all the same.
    entry.metadata.created_ms = 0;
    match session.put_entry(&key, entry, when).await? {
        PutOutcome::Stored(_) => Ok(Reply::Ok),
        // Our client fails over no error, and its user can do something about this one.
        PutOutcome::Refused(Refused { unverified: Some(reason), .. }) => Err(Fault::unverified(reason)),
        PutOutcome::Unmet | PutOutcome::Refused(_) => Ok(Reply::Nil),
    }
}

/// Puts the entries under all keys into the group of the first, and answers how many are in it then.
pub(crate) async fn group(session: &mut Session, args: &Args) -> Outcome {
    let names = args.from(2);
    if names.len() >= GROUP_ENTRIES_MAX {
        return Err(Fault::quoting(format!("at most {GROUP_ENTRIES_MAX} keys are a group")));
    }
    let leader = session.short_key(args.at(1)?)?;
    let keys = names.iter().map(|name| session.short_key(name)).collect::<Result<_, Fault>>()?;
    let joined = session.server().cache.group(leader, keys).await?;
    Ok(Reply::count(joined as u64))
}
