//! When keys expire.

use pilotlight_cache::{Head, Put, When};

use super::set::Unit;
use crate::resp::command::{Args, Outcome};
use crate::resp::error::Fault;
use crate::resp::reply::Reply;
use crate::resp::session::Session;

pub(crate) async fn expire(session: &mut Session, args: &Args) -> Outcome {
    set_expiry(session, args, Unit { is_seconds: true, is_absolute: false }, "expire").await
}

pub(crate) async fn pexpire(session: &mut Session, args: &Args) -> Outcome {
    set_expiry(session, args, Unit { is_seconds: false, is_absolute: false }, "pexpire").await
}

pub(crate) async fn expireat(session: &mut Session, args: &Args) -> Outcome {
    set_expiry(session, args, Unit { is_seconds: true, is_absolute: true }, "expireat").await
}

pub(crate) async fn pexpireat(session: &mut Session, args: &Args) -> Outcome {
    set_expiry(session, args, Unit { is_seconds: false, is_absolute: true }, "pexpireat").await
}

/// The conditions of `EXPIRE` and its like.
#[derive(Debug, Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(args: &[bytes::Bytes]) -> Result<Self, Fault> {
        let mut conditions = Self::default();
        for arg in args {
            let flag = match arg.to_ascii_lowercase().as_slice() {
                b"nx" => &mut conditions.nx,
                b"xx" => &mut conditions.xx,
                b"gt" => &mut conditions.gt,
                b"lt" => &mut conditions.lt,
                _ => {
                    let mut text = b"Unsupported option ".to_vec();
                    text.extend_from_slice(arg);
                    return Err(Fault::quoting(text));
                }
            };
            *flag = true;
        }
        let Self { nx, xx, gt, lt } = conditions;
        if nx && (xx || gt || lt) {
            return Err(Fault::err("NX and XX, GT or LT options at the same time are not compatible"));
        }
        if gt && lt {
            return Err(Fault::err("GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    /// Whether an expiry at `at_ms` may replace the one of `head`. A key that never expires counts as the latest.
    fn hold(&self, head: &Head, at_ms: i64) -> bool {
        let current_ms = head.expires_ms.map(|current_ms| i64::try_from(current_ms).unwrap_or(i64::MAX));
        !(self.nx && current_ms.is_some()
            || self.xx && current_ms.is_none()
            || self.gt && current_ms.is_none_or(|current_ms| at_ms <= current_ms)
            || self.lt && current_ms.is_some_and(|current_ms| at_ms >= current_ms))
    }
}

/// A time in the past deletes the key.
async fn set_expiry(session: &Session, args: &Args, unit: Unit, command: &str) -> Outcome {
    let conditions = Conditions::parse(args.from(3))?;
    let now_ms = session.now_ms();
    let at_ms = unit.to_epoch_ms(args.integer(2)?, now_ms);
    let at_ms = at_ms.ok_or_else(|| Fault::invalid_expire_time(command))?;
    let cache = &session.server().cache;
    let key = session.short_key(args.at(1)?)?;
    loop {
        let Some(head) = cache.head(&key).await? else { return Ok(Reply::flag(false)) };
        if !conditions.hold(&head, at_ms) {
            return Ok(Reply::flag(false));
        }
        let when = When::Version(head.version);
        let is_done = match u64::try_from(at_ms).ok().filter(|at_ms| *at_ms > now_ms) {
            None => cache.delete(&key, when).await?,
            Some(at_ms) => matches!(cache.set_expiry(&key, Some(at_ms), when).await?, Put::Stored(_)),
        };
        if is_done {
            return Ok(Reply::flag(true));
        }
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn persist(session: &mut Session, args: &Args) -> Outcome {
    let cache = &session.server().cache;
    let key = session.short_key(args.at(1)?)?;
    loop {
        let head = cache.head(&key).await?;
        let Some(head) = head.filter(|head| head.expires_ms.is_some()) else { return Ok(Reply::flag(false)) };
        if let Put::Stored(_) = cache.set_expiry(&key, None, When::Version(head.version)).await? {
            return Ok(Reply::flag(true));
        }
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn ttl(session: &mut Session, args: &Args) -> Outcome {
    let now_ms = session.now_ms();
    time_of(session, args, |at_ms| rounded_seconds(at_ms.saturating_sub(now_ms))).await
}

pub(crate) async fn pttl(session: &mut Session, args: &Args) -> Outcome {
    let now_ms = session.now_ms();
    time_of(session, args, |at_ms| at_ms.saturating_sub(now_ms)).await
}

pub(crate) async fn expiretime(session: &mut Session, args: &Args) -> Outcome {
    time_of(session, args, rounded_seconds).await
}

pub(crate) async fn pexpiretime(session: &mut Session, args: &Args) -> Outcome {
    time_of(session, args, |at_ms| at_ms).await
}

fn rounded_seconds(ms: u64) -> u64 {
    ms.saturating_add(500) / 1000
}

/// -2 without a key, -1 without an expiry.
async fn time_of(session: &Session, args: &Args, time: impl Fn(u64) -> u64) -> Outcome {
    let head = session.server().cache.head(&session.short_key(args.at(1)?)?).await?;
    Ok(match head.map(|head| head.expires_ms) {
        None => Reply::Integer(-2),
        Some(None) => Reply::Integer(-1),
        Some(Some(at_ms)) => Reply::count(time(at_ms)),
    })
}
