//! `SET` and its older forms.

use bytes::Bytes;
use pilotlight_cache::{BackendExt, Found, Key, PutOutcome, When};

use super::strings::artifact_or_nil;
use super::update::expiry_of;
use crate::resp::command::{Args, Outcome, is};
use crate::resp::error::Fault;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::resp::session::Session;

/// The options of `SET` and `GETEX`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Options {
    condition: Option<Condition>,
    answers_old: bool,
    expiry: Expiry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Absent,
    Present,
}

/// What becomes of the expiry.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    /// `SET` takes it off, `GETEX` leaves it.
    #[default]
    Unsaid,
    Keep,
    Remove,
    At(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OptionsOf {
    Set,
    GetEx,
}

/// How a time is given.
#[derive(Debug, Clone, Copy)]
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

impl Options {
    fn parse(args: &[Bytes], of: OptionsOf, now_ms: u64) -> Result<Self, Fault> {
        let mut options = Self::default();
        let mut time = None;
        let mut args = args.iter();
        // The syntax of all options is checked before any value, as in Redis.
        while let Some(arg) = args.next() {
            let is_expiry_unsaid = options.expiry == Expiry::Unsaid && time.is_none();
            let is_set = of == OptionsOf::Set;
            if is_set && is(arg, "nx") && options.condition != Some(Condition::Present) {
                options.condition = Some(Condition::Absent);
            } else if is_set && is(arg, "xx") && options.condition != Some(Condition::Absent) {
                options.condition = Some(Condition::Present);
            } else if is_set && is(arg, "get") {
                options.answers_old = true;
            } else if is_set && is(arg, "keepttl") && (is_expiry_unsaid || options.expiry == Expiry::Keep) {
                options.expiry = Expiry::Keep;
            } else if !is_set && is(arg, "persist") && (is_expiry_unsaid || options.expiry == Expiry::Remove)
            {
                options.expiry = Expiry::Remove;
            } else if let Some(unit) = Unit::of(arg).filter(|_| is_expiry_unsaid) {
                time = Some((unit, args.next().ok_or(Fault::SYNTAX)?));
            } else {
                return Err(Fault::SYNTAX);
            }
        }
        if let Some((unit, time)) = time {
            let command = if of == OptionsOf::Set { "set" } else { "getex" };
            options.expiry = Expiry::At(unit.expires_ms(time, now_ms, command)?);
        }
        Ok(options)
    }
}

pub(crate) async fn set(session: &mut Session, args: &Args) -> Outcome {
    let options = Options::parse(args.from(3), OptionsOf::Set, session.now_ms())?;
    let (key, value) = (session.key(args.at(1)?), args.at(2)?);
    set_with(session, &key, value, options).await
}

async fn set_with(session: &Session, key: &Key, value: &Bytes, options: Options) -> Outcome {
    let when = match options.condition {
        None => When::Always,
        Some(Condition::Absent) => When::Absent,
        Some(Condition::Present) => When::Present,
    };
    let expires_ms = match options.expiry {
        Expiry::At(at_ms) => Some(at_ms),
        Expiry::Unsaid | Expiry::Remove => None,
        Expiry::Keep => return set_after_get(session, key, value, options).await,
    };
    if options.answers_old {
        return set_after_get(session, key, value, options).await;
    }
    Ok(match session.put(key, value.clone(), expires_ms, when).await? {
        PutOutcome::Stored(_) => Reply::Ok,
        PutOutcome::Unmet | PutOutcome::Refused(_) => Reply::Nil,
    })
}

/// For options that depend on what is there. Done again when another client's write comes between.
async fn set_after_get(session: &Session, key: &Key, value: &Bytes, options: Options) -> Outcome {
    let cache = &session.server().cache;
    loop {
        let found = match cache.backend().get(key).await {
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
            let expires_ms = match options.expiry {
                Expiry::Keep => expiry_of(found.as_ref()),
                Expiry::At(at_ms) => Some(at_ms),
                Expiry::Unsaid | Expiry::Remove => None,
            };
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

async fn set_expiring(session: &Session, args: &Args, unit: Unit, command: &str) -> Outcome {
    let at_ms = unit.expires_ms(args.at(2)?, session.now_ms(), command)?;
    let options = Options { expiry: Expiry::At(at_ms), ..Options::default() };
    set_with(session, &session.key(args.at(1)?), args.at(3)?, options).await
}

pub(crate) async fn getset(session: &mut Session, args: &Args) -> Outcome {
    let options = Options { answers_old: true, ..Options::default() };
    set_with(session, &session.key(args.at(1)?), args.at(2)?, options).await
}

pub(crate) async fn getex(session: &mut Session, args: &Args) -> Outcome {
    let now_ms = session.now_ms();
    let options = Options::parse(args.from(2), OptionsOf::GetEx, now_ms)?;
    let key = session.key(args.at(1)?);
    loop {
        let Some(found) = session.get(&key).await? else { return Ok(Reply::Nil) };
        if is_expiry_changed(session, &key, &found, options.expiry, now_ms).await? {
            return Ok(artifact_or_nil(Some(found)));
        }
        tokio::task::yield_now().await;
    }
}

/// Whether the expiry of what was found is now as asked; not when another client's write came between.
async fn is_expiry_changed(
    session: &Session,
    key: &Key,
    found: &Found,
    expiry: Expiry,
    now_ms: u64,
) -> Result<bool, Fault> {
    let cache = &session.server().cache;
    let when = When::Version(found.version);
    let expires_ms = match expiry {
        Expiry::Unsaid | Expiry::Keep => return Ok(true),
        Expiry::At(at_ms) if at_ms <= now_ms => return Ok(cache.delete(key, when).await?),
        Expiry::At(at_ms) => Some(at_ms),
        Expiry::Remove => None,
    };
    Ok(matches!(cache.set_expiry(key, expires_ms, when).await?, pilotlight_cache::Put::Stored(_)))
}
