//! `CLIENT`.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::connection::checked_name;
use crate::access::{DEFAULT, Users};
use crate::resp::clients::Client;
use crate::resp::command::{Args, Outcome, is};
use crate::resp::error::Fault;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::resp::session::{Replies, Session};

/// Filters in one `CLIENT KILL`. Each looks at every connection.
const FILTERS_MAX: usize = 64;

pub(crate) fn id(session: &mut Session, _args: &Args) -> Outcome {
    Ok(Reply::count(session.client.id))
}

pub(crate) fn getname(session: &mut Session, _args: &Args) -> Outcome {
    let name = session.client.names.lock().connection.clone();
    Ok(if name.is_empty() { Reply::Nil } else { Reply::Bulk(name) })
}

pub(crate) fn setname(session: &mut Session, args: &Args) -> Outcome {
    session.client.names.lock().connection = checked_name(args.at(2)?, "Client names")?;
    Ok(Reply::Ok)
}

pub(crate) fn setinfo(session: &mut Session, args: &Args) -> Outcome {
    let (attribute, value) = (args.at(2)?, args.at(3)?);
    let mut names = session.client.names.lock();
    if is(attribute, "lib-name") {
        names.library = checked_name(value, "lib-name")?;
    } else if is(attribute, "lib-ver") {
        names.library_version = checked_name(value, "lib-ver")?;
    } else {
        let mut text = b"Unrecognized option '".to_vec();
        text.extend_from_slice(attribute);
        text.push(b'\'');
        return Err(Fault::quoting(text));
    }
    Ok(Reply::Ok)
}

pub(crate) fn info(session: &mut Session, _args: &Args) -> Outcome {
    show_running(session);
    Ok(Reply::Verbatim(session.client.line(session.now_ms()).into()))
}

/// A connection's last command is noted when it waits for the next; one that looks at itself is not there yet.
fn show_running(session: &Session) {
    session.client.names.lock().last_command = session.last_command;
}

pub(crate) fn list(session: &mut Session, args: &Args) -> Outcome {
    show_running(session);
    let mut clients = session.shared().clients.all();
    match args.from(2) {
        [] => {}
        [option, kind] if is(option, "type") => check_kind(kind, &mut clients)?,
        [option, ids @ ..] if is(option, "id") && !ids.is_empty() => {
            let ids: Option<HashSet<i64>> = ids.iter().map(|id| parse_i64(id)).collect();
            let ids = ids.ok_or(Fault::err("Invalid client ID"))?;
            clients.retain(|client| i64::try_from(client.id).is_ok_and(|id| ids.contains(&id)));
        }
        _ => return Err(Fault::SYNTAX),
    }
    let now_ms = session.now_ms();
    let lines: Vec<u8> = clients.iter().flat_map(|client| client.line(now_ms)).collect();
    Ok(Reply::Verbatim(lines.into()))
}

/// Every client is a normal one.
fn check_kind(kind: &[u8], clients: &mut Vec<Arc<Client>>) -> Result<(), Fault> {
    if ["replica", "slave", "master", "pubsub"].iter().any(|other| is(kind, other)) {
        clients.clear();
    } else if !is(kind, "normal") {
        let mut text = b"Unknown client type '".to_vec();
        text.extend_from_slice(kind);
        text.push(b'\'');
        return Err(Fault::quoting(text));
    }
    Ok(())
}

pub(crate) fn kill(session: &mut Session, args: &Args) -> Outcome {
    if let [address] = args.from(2) {
        let clients = session.shared().clients.all();
        let client = clients.iter().find(|client| client.address.as_bytes() == address.as_ref());
        client.ok_or(Fault::err("No such client"))?.kill();
        return Ok(Reply::Ok);
    }
    let mut clients = session.shared().clients.all();
    let users = session.server().access.users();
    let mut skips_me = true;
    let (pairs, rest) = args.from(2).as_chunks::<2>();
    if !rest.is_empty() || pairs.len() > FILTERS_MAX {
        return Err(Fault::SYNTAX);
    }
    for [option, value] in pairs {
        if is(option, "skipme") {
            skips_me = match (is(value, "yes"), is(value, "no")) {
                (true, _) => true,
                (_, true) => false,
                _ => return Err(Fault::SYNTAX),
            };
        } else {
            retain_matching(&mut clients, &users, option, value)?;
        }
    }
    let own_id = session.client.id;
    clients.retain(|client| !(skips_me && client.id == own_id));
    clients.iter().for_each(|client| client.kill());
    Ok(Reply::count(clients.len() as u64))
}

fn retain_matching(
    clients: &mut Vec<Arc<Client>>,
    users: &Users,
    option: &Bytes,
    value: &Bytes,
) -> Result<(), Fault> {
    if is(option, "id") {
        const INVALID: Fault = Fault::err("client-id should be greater than 0");
        let id =
            parse_i64(value).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0).ok_or(INVALID)?;
        clients.retain(|client| client.id == id);
    } else if is(option, "addr") {
        clients.retain(|client| client.address.as_bytes() == value.as_ref());
    } else if is(option, "laddr") {
        clients.retain(|client| client.local_address.as_bytes() == value.as_ref());
    } else if is(option, "type") {
        check_kind(value, clients)?;
    } else if is(option, "user") {
        let is_of = |client: &Arc<Client>| client.names.lock().user.as_bytes() == value.as_ref();
        let is_known = std::str::from_utf8(value).is_ok_and(|name| users.by_name(name).is_some());
        if is_known || value == DEFAULT {
            clients.retain(is_of);
        } else {
            let mut text = b"No such user '".to_vec();
            text.extend_from_slice(value);
            text.push(b'\'');
            return Err(Fault::quoting(text));
        }
    } else {
        return Err(Fault::SYNTAX);
    }
    Ok(())
}

pub(crate) fn reply(session: &mut Session, args: &Args) -> Outcome {
    let how = args.at(2)?;
    if is(how, "on") {
        session.replies = Replies::On;
        return Ok(Reply::Ok);
    }
    if is(how, "off") {
        session.replies = Replies::Off;
    } else if is(how, "skip") {
        if session.replies != Replies::Off {
            session.replies = Replies::SkipThisAndNext;
        }
    } else {
        return Err(Fault::SYNTAX);
    }
    Ok(Reply::Silence)
}

pub(crate) fn on_off(_session: &mut Session, args: &Args) -> Outcome {
    let switch = args.at(2)?;
    if is(switch, "on") || is(switch, "off") { Ok(Reply::Ok) } else { Err(Fault::SYNTAX) }
}

pub(crate) fn tracking(_session: &mut Session, args: &Args) -> Outcome {
    let switch = args.at(2)?;
    if is(switch, "off") {
        return Ok(Reply::Ok);
    }
    if is(switch, "on") {
        return Err(Fault::err("client tracking is not supported"));
    }
    Err(Fault::SYNTAX)
}

/// What Redis answers where tracking is off.
pub(crate) fn trackinginfo(_session: &mut Session, _args: &Args) -> Outcome {
    Ok(Reply::Map(vec![
        (Reply::text("flags"), Reply::Set(vec![Reply::text("off")])),
        (Reply::text("redirect"), Reply::Integer(-1)),
        (Reply::text("prefixes"), Reply::Array(Vec::new())),
    ]))
}

/// -1 is Redis' answer where tracking is off.
pub(crate) fn getredir(_session: &mut Session, _args: &Args) -> Outcome {
    Ok(Reply::Integer(-1))
}

/// No command blocks, so there is never one to wake.
pub(crate) fn unblock(_session: &mut Session, args: &Args) -> Outcome {
    match args.from(3) {
        [] => {}
        [how] if is(how, "timeout") || is(how, "error") => {}
        _ => return Err(Fault::err("CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
    }
    args.integer(2)?;
    Ok(Reply::flag(false))
}
