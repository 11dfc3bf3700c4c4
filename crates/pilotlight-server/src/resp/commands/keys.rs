//! Keys, whatever stands under them.

use pilotlight_cache::{BackendExt, Entry, Key, PutOutcome, When};

use super::connection::database;
use crate::resp::command::{Args, Outcome, is};
use crate::resp::error::Fault;
use crate::resp::reply::Reply;
use crate::resp::session::Session;

pub(crate) async fn del(session: &mut Session, args: &Args) -> Outcome {
    let mut deleted = 0;
    for name in args.from(1) {
        deleted += u64::from(session.server().cache.delete(&session.short_key(name)?, When::Always).await?);
    }
    Ok(Reply::count(deleted))
}

/// A key named twice counts twice.
pub(crate) async fn exists(session: &mut Session, args: &Args) -> Outcome {
    let mut existing = 0;
    for name in args.from(1) {
        existing += u64::from(session.server().cache.head(&session.short_key(name)?).await?.is_some());
    }
    Ok(Reply::count(existing))
}

/// Like `EXISTS`, and as a use of the keys it makes their eviction less likely.
pub(crate) async fn touch(session: &mut Session, args: &Args) -> Outcome {
    let mut existing = 0;
    for name in args.from(1) {
        let key = session.short_key(name)?;
        existing += u64::from(session.server().cache.backend().touch(&key).await?.is_some());
    }
    Ok(Reply::count(existing))
}

pub(crate) async fn type_of(session: &mut Session, args: &Args) -> Outcome {
    let head = session.server().cache.head(&session.short_key(args.at(1)?)?).await?;
    Ok(Reply::Simple(if head.is_some() { "string" } else { "none" }))
}

pub(crate) async fn rename(session: &mut Session, args: &Args) -> Outcome {
    let (from, to) = (session.short_key(args.at(1)?)?, session.short_key(args.at(2)?)?);
    let entry = entry(session, &from).await?.ok_or(Fault::NO_SUCH_KEY)?;
    if from == to {
        return Ok(Reply::Ok);
    }
    put_moved(session, &to, entry, When::Always).await?;
    session.server().cache.delete(&from, When::Always).await?;
    Ok(Reply::Ok)
}

pub(crate) async fn renamenx(session: &mut Session, args: &Args) -> Outcome {
    let (from, to) = (session.short_key(args.at(1)?)?, session.short_key(args.at(2)?)?);
    let entry = entry(session, &from).await?.ok_or(Fault::NO_SUCH_KEY)?;
    let is_moved = from != to && put_moved(session, &to, entry, When::Absent).await?;
    if is_moved {
        session.server().cache.delete(&from, When::Always).await?;
    }
    Ok(Reply::flag(is_moved))
}

pub(crate) async fn copy(session: &mut Session, args: &Args) -> Outcome {
    let mut target = session.database;
    let mut when = When::Absent;
    let mut options = args.from(3).iter();
    while let Some(option) = options.next() {
        if is(option, "replace") {
            when = When::Always;
        } else if let Some(number) = options.next().filter(|_| is(option, "db")) {
            target = database(session, number)?;
        } else {
            return Err(Fault::SYNTAX);
        }
    }
    let (from, to) = (session.short_key(args.at(1)?)?, in_database(session, args, 2, target)?);
    if from == to {
        return Err(Fault::SAME_OBJECT);
    }
    let Some(entry) = entry(session, &from).await? else { return Ok(Reply::flag(false)) };
    Ok(Reply::flag(put_moved(session, &to, entry, when).await?))
}

pub(crate) async fn move_key(session: &mut Session, args: &Args) -> Outcome {
    let target = database(session, args.at(2)?)?;
    let (from, to) = (session.short_key(args.at(1)?)?, in_database(session, args, 1, target)?);
    if from == to {
        return Err(Fault::SAME_OBJECT);
    }
    let Some(entry) = entry(session, &from).await? else { return Ok(Reply::flag(false)) };
    let is_moved = put_moved(session, &to, entry, When::Absent).await?;
    if is_moved {
        session.server().cache.delete(&from, When::Always).await?;
    }
    Ok(Reply::flag(is_moved))
}

fn in_database(session: &Session, args: &Args, index: usize, number: u16) -> Result<Key, Fault> {
    let key = session.short_key(args.at(index)?)?;
    Ok(Key::in_namespace(session.namespace_of(number), key.bytes().clone()))
}

/// Read past the counters: moving an entry is no lookup.
async fn entry(session: &Session, key: &Key) -> Result<Option<Entry>, Fault> {
    Ok(session.server().cache.backend().get(key).await?.map(|found| found.entry))
}

async fn put_moved(session: &Session, key: &Key, entry: Entry, when: When) -> Result<bool, Fault> {
    match session.put_entry(key, entry, when).await? {
        PutOutcome::Stored(_) => Ok(true),
        PutOutcome::Unmet => Ok(false),
        // To go on would lose the entry under its old name, and nobody's compile waits for a rename.
        PutOutcome::Refused(_) => Err(Fault::err("the entry could not be kept under its new name")),
    }
}
