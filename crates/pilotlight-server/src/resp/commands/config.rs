//! `CONFIG`.

use crate::resp::command::{Args, Outcome};
use crate::resp::error::Fault;
use crate::resp::reply::Reply;
use crate::resp::session::Session;
use crate::resp::settings::{Settings, Unsettable};

pub(crate) async fn get(session: &mut Session, args: &Args) -> Outcome {
    let server = session.server();
    // Settings must be shown even where the backend cannot say how large it is.
    let bound_bytes = server.cache.usage(None).await.ok().and_then(|usage| usage.bound_bytes);
    let found = session.shared().settings.matching(args.from(2), &server.config, bound_bytes);
    Ok(Reply::Map(found.into_iter().map(|(name, value)| (Reply::text(name), Reply::Bulk(value))).collect()))
}

/// All or nothing, as in Redis.
pub(crate) fn set(session: &mut Session, args: &Args) -> Outcome {
    let (pairs, rest) = args.from(2).as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Fault::wrong_arity("config|set"));
    }
    let mut checked = Vec::with_capacity(pairs.len());
    for [name, value] in pairs {
        checked.push((Settings::check(name, value).map_err(|why| refusal(name, why))?, value));
    }
    for (name, value) in checked {
        session.shared().settings.set(name, value.clone());
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
        Unsettable::Immutable => "can't set immutable config",
        Unsettable::Invalid(reason) => reason,
    };
    let mut text = b"CONFIG SET failed (possibly related to argument '".to_vec();
    text.extend_from_slice(name);
    text.extend_from_slice(format!("') - {reason}").as_bytes());
    Fault::quoting(text)
}

/// The counters behind `INFO` are the ones behind `/metrics`, and those must never go down.
pub(crate) fn resetstat(_session: &mut Session, _args: &Args) -> Outcome {
    Ok(Reply::Ok)
}
