//! Syncing, the time, and what else a server is asked that has no replicas.

use std::sync::atomic::Ordering::Relaxed;

use crate::resp::command::{Args, Outcome, is};
use crate::resp::error::Fault;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::resp::session::Session;

pub(crate) async fn save(session: &mut Session, _args: &Args) -> Outcome {
    sync(session).await?;
    Ok(Reply::Ok)
}

/// Answers when it is done, which is no later than the deadline: there is no background to look into.
pub(crate) async fn bgsave(session: &mut Session, args: &Args) -> Outcome {
    match args.from(1) {
        [] => {}
        [how] if is(how, "schedule") => {}
        _ => return Err(Fault::SYNTAX),
    }
    sync(session).await?;
    Ok(Reply::Simple("Background saving started"))
}

async fn sync(session: &Session) -> Result<(), Fault> {
    session.server().cache.backend().sync().await?;
    session.shared().saved_ms.store(session.now_ms(), Relaxed);
    Ok(())
}

pub(crate) fn lastsave(session: &mut Session, _args: &Args) -> Outcome {
    Ok(Reply::count(session.shared().saved_ms.load(Relaxed) / 1000))
}

pub(crate) fn time(session: &mut Session, _args: &Args) -> Outcome {
    let now_ms = session.now_ms();
    let (seconds, microseconds) = (now_ms / 1000, now_ms % 1000 * 1000);
    Ok(Reply::Array(vec![Reply::bulk(seconds.to_string()), Reply::bulk(microseconds.to_string())]))
}

pub(crate) fn wait(_session: &mut Session, args: &Args) -> Outcome {
    args.integer(1)?;
    let timeout_ms = parse_i64(args.at(2)?).ok_or(Fault::err("timeout is not an integer or out of range"))?;
    if timeout_ms < 0 {
        return Err(Fault::err("timeout is negative"));
    }
    Ok(Reply::Integer(0))
}
