//! What connections note of what they do.

use std::sync::Arc;

use bytes::Bytes;
use pilotlight_cache::Namespace;

use super::command::{Command, Flag, Needs};
use super::reply::Reply;
use super::session::Session;
use crate::access::{Deed, Event};

/// What is to be noted of a command once it is known how it ended.
#[derive(Debug)]
pub(crate) struct Note {
    action: &'static str,
    namespace: Namespace,
    /// Hashes of the keys it names; none for commands without.
    keys: Vec<u64>,
}

impl Note {
    /// Of a command that is about to run, if it is one that is noted: one that writes, or an administrator's.
    pub(super) fn of(session: &Session, command: &'static Command, args: &[Bytes]) -> Option<Self> {
        if !session.server().access.audit.is_on() {
            return None;
        }
        let is_noted = command.has(Flag::WRITE) || command.needs == Needs::Admin;
        is_noted.then(|| Self::gather(session, command, args))
    }

    /// Of any command that is refused.
    pub(super) fn of_denied(session: &Session, command: &'static Command, args: &[Bytes]) -> Option<Self> {
        session.server().access.audit.is_on().then(|| Self::gather(session, command, args))
    }

    fn gather(session: &Session, command: &'static Command, args: &[Bytes]) -> Self {
        let keys = command.keys_of(args).map(|name| session.key(name).log_hash()).collect();
        Self { action: command.name, namespace: session.namespace.clone(), keys }
    }
}

impl Session {
    /// Notes how a command ended. One whose put is staged is noted when that is settled.
    pub(super) fn audit(&mut self, note: Option<Note>, reply: &Reply) {
        let Some(note) = note else { return };
        if self.staged.is_some() {
            self.unsettled = Some(note);
            return;
        }
        self.audit_as(Some(note), deed(reply));
    }

    pub(super) fn audit_as(&self, note: Option<Note>, outcome: Deed) {
        let Some(Note { action, namespace, keys }) = note else { return };
        let user = self.standing.user().map_or_else(|| Arc::from(""), |user| Arc::clone(user.name()));
        let event = |key: Option<u64>| Event {
            time_ms: self.now_ms(),
            user: Arc::clone(&user),
            peer: Arc::from(self.client.address.as_str()),
            action: action.into(),
            namespace: Some(namespace.clone()),
            key: key.map(|key| format!("{key:016x}")),
            outcome,
        };
        let audit = &self.server().access.audit;
        if keys.is_empty() {
            audit.note(event(None));
        }
        keys.into_iter().for_each(|key| audit.note(event(Some(key))));
    }

    /// Notes that somebody logged in, or failed to.
    pub(super) fn audit_login(&self, user: &[u8], outcome: Deed) {
        let audit = &self.server().access.audit;
        if audit.is_on() {
            // What was claimed may be anything, a secret in the wrong place too.
            let claimed = String::from_utf8_lossy(user);
            let known = self.server().access.users().by_name(&claimed).map(|user| Arc::clone(user.name()));
            audit.note(Event {
                time_ms: self.now_ms(),
                user: known.unwrap_or_else(|| "?".into()),
                peer: self.client.address.as_str().into(),
                action: "login".into(),
                namespace: None,
                key: None,
                outcome,
            });
        }
    }
}

pub(super) fn deed(reply: &Reply) -> Deed {
    match reply {
        Reply::Error(_) => Deed::Failed,
        Reply::Nil | Reply::NilArray | Reply::Integer(0) => Deed::Unmet,
        _ => Deed::Ok,
    }
}
