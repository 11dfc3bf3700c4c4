//! Values that are numbers.

use bytes::Bytes;

use super::update::{Change, expiry_of, update};
use crate::resp::command::{Args, Outcome};
use crate::resp::error::Fault;
use crate::resp::number::{LongDouble, ParsedFloat, parse_i64};
use crate::resp::reply::Reply;
use crate::resp::session::Session;

pub(crate) async fn incr(session: &mut Session, args: &Args) -> Outcome {
    add(session, args, 1).await
}

pub(crate) async fn decr(session: &mut Session, args: &Args) -> Outcome {
    add(session, args, -1).await
}

pub(crate) async fn incrby(session: &mut Session, args: &Args) -> Outcome {
    add(session, args, args.integer(2)?).await
}

pub(crate) async fn decrby(session: &mut Session, args: &Args) -> Outcome {
    let by = args.integer(2)?.checked_neg().ok_or(Fault::err("decrement would overflow"))?;
    add(session, args, by).await
}

async fn add(session: &Session, args: &Args, by: i64) -> Outcome {
    let key = session.short_key(args.at(1)?)?;
    update(session, &key, |found| {
        let old = match found {
            Some(found) => parse_i64(&found.entry.artifact).ok_or(Fault::NOT_AN_INTEGER)?,
            None => 0,
        };
        let new = old.checked_add(by).ok_or(Fault::OVERFLOW)?;
        let reply = Reply::Integer(new);
        Ok(Change::Put { artifact: new.to_string().into(), expires_ms: expiry_of(found), reply })
    })
    .await
}

pub(crate) async fn incrbyfloat(session: &mut Session, args: &Args) -> Outcome {
    const INFINITE: Fault = Fault::err("increment would produce NaN or Infinity");
    let key = session.short_key(args.at(1)?)?;
    let by = args.at(2)?;
    update(session, &key, |found| {
        let parse = |bytes: &[u8]| match LongDouble::parse(bytes) {
            ParsedFloat::NotANumber => Err(Fault::NOT_A_FLOAT),
            ParsedFloat::Infinite => Ok(None),
            ParsedFloat::Finite(number) => Ok(Some(number)),
        };
        let old = match found {
            Some(found) => parse(&found.entry.artifact)?,
            None => Some(LongDouble::default()),
        };
        let new = match (old, parse(by)?) {
            (Some(old), Some(by)) => old.checked_add(by).ok_or(INFINITE)?,
            _ => return Err(INFINITE),
        };
        let artifact = Bytes::from(new.to_string());
        let reply = Reply::Bulk(artifact.clone());
        Ok(Change::Put { artifact, expires_ms: expiry_of(found), reply })
    })
    .await
}
