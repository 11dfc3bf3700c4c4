//! Keys by the many.

use std::str;

use bytes::Bytes;
use pilotlight_cache::{Cursor, Namespace};

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
    let page = session.server().cache.scan(&session.namespace, Cursor(cursor), count).await?;
    let names = page
        .keys
        .into_iter()
        .map(|(key, _)| key.bytes().clone())
        .filter(|name| is_string && pattern.is_none_or(|pattern| glob::matches(pattern, name)))
        .map(Reply::Bulk)
        .collect();
    Ok(Reply::Array(vec![Reply::bulk(page.next.0.to_string()), Reply::Array(names)]))
}

pub(crate) async fn keys(session: &mut Session, args: &Args) -> Outcome {
    let pattern = args.at(1)?;
    let mut names: Vec<Bytes> = Vec::new();
    let mut cursor = Cursor::START;
    let mut bytes = 0;
    loop {
        let page = session.server().cache.scan(&session.namespace, cursor, PAGE_LEN).await?;
        let page_names = page.keys.into_iter().map(|(key, _)| key.bytes().clone());
        for name in page_names.filter(|name| glob::matches(pattern, name)) {
            bytes += name.len() as u64 + ARG_OVERHEAD_BYTES;
            names.push(name);
        }
        if bytes > session.replies_bytes_max() {
            return Err(Fault::err("too many keys for one reply, SCAN gives them in parts"));
        }
        cursor = page.next;
        if cursor == Cursor::START {
            return Ok(Reply::Array(names.into_iter().map(Reply::Bulk).collect()));
        }
        // Others on this core are served between two pages.
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn dbsize(session: &mut Session, _args: &Args) -> Outcome {
    Ok(Reply::count(session.server().cache.usage(Some(&session.namespace)).await?.entries))
}

/// The first key behind a random place, else the first of all. Keys behind gaps come up more often than others.
pub(crate) async fn randomkey(session: &mut Session, _args: &Args) -> Outcome {
    let cache = &session.server().cache;
    for start in [Cursor(random_u64()), Cursor::START] {
        let mut cursor = start;
        // A page may be empty without being the last.
        while let Ok(page) = cache.scan(&session.namespace, cursor, 1).await {
            let nth = random_u64() % (page.keys.len().max(1) as u64);
            if let Some((key, _)) = page.keys.get(usize::try_from(nth).unwrap_or(0)) {
                return Ok(Reply::Bulk(key.bytes().clone()));
            }
            cursor = page.next;
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

/// Clears what RESP clients can select. Namespaces that only HTTP reaches are not Redis' databases and stay.
pub(crate) async fn flushall(session: &mut Session, args: &Args) -> Outcome {
    check_flush(args)?;
    for number in 0..session.server().config.databases {
        session.server().cache.clear(&Namespace::database(number)).await?;
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
