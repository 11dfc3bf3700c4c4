//! `SET` and its older forms.

use bytes::Bytes;
use pilotlight_cache::{Found, Key, Put, PutOutcome, Verified, When};

use super::strings::artifact_or_nil;
use super::update::expiry_of;
use crate::resp::command::{Args, Outcome, is};
use crate::resp::error::Fault;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::resp::session::Session;

/// The options of `SET` and `GETEX`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Options<'a> {
    condition: Option<Condition>,
    answers_old: bool,
    expiry: Expiry<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Absent,
    Present,
}

/// What becomes of the expiry.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Expiry<'a> {
    /// `SET` takes it off, `GETEX` leaves it.
    #[default]
    Unsaid,
    Keep,
    Remove,
    /// As the client wrote it: the options' syntax is checked before any time is, and `GETEX` looks for the key before.
    Time(Unit, &'a [u8]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OptionsOf {
    Set,
    GetEx,
}

/// How a time is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) is_seconds: bool,
    pub(super) is_absolute: bool,
}

impl Unit {
    fn of(word: &[u8]) -> Option<Self> {
        let (is_seconds, is_absolute) = match word.to_ascii_lowercase().as_slice() {
            b"ex" => (true, false),
            b"px" => (false, false),
            b"exat" => (true, true),
            b"pxat" => (false, true),
            _ => return None,
        };
        Some(Self { is_seconds, is_absolute })
    }

    /// `time` as milliseconds since the Unix epoch, as far as that can be told; may be negative.
    pub(super) fn to_epoch_ms(self, time: i64, now_ms: u64) -> Option<i64> {
        let time_ms = if self.is_seconds { time.checked_mul(1000)? } else { time };
        if self.is_absolute { Some(time_ms) } else { time_ms.checked_add(i64::try_from(now_ms).ok()?) }
    }

    /// The same for commands that take no time in the past.
    fn expires_ms(self, time: &[u8], now_ms: u64, command: &str) -> Result<u64, Fault> {
        let time = parse_i64(time).ok_or(Fault::NOT_AN_INTEGER)?;
        let at_ms = Some(time).filter(|time| *time > 0).and_then(|time| self.to_epoch_ms(time, now_ms));
        at_ms.and_then(|at_ms| u64::try_from(at_ms).ok()).ok_or_else(|| Fault::invalid_expire_time(command))
    }
}

impl<'a> Options<'a> {
    fn parse(args: &'a [Bytes], of: OptionsOf) -> Result<Self, Fault> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let is_set = of == OptionsOf::Set;
            // An option may be repeated, but not contradicted.
            let may_be = |expiry: Expiry<'_>| match options.expiry {
                Expiry::Unsaid => true,
                Expiry::Time(unit, _) => matches!(expiry, Expiry::Time(other, _) if unit == other),
                said => said == expiry,
            };
            if is_set && is(arg, "nx") && options.condition != Some(Condition::Present) {
                options.condition = Some(Condition::Absent);
            } else if is_set && is(arg, "xx") && options.condition != Some(Condition::Absent) {
                options.condition = Some(Condition::Present);
            } else if is_set && is(arg, "get") {
                options.answers_old = true;
            } else if is_set && is(arg, "keepttl") && may_be(Expiry::Keep) {
                options.expiry = Expiry::Keep;
            } else if !is_set && is(arg, "persist") && may_be(Expiry::Remove) {
                options.expiry = Expiry::Remove;
            } else if let Some(unit) = Unit::of(arg).filter(|unit| may_be(Expiry::Time(*unit, &[]))) {
                options.expiry = Expiry::Time(unit, args.next().ok_or(Fault::SYNTAX)?);
            } else {
                return Err(Fault::SYNTAX);
            }
        }
        Ok(options)
    }
}

pub(crate) async fn set(session: &mut Session, args: &Args) -> Outcome {
    let options = Options::parse(args.from(3), OptionsOf::Set)?;
    set_with(session, args.at(1)?, args.at(2)?, options, "set").await
}

async fn set_with(
    session: &mut Session,
    name: &Bytes,
    value: &Bytes,
    options: Options<'_>,
    command: &str,
) -> Outcome {
    let key = session.key(name);
    let expires_ms = match options.expiry {
        Expiry::Time(unit, time) => Some(unit.expires_ms(time, session.now_ms(), command)?),
        Expiry::Unsaid | Expiry::Keep | Expiry::Remove => None,
    };
    if options.answers_old || options.expiry == Expiry::Keep {
        return set_after_get(session, &key, value, expires_ms, options).await;
    }
    let when = match options.condition {
        None => When::Always,
        Some(Condition::Absent) => When::Absent,
        Some(Condition::Present) => When::Present,
    };
    Ok(match session.stage(&key, value.clone(), expires_ms, when).await? {
        None | Some(PutOutcome::Stored(_)) => Reply::Ok,
        Some(PutOutcome::Unmet | PutOutcome::Refused(_)) => Reply::Nil,
    })
}

/// For options that depend on what is there. Done again when another client's write comes between.
async fn set_after_get(
    session: &Session,
    key: &Key,
    value: &Bytes,
    expires_ms: Option<u64>,
    options: Options<'_>,
) -> Outcome {
    let cache = &session.server().cache;
    loop {
        let found = match cache.peek(key).await {
            Ok(found) => found,
            Err(error) => {
                cache.refuse_put(key, error)?;
                return Ok(Reply::Nil);
            }
        };
        let is_met = match options.condition {
            None => true,
            Some(Condition::Absent) => found.is_none(),
            Some(Condition::Present) => found.is_some(),
        };
        if is_met {
            let keeps = options.expiry == Expiry::Keep;
            let expires_ms = if keeps { expiry_of(found.as_ref()) } else { expires_ms };
            let when = found.as_ref().map_or(When::Absent, |found| When::Version(found.version));
            match session.put(key, value.clone(), expires_ms, when).await? {
                PutOutcome::Stored(_) => {}
                PutOutcome::Refused(_) => return Ok(Reply::Nil),
                PutOutcome::Unmet => {
                    tokio::task::yield_now().await;
                    continue;
                }
            }
        }
        return Ok(match (options.answers_old, is_met) {
            (true, _) => artifact_or_nil(found),
            (false, true) => Reply::Ok,
            (false, false) => Reply::Nil,
        });
    }
}

pub(crate) async fn setnx(session: &mut Session, args: &Args) -> Outcome {
    let key = session.key(args.at(1)?);
    let outcome = session.put(&key, args.at(2)?.clone(), None, When::Absent).await?;
    Ok(Reply::flag(matches!(outcome, PutOutcome::Stored(_))))
}

pub(crate) async fn setex(session: &mut Session, args: &Args) -> Outcome {
    set_expiring(session, args, Unit { is_seconds: true, is_absolute: false }, "setex").await
}

pub(crate) async fn psetex(session: &mut Session, args: &Args) -> Outcome {
    set_expiring(session, args, Unit { is_seconds: false, is_absolute: false }, "psetex").await
}

async fn set_expiring(session: &mut Session, args: &Args, unit: Unit, command: &str) -> Outcome {
    let options = Options { expiry: Expiry::Time(unit, args.at(2)?), ..Options::default() };
    set_with(session, args.at(1)?, args.at(3)?, options, command).await
}

pub(crate) async fn getset(session: &mut Session, args: &Args) -> Outcome {
    let options = Options { answers_old: true, ..Options::default() };
    set_with(session, args.at(1)?, args.at(2)?, options, "getset").await
}

pub(crate) async fn getex(session: &mut Session, args: &Args) -> Outcome {
    let options = Options::parse(args.from(2), OptionsOf::GetEx)?;
    let key = session.key(args.at(1)?);
    loop {
        let Some(found) = session.get_own(&key).await? else { return Ok(Reply::Nil) };
        if is_expiry_changed(session, &key, &found, options.expiry).await? {
            return Ok(artifact_or_nil(Some(found)));
        }
        tokio::task::yield_now().await;
    }
}

/// Whether the expiry of what was found is now as asked; not when another client's write came between.
async fn is_expiry_changed(
    session: &Session,
    key: &Key,
    found: &Found<Verified>,
    expiry: Expiry<'_>,
) -> Result<bool, Fault> {
    let cache = &session.server().cache;
    let when = When::Version(found.version);
    let expires_ms = match expiry {
        Expiry::Unsaid | Expiry::Keep => return Ok(true),
        Expiry::Time(unit, time) => {
            let now_ms = session.now_ms();
            let at_ms = unit.expires_ms(time, now_ms, "getex")?;
            if at_ms <= now_ms {
                return Ok(cache.delete(key, when).await?);
            }
            Some(at_ms)
        }
        Expiry::Remove => None,
    };
    Ok(matches!(cache.set_expiry(key, expires_ms, when).await?, Put::Stored(_)))
}
