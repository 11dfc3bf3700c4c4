//! Keys by the many.

use std::str;

use bytes::Bytes;
use pilotlight_cache::{Cursor, Error, Head, Key};

use crate::access::Right;
use crate::resp::command::{Args, Outcome, is};
use crate::resp::decode::ARG_OVERHEAD_BYTES;
use crate::resp::error::Fault;
use crate::resp::glob;
use crate::resp::reply::Reply;
use crate::resp::session::Session;
use crate::resp::shared::random_u64;

/// What `SCAN` looks at without `COUNT`.
const COUNT: usize = 10;
/// The most it looks at, so that no client can have a core to itself, and no reply is longer than 16 MiB.
const COUNT_MAX: usize = 1000;
/// Looked at in one step by commands that visit every key.
const PAGE_LEN: usize = 1000;

pub(crate) async fn scan(session: &mut Session, args: &Args) -> Outcome {
    let cursor = str::from_utf8(args.at(1)?).ok().and_then(|text| text.parse().ok());
    let cursor = cursor.ok_or(Fault::err("invalid cursor"))?;
    let (mut pattern, mut count, mut is_string) = (None, COUNT, true);
    let mut options = args.from(2).iter();
    while let Some(option) = options.next() {
        let value = options.next().ok_or(Fault::SYNTAX)?;
        if is(option, "match") {
            pattern = Some(value);
        } else if is(option, "type") {
            is_string = is(value, "string");
        } else if is(option, "count") {
            let number = crate::resp::number::parse_i64(value).ok_or(Fault::NOT_AN_INTEGER)?;
            if number < 1 {
                return Err(Fault::SYNTAX);
            }
            count = usize::try_from(number).unwrap_or(COUNT_MAX).min(COUNT_MAX);
        } else {
            return Err(Fault::SYNTAX);
        }
    }
    let (keys, next) = page(session, Cursor(cursor), count).await?;
    let names = keys
        .map(|(key, _)| key.bytes().clone())
        .filter(|name| is_string && pattern.is_none_or(|pattern| glob::matches(pattern, name)))
        .map(Reply::Bulk)
        .collect();
    Ok(Reply::Array(vec![Reply::bulk(next.0.to_string()), Reply::Array(names)]))
}

pub(crate) async fn keys(session: &mut Session, args: &Args) -> Outcome {
    let pattern = args.at(1)?;
    let mut names: Vec<Bytes> = Vec::new();
    let mut cursor = Cursor::START;
    let mut bytes = 0;
    loop {
        let (keys, next) = page(session, cursor, PAGE_LEN).await?;
        let page_names = keys.map(|(key, _)| key.bytes().clone());
        for name in page_names.filter(|name| glob::matches(pattern, name)) {
            bytes += name.len() as u64 + ARG_OVERHEAD_BYTES;
            names.push(name);
        }
        if bytes > session.replies_bytes_max() {
            return Err(Fault::err("too many keys for one reply, SCAN gives them in parts"));
        }
        cursor = next;
        if cursor == Cursor::START {
            return Ok(Reply::Array(names.into_iter().map(Reply::Bulk).collect()));
        }
        // Others on this core are served between two pages.
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn dbsize(session: &mut Session, _args: &Args) -> Outcome {
    if session.standing.is_unrestricted() || session.standing.place().may_all(Right::Read) {
        return Ok(Reply::count(session.server().cache.usage(Some(&session.namespace)).await?.entries));
    }
    let (mut count, mut cursor) = (0, Cursor::START);
    loop {
        let (keys, next) = page(session, cursor, PAGE_LEN).await?;
        count += keys.count() as u64;
        cursor = next;
        if cursor == Cursor::START {
            return Ok(Reply::count(count));
        }
        tokio::task::yield_now().await;
    }
}

/// A part of the database's keys, without those that the user may not read.
async fn page(
    session: &Session,
    cursor: Cursor,
    limit: usize,
) -> Result<(impl Iterator<Item = (Key, Head)>, Cursor), Error> {
    let page = session.server().cache.scan(&session.namespace, cursor, limit).await?;
    let (place, is_unrestricted) = (*session.standing.place(), session.standing.is_unrestricted());
    let may_read = move |key: &Key| is_unrestricted || place.may(Right::Read, key.kind());
    Ok((page.keys.into_iter().filter(move |(key, _)| may_read(key)), page.next))
}

/// The first key behind a random place, else the first of all. Keys behind gaps come up more often than others.
pub(crate) async fn randomkey(session: &mut Session, _args: &Args) -> Outcome {
    for start in [Cursor(random_u64()), Cursor::START] {
        let mut cursor = start;
        // A page may be empty without being the last.
        while let Ok((keys, next)) = page(session, cursor, 1).await {
            let keys: Vec<_> = keys.collect();
            let nth = random_u64() % (keys.len().max(1) as u64);
            if let Some((key, _)) = keys.get(usize::try_from(nth).unwrap_or(0)) {
                return Ok(Reply::Bulk(key.bytes().clone()));
            }
            cursor = next;
            if cursor == Cursor::START {
                break;
            }
        }
    }
    Ok(Reply::Nil)
}

pub(crate) async fn flushdb(session: &mut Session, args: &Args) -> Outcome {
    check_flush(args)?;
    session.server().cache.clear(&session.namespace).await?;
    Ok(Reply::Ok)
}

/// Clears what the user can select, as far as it may. Namespaces that only HTTP reaches are not Redis' databases and stay.
pub(crate) async fn flushall(session: &mut Session, args: &Args) -> Outcome {
    check_flush(args)?;
    for number in 0..session.server().config.databases {
        let namespace = session.namespace_of(number);
        if session.standing.is_unrestricted() || session.place_in(&namespace).may_clear() {
            session.server().cache.clear(&namespace).await?;
        }
    }
    Ok(Reply::Ok)
}

fn check_flush(args: &Args) -> Result<(), Fault> {
    match args.from(1) {
        [] => Ok(()),
        [how] if is(how, "async") || is(how, "sync") => Ok(()),
        _ => Err(Fault::SYNTAX),
    }
}
