//! What a connection says about itself.

use std::rc::Rc;
use std::str;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::Bytes;

use crate::access::{DEFAULT, Deed, Turn};
use crate::resp::command::{Args, Outcome, is};
use crate::resp::error::Fault;
use crate::resp::number::parse_i64;
use crate::resp::reply::{Protocol, Reply};
use crate::resp::session::{Replies, Session};

/// A connection keeps what it calls itself for life, and `CLIENT LIST` shows it of all of them.
const NAME_LEN_MAX: usize = 256;

/// The version of Redis whose behaviour clients may expect.
pub(crate) const REDIS_VERSION: &str = "7.2.0";

pub(crate) fn ping(_session: &mut Session, args: &Args) -> Outcome {
    match args.from(1) {
        [] => Ok(Reply::Simple("PONG")),
        [text] => Ok(Reply::Bulk(text.clone())),
        _ => Err(Fault::wrong_arity("ping")),
    }
}

pub(crate) fn echo(_session: &mut Session, args: &Args) -> Outcome {
    Ok(Reply::Bulk(args.at(1)?.clone()))
}

pub(crate) fn quit(session: &mut Session, _args: &Args) -> Outcome {
    session.is_closing = true;
    Ok(Reply::Ok)
}

pub(crate) fn select(session: &mut Session, args: &Args) -> Outcome {
    let number = database(session, args.at(1)?)?;
    session.select(number);
    Ok(Reply::Ok)
}

/// The database that a client calls `number`.
pub(crate) fn database(session: &Session, number: &[u8]) -> Result<u16, Fault> {
    let number = parse_i64(number).ok_or(Fault::NOT_AN_INTEGER)?;
    if i32::try_from(number).is_err() {
        return Err(Fault::err("value is out of range, value must between -2147483648 and 2147483647"));
    }
    let known = u16::try_from(number).ok().filter(|number| *number < session.server().config.databases);
    known.ok_or(Fault::DB_OUT_OF_RANGE)
}

pub(crate) async fn auth(session: &mut Session, args: &Args) -> Outcome {
    match args.from(1) {
        [_] if session.server().access.users().anybody().is_some() => Err(Fault::err(
            "AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        )),
        [password] => log_in(session, DEFAULT.as_bytes(), password).await,
        [user, password] => log_in(session, user, password).await,
        _ => Err(Fault::SYNTAX),
    }?;
    Ok(Reply::Ok)
}

/// Makes the connection the user's, if the secret is right. Where others failed before from the same address, it waits first.
///
/// # Cancellation
/// While it waits: the connection is what it was.
async fn log_in(session: &mut Session, user: &[u8], secret: &[u8]) -> Result<(), Fault> {
    let core = Rc::clone(&session.core);
    let (access, stats) = (&core.server.access, &core.server.stats);
    let peer = session.peer();
    let turn = access.attempts.turn(peer, secret, Instant::now());
    if turn != Turn::Now {
        stats.logins_delayed_total.fetch_add(1, Relaxed);
    }
    if let Turn::After(wait) = turn {
        tokio::time::sleep(wait).await;
    }
    let generation = access.generation();
    let name = str::from_utf8(user).ok().filter(|_| turn != Turn::Never);
    let Some(login) = name.and_then(|name| access.users().by_name_and_secret(name, secret)) else {
        access.attempts.failed(peer, Instant::now());
        stats.logins_failed_total.fetch_add(1, Relaxed);
        session.audit_login(user, Deed::Denied);
        return Err(Fault::WRONG_PASS);
    };
    session.stand_as(login, generation);
    session.audit_login(user, Deed::Ok);
    Ok(())
}

pub(crate) async fn hello(session: &mut Session, args: &Args) -> Outcome {
    let mut options = args.from(1).iter();
    let protocol = match options.next().map(|version| parse_i64(version)) {
        None => session.protocol,
        Some(Some(2)) => Protocol::Resp2,
        Some(Some(3)) => Protocol::Resp3,
        Some(Some(_)) => return Err(Fault::NO_PROTO),
        Some(None) => return Err(Fault::err("Protocol version is not an integer or out of range")),
    };
    let (mut credentials, mut name) = (None, None);
    while let Some(option) = options.next() {
        let mut value = || options.next().ok_or_else(|| hello_syntax(option));
        if is(option, "auth") {
            credentials = Some((value()?, value()?));
        } else if is(option, "setname") {
            name = Some(value()?);
        } else {
            return Err(hello_syntax(option));
        }
    }
    if let Some((user, password)) = credentials {
        log_in(session, user, password).await?;
    }
    if !session.is_authenticated() {
        return Err(Fault::NO_AUTH_IN_HELLO);
    }
    if let Some(name) = name {
        session.client.names.lock().connection = checked_name(name, "Client names")?;
    }
    session.speak(protocol);
    Ok(greeting(session))
}

fn hello_syntax(option: &[u8]) -> Fault {
    let mut text = b"Syntax error in HELLO option '".to_vec();
    text.extend_from_slice(option);
    text.push(b'\'');
    Fault::quoting(text)
}

/// Clients look at `server` and `version` to learn which commands they may send: those of Redis.
fn greeting(session: &Session) -> Reply {
    let number = if session.protocol == Protocol::Resp3 { 3 } else { 2 };
    let pairs = [
        ("server", Reply::text("redis")),
        ("version", Reply::text(REDIS_VERSION)),
        ("proto", Reply::Integer(number)),
        ("id", Reply::count(session.client.id)),
        ("mode", Reply::text("standalone")),
        ("role", Reply::text("master")),
        ("modules", Reply::Array(Vec::new())),
    ];
    Reply::Map(pairs.into_iter().map(|(name, value)| (Reply::text(name), value)).collect())
}

/// A name that can stand in a line of `CLIENT LIST`.
pub(crate) fn checked_name(name: &Bytes, what: &str) -> Result<Bytes, Fault> {
    if name.len() > NAME_LEN_MAX {
        return Err(Fault::quoting(format!("{what} cannot be longer than {NAME_LEN_MAX} bytes.")));
    }
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        // A copy: what is kept for the life of the connection must not keep a read buffer.
        return Ok(Bytes::copy_from_slice(name));
    }
    Err(Fault::quoting(format!("{what} cannot contain spaces, newlines or special characters.")))
}

pub(crate) fn reset(session: &mut Session, _args: &Args) -> Outcome {
    session.transaction = None;
    session.watched.clear();
    session.led.clear();
    session.stand_as_stranger();
    session.select(0);
    session.speak(Protocol::Resp2);
    session.replies = Replies::On;
    session.client.names.lock().connection = Bytes::new();
    Ok(Reply::Simple("RESET"))
}
