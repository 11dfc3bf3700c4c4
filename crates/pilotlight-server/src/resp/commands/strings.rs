//! Values, whole and in parts.

use bytes::{Bytes, BytesMut};
use pilotlight_cache::{Found, PutOutcome, Verified, When};

use super::update::{Change, expiry_of, update};
use crate::resp::command::{Args, Outcome};
use crate::resp::error::Fault;
use crate::resp::reply::Reply;
use crate::resp::session::Session;

/// The artifact as a reply; nil for a miss.
pub(super) fn artifact_or_nil(found: Option<Found<Verified>>) -> Reply {
    found.map_or(Reply::Nil, |found| Reply::Bulk(found.entry.artifact.into_bytes()))
}

pub(crate) async fn get(session: &mut Session, args: &Args) -> Outcome {
    let key = session.key(args.at(1)?);
    Ok(artifact_or_nil(session.get(&key).await?))
}

pub(crate) async fn getdel(session: &mut Session, args: &Args) -> Outcome {
    let key = session.key(args.at(1)?);
    loop {
        let Some(found) = session.get_own(&key).await? else { return Ok(Reply::Nil) };
        if session.server().cache.delete(&key, When::Version(found.version)).await? {
            return Ok(artifact_or_nil(Some(found)));
        }
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn mget(session: &mut Session, args: &Args) -> Outcome {
    let names = args.from(1);
    if names.iter().any(|name| name.len() > pilotlight_cache::KEY_LEN_MAX) {
        let (mut replies, mut bytes) = (Vec::with_capacity(names.len()), 0);
        for name in names {
            let key = session.key(name);
            let found = match bytes > session.replies_bytes_max() {
                false => session.get(&key).await?,
                true => session.refuse_for_room(&key)?,
            };
            let reply = artifact_or_nil(found);
            bytes += reply.len();
            replies.push(reply);
        }
        return Ok(Reply::Array(replies));
    }
    // One operation of the backend for all keys, as long as what it brings has room here.
    let keys: Vec<_> = names.iter().map(|name| session.key(name)).collect();
    let (fitting, others) = keys.split_at(session.fitting(&keys).await);
    let answers = session.server().cache.get_many_through(fitting, session.standing.through()).await;
    let answers = answers.into_iter().chain(others.iter().map(|key| session.refuse_for_room(key)));
    let replies: Result<_, Fault> = answers.map(|answer| Ok(artifact_or_nil(answer?))).collect();
    Ok(Reply::Array(replies?))
}

/// Keys and values in turn; the table's arity cannot say that they come in pairs.
fn pairs<'a>(args: &'a Args, command: &str) -> Result<Vec<(&'a Bytes, &'a Bytes)>, Fault> {
    let (pairs, rest) = args.from(1).as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|[key, value]| (key, value)).collect())
    } else {
        Err(Fault::wrong_arity(command))
    }
}

/// Answers nil when a compile-cache kind could not be kept; those before it stay, as each put is a whole.
pub(crate) async fn mset(session: &mut Session, args: &Args) -> Outcome {
    let mut reply = Reply::Ok;
    for (name, value) in pairs(args, "mset")? {
        let outcome = session.put(&session.key(name), value.clone(), None, When::Always).await?;
        if matches!(outcome, PutOutcome::Refused(_)) {
            reply = Reply::Nil;
        }
    }
    Ok(reply)
}

pub(crate) async fn msetnx(session: &mut Session, args: &Args) -> Outcome {
    let pairs = pairs(args, "msetnx")?;
    for (name, _) in &pairs {
        if session.server().cache.head(&session.short_key(name)?).await?.is_some() {
            return Ok(Reply::flag(false));
        }
    }
    let mut is_kept = true;
    for (name, value) in pairs {
        let outcome = session.put(&session.key(name), value.clone(), None, When::Always).await?;
        is_kept &= matches!(outcome, PutOutcome::Stored(_));
    }
    Ok(Reply::flag(is_kept))
}

pub(crate) async fn append(session: &mut Session, args: &Args) -> Outcome {
    let (key, suffix) = (session.short_key(args.at(1)?)?, args.at(2)?);
    let max_bytes = session.server().config.entry_bytes_max;
    update(session, &key, |found| {
        let Some(found) = found else {
            return Ok(Change::Put {
                artifact: suffix.clone(),
                expires_ms: None,
                reply: Reply::count(suffix.len() as u64),
            });
        };
        let len = found.entry.artifact.len() + suffix.len();
        if len as u64 > max_bytes {
            return Err(Fault::STRING_TOO_LONG);
        }
        let mut artifact = BytesMut::with_capacity(len);
        artifact.extend_from_slice(&found.entry.artifact);
        artifact.extend_from_slice(suffix);
        let reply = Reply::count(len as u64);
        Ok(Change::Put { artifact: artifact.freeze(), expires_ms: expiry_of(Some(found)), reply })
    })
    .await
}

pub(crate) async fn strlen(session: &mut Session, args: &Args) -> Outcome {
    let head = session.server().cache.head(&session.short_key(args.at(1)?)?).await?;
    Ok(Reply::count(head.map_or(0, |head| head.artifact_len)))
}

pub(crate) async fn getrange(session: &mut Session, args: &Args) -> Outcome {
    let (start, end) = (args.integer(2)?, args.integer(3)?);
    let key = session.key(args.at(1)?);
    let Some(found) = session.get(&key).await? else { return Ok(Reply::text("")) };
    let artifact = found.entry.artifact.into_bytes();
    let range = range(start, end, artifact.len());
    Ok(Reply::Bulk(artifact.slice(range)))
}

/// The bytes from `start` to `end`, both included and both counted from the end when negative.
fn range(start: i64, end: i64, len: usize) -> std::ops::Range<usize> {
    let len_signed = i64::try_from(len).unwrap_or(i64::MAX);
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let place = |index: i64| {
        let index = if index < 0 { len_signed.saturating_add(index).max(0) } else { index };
        usize::try_from(index).unwrap_or(0)
    };
    let (start, end) = (place(start), place(end).saturating_add(1).min(len));
    if start >= end { 0..0 } else { start..end }
}

pub(crate) async fn setrange(session: &mut Session, args: &Args) -> Outcome {
    let (offset, patch) = (args.integer(2)?, args.at(3)?);
    let offset = usize::try_from(offset).map_err(|_| Fault::err("offset is out of range"))?;
    let key = session.short_key(args.at(1)?)?;
    let max_bytes = session.server().config.entry_bytes_max;
    update(session, &key, |found| {
        let old = found.map(|found| found.entry.artifact.bytes().clone()).unwrap_or_default();
        if patch.is_empty() {
            return Ok(Change::Keep(Reply::count(old.len() as u64)));
        }
        let end = offset.saturating_add(patch.len());
        if end as u64 > max_bytes {
            return Err(Fault::STRING_TOO_LONG);
        }
        let mut artifact = BytesMut::zeroed(old.len().max(end));
        if let Some(head) = artifact.get_mut(..old.len()) {
            head.copy_from_slice(&old);
        }
        if let Some(middle) = artifact.get_mut(offset..end) {
            middle.copy_from_slice(patch);
        }
        let reply = Reply::count(artifact.len() as u64);
        Ok(Change::Put { artifact: artifact.freeze(), expires_ms: expiry_of(found), reply })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_value() {
        for (start, end, expected) in [
            (0, 3, 0..4),
            (0, -1, 0..5),
            (-3, -2, 2..4),
            (-2, -3, 0..0),
            (4, 100, 4..5),
            (5, 9, 0..0),
            (-100, -100, 0..1),
            (i64::MIN, i64::MAX, 0..5),
            (3, 1, 0..0),
        ] {
            assert_eq!(range(start, end, 5), expected, "{start} {end}");
        }
        assert_eq!(range(0, -1, 0), 0..0);
    }
}
