//! `CONFIG`.

use bytes::Bytes;

use super::info;
use crate::resp::command::{Args, Outcome};
use crate::resp::error::Fault;
use crate::resp::reply::Reply;
use crate::resp::session::Session;
use crate::resp::settings::Unsettable;

pub(crate) async fn get(session: &mut Session, args: &Args) -> Outcome {
    let bound_bytes = bound_bytes(session).await;
    let found = session.shared().settings.matching(args.from(2), &session.server().config, bound_bytes);
    Ok(Reply::Map(found.into_iter().map(|(name, value)| (Reply::text(name), Reply::Bulk(value))).collect()))
}

/// Settings must be shown even where the backend cannot say how large it is.
async fn bound_bytes(session: &Session) -> Option<u64> {
    session.server().cache.usage(None).await.ok().and_then(|usage| usage.bound_bytes)
}

/// All or nothing, as in Redis.
pub(crate) async fn set(session: &mut Session, args: &Args) -> Outcome {
    let (pairs, rest) = args.from(2).as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Fault::wrong_arity("config|set"));
    }
    let bound_bytes = bound_bytes(session).await;
    let (settings, config) = (&session.shared().settings, &session.server().config);
    let mut checked: Vec<(&'static str, Bytes)> = Vec::with_capacity(pairs.len());
    for [name, value] in pairs {
        let pair = settings.check((name, value), config, bound_bytes).map_err(|why| refusal(name, why))?;
        if checked.iter().any(|(other, _)| *other == pair.0) {
            return Err(refusal(name, Unsettable::Invalid("duplicate parameter".into())));
        }
        checked.push(pair);
    }
    for (name, value) in checked {
        settings.set(name, value);
    }
    Ok(Reply::Ok)
}

fn refusal(name: &[u8], why: Unsettable) -> Fault {
    let reason = match why {
        Unsettable::Unknown => {
            let mut text = b"Unknown option or number of arguments for CONFIG SET - '".to_vec();
            text.extend_from_slice(name);
            text.push(b'\'');
            return Fault::quoting(text);
        }
        Unsettable::Immutable => "can't set immutable config".into(),
        Unsettable::Invalid(reason) => reason,
    };
    let mut text = b"CONFIG SET failed (possibly related to argument '".to_vec();
    text.extend_from_slice(name);
    text.extend_from_slice(format!("') - {reason}").as_bytes());
    Fault::quoting(text)
}

/// The counters behind `/metrics` must never go down: `INFO` counts from what they are now.
pub(crate) async fn resetstat(session: &mut Session, _args: &Args) -> Outcome {
    let counters = info::counters(session, &session.server().cache.usage(None).await?);
    *session.shared().counted_before.lock() = counters.map(|(_, count)| count);
    Ok(Reply::Ok)
}
