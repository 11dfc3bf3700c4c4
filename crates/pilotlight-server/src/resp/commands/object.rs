//! What a key holds, as Redis would see it.

use pilotlight_cache::Head;

use crate::resp::command::{Args, Outcome, is};
use crate::resp::error::Fault;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::resp::session::Session;

/// The longest string that Redis embeds into its object.
const EMBEDDED_LEN_MAX: usize = 44;

async fn head(session: &Session, args: &Args) -> Result<Option<Head>, Fault> {
    Ok(session.server().cache.head(&session.short_key(args.at(2)?)?).await?)
}

pub(crate) async fn encoding(session: &mut Session, args: &Args) -> Outcome {
    // A look at the bytes, not a lookup: it is not counted.
    let key = session.short_key(args.at(2)?)?;
    let found = session.server().cache.peek(&key).await?;
    Ok(found.map_or(Reply::Nil, |found| {
        let artifact = &found.entry.artifact;
        Reply::text(match artifact.len() {
            ..=20 if parse_i64(artifact).is_some() => "int",
            ..=EMBEDDED_LEN_MAX => "embstr",
            _ => "raw",
        })
    }))
}

pub(crate) async fn freq(session: &mut Session, args: &Args) -> Outcome {
    let head = head(session, args).await?;
    Ok(head.map_or(Reply::Nil, |head| Reply::count(head.hits.min(255).into())))
}

pub(crate) async fn idletime(session: &mut Session, args: &Args) -> Outcome {
    let now_ms = session.now_ms();
    let head = head(session, args).await?;
    Ok(head.map_or(Reply::Nil, |head| Reply::count(now_ms.saturating_sub(head.accessed_ms) / 1000)))
}

pub(crate) async fn refcount(session: &mut Session, args: &Args) -> Outcome {
    Ok(head(session, args).await?.map_or(Reply::Nil, |_| Reply::Integer(1)))
}

pub(crate) async fn memory_usage(session: &mut Session, args: &Args) -> Outcome {
    match args.from(3) {
        [] => {}
        [option, samples] if is(option, "samples") => {
            let samples = parse_i64(samples).ok_or(Fault::NOT_AN_INTEGER)?;
            if samples < 0 {
                return Err(Fault::SYNTAX);
            }
        }
        _ => return Err(Fault::SYNTAX),
    }
    let head = head(session, args).await?;
    Ok(head.map_or(Reply::Nil, |head| Reply::count(head.stored_bytes)))
}
