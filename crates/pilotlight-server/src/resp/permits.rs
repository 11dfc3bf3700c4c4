//! Whether a command may run. Asked in one place for all of them, by what the [table](super::table) says that each needs.

use bytes::Bytes;
use pilotlight_cache::{Error, Kind};
use tokio::time::Instant;

use super::audit::Note;
use super::command::{Args, Command, Demand, Flag, Needs, Outcome, Refusal, is};
use super::commands::connection::database;
use super::decode::Request;
use super::reply::Reply;
use super::session::Session;
use crate::access::{Deed, Place, Right};

/// That a command may run. Made here and nowhere else: nothing runs without one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permit(&'static Command);

impl Permit {
    pub(crate) fn command(self) -> &'static Command {
        self.0
    }
}

/// What became of the question.
pub(super) enum Verdict {
    Allowed(Permit),
    /// But for some keys, which are answered as missing.
    Partly(Permit, Holes),
    Denied(Denial),
}

/// Why a command may not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    /// Not on these keys.
    Keys,
    /// Not at all.
    Command,
    /// Not now: its user asks more often than allowed.
    TooFast,
}

/// Which keys of a lookup are answered as missing, in their order.
pub(super) struct Holes(Vec<bool>);

impl Session {
    /// Runs a command outside a transaction, as far as its user may.
    pub(super) async fn serve(&mut self, command: &'static Command, request: Request) -> Reply {
        let note = Note::of(self, command, &request.args);
        let reply = match self.judge(command, &request.args) {
            Verdict::Allowed(permit) if command.has(Flag::LEADS) => self.get_or_lead(permit, request).await,
            Verdict::Allowed(permit) => self.run(permit, request).await,
            Verdict::Partly(permit, holes) => {
                self.count_holes(command, &request.args, &holes);
                let left = holes.taken_out(request);
                holes.put_back(self.run(permit, left).await)
            }
            Verdict::Denied(denial) => return self.deny(command, request.args, denial),
        };
        self.audit(note, &reply);
        reply
    }

    /// The same inside one: the gate is passed already.
    pub(super) async fn serve_inside(
        &mut self,
        command: &'static Command,
        request: Request,
        deadline: Instant,
    ) -> Reply {
        let note = Note::of(self, command, &request.args);
        let reply = match self.judge(command, &request.args) {
            Verdict::Allowed(permit) => self.run_inside(permit, request, deadline).await,
            Verdict::Partly(permit, holes) => {
                self.count_holes(command, &request.args, &holes);
                let left = holes.taken_out(request);
                holes.put_back(self.run_inside(permit, left, deadline).await)
            }
            Verdict::Denied(denial) => return self.deny(command, request.args, denial),
        };
        self.audit(note, &reply);
        reply
    }

    /// The answer to a command that cannot be queued, since it would be refused with an error now. One that would be answered as
    /// a miss or as unmet is queued, and answered so by `EXEC`, which judges anew.
    pub(super) fn refuse_to_queue(&mut self, command: &'static Command, args: &[Bytes]) -> Option<Reply> {
        let Verdict::Denied(denial) = self.judge(command, args) else { return None };
        let is_absorbed = command.refusal != Refusal::Fail
            && !self.server().config.is_strict
            && command.keys_of(args).all(|key| Kind::of_key(key).is_compile_cache());
        (!is_absorbed).then(|| self.deny(command, args.to_vec(), denial))
    }

    /// Whether `command` may run with these arguments.
    pub(super) fn judge(&self, command: &'static Command, args: &[Bytes]) -> Verdict {
        let permit = Permit(command);
        if self.is_too_fast && command.needs != Needs::Nothing {
            return Verdict::Denied(Denial::TooFast);
        }
        if self.standing.is_unrestricted() {
            return Verdict::Allowed(permit);
        }
        let place = self.standing.place();
        let allowed = |is_allowed, denial| match is_allowed {
            true => Verdict::Allowed(permit),
            false => Verdict::Denied(denial),
        };
        let each = |demand| self.judge_each(permit, demand, args);
        let all = |demands: &[(&Place, Demand)], keys: &[Option<&Bytes>]| {
            let mut pairs = demands.iter().zip(keys);
            let holds = pairs.all(|((place, demand), key)| key.is_none_or(|key| holds(place, *demand, key)));
            allowed(holds, Denial::Keys)
        };
        let (first, second) = (args.get(1), args.get(2));
        match command.needs {
            Needs::Nothing => Verdict::Allowed(permit),
            Needs::Each(demand) => each(demand),
            Needs::Set if options(args, 3).any(|option| is(option, "get")) => each(Demand::Update),
            Needs::Set => each(Demand::Put),
            Needs::GetEx if args.len() > 2 => each(Demand::Take),
            Needs::GetEx => each(Demand::Read),
            Needs::Rename => all(&[(place, Demand::Take), (place, Demand::Put)], &[first, second]),
            Needs::Copy => {
                // The last one counts, as for the command itself.
                let (mut rest, mut number) = (options(args, 3), None);
                while let Some(option) = rest.next() {
                    number = if is(option, "db") { rest.next() } else { number };
                }
                all(&[(place, Demand::Read), (&self.place_of(number), Demand::Put)], &[first, second])
            }
            Needs::Move => {
                all(&[(place, Demand::Take), (&self.place_of(second), Demand::Put)], &[first, first])
            }
            Needs::List => allowed(place.may_some(Right::Read), Denial::Command),
            Needs::Clear => allowed(place.may_clear(), Denial::Command),
            Needs::ClearSome => {
                let mut databases = 0..self.server().config.databases;
                let may_some = databases.any(|number| self.place_in(&self.namespace_of(number)).may_clear());
                allowed(may_some, Denial::Command)
            }
            Needs::Admin => {
                let user = self.standing.user();
                let is_admin = user.is_some_and(|user| user.grants().everywhere(Right::Admin));
                allowed(is_admin, Denial::Command)
            }
        }
    }

    /// What may be done in the database with this number; in the current one where that is none, over which the command fails.
    fn place_of(&self, number: Option<&Bytes>) -> Place {
        let number = number.and_then(|number| database(self, number).ok()).unwrap_or(self.database);
        self.place_in(&self.namespace_of(number))
    }

    fn judge_each(&self, permit: Permit, demand: Demand, args: &[Bytes]) -> Verdict {
        let place = self.standing.place();
        let denied = |key: &Bytes| !holds(place, demand, key);
        let command = permit.0;
        let mut keys = command.keys_of(args);
        if !keys.any(denied) {
            return Verdict::Allowed(permit);
        }
        // Where each key has an answer of its own, one that may not be read is a miss, and no reason to withhold the others.
        let is_missed = |key: &Bytes| !denied(key) || Kind::of_key(key).is_compile_cache();
        let holes = Holes(command.keys_of(args).map(denied).collect());
        let is_partly = command.refusal == Refusal::MissEach
            && !self.server().config.is_strict
            && holes.0.contains(&false)
            && command.keys_of(args).all(is_missed);
        if is_partly { Verdict::Partly(permit, holes) } else { Verdict::Denied(Denial::Keys) }
    }

    /// Answers a command that may not run.
    fn deny(&mut self, command: &'static Command, args: Vec<Bytes>, denial: Denial) -> Reply {
        self.count_denial(denial);
        let note = Note::of_denied(self, command, &args);
        self.audit_as(note, Deed::Denied);
        let what = match denial {
            // As Redis says it.
            Denial::Keys => "No permissions to access a key".to_owned(),
            Denial::Command => {
                let user = self.standing.user().map_or("", |user| user.name());
                format!("User {user} has no permissions to run the '{}' command", command.name)
            }
            Denial::TooFast => "too many requests for the rate of this user".to_owned(),
        };
        let refused: Outcome = self.refuse(command, &Args(args), || Error::Denied { what: what.clone() });
        refused.unwrap_or_else(Reply::Error)
    }

    fn count_denial(&self, denial: Denial) {
        use std::sync::atomic::Ordering::Relaxed;
        match denial {
            Denial::Keys | Denial::Command => self.server().stats.denied_total.fetch_add(1, Relaxed),
            Denial::TooFast => self.server().stats.throttled_total.fetch_add(1, Relaxed),
        };
    }

    /// Counts what a lookup leaves out as what it is: lookups that were refused.
    fn count_holes(&self, command: &'static Command, args: &[Bytes], holes: &Holes) {
        self.count_denial(Denial::Keys);
        self.audit_as(Note::of_denied(self, command, args), Deed::Denied);
        for (name, _) in command.keys_of(args).zip(&holes.0).filter(|(_, is_hole)| **is_hole) {
            let error = Error::Denied { what: "No permissions to access a key".to_owned() };
            // Of compile-cache kinds alone, so that it is absorbed.
            let _ = self.server().cache.refuse_get::<()>(&self.key(name), error);
        }
    }
}

fn options(args: &[Bytes], from: usize) -> impl Iterator<Item = &Bytes> {
    args.iter().skip(from)
}

/// Whether somebody who may this much in a place may do that with a key.
fn holds(place: &Place, demand: Demand, key: &Bytes) -> bool {
    let kind = Kind::of_key(key);
    let (reads, writes) = (place.may(Right::Read, kind), place.may(Right::Write, kind));
    match demand {
        Demand::Read => reads,
        Demand::Put => writes,
        Demand::Remove => writes && place.may_replace(kind),
        Demand::Update => reads && writes,
        Demand::Take => reads && writes && place.may_replace(kind),
    }
}

impl Holes {
    /// The request without the keys that must not be looked up: they stand behind the name of the command.
    fn taken_out(&self, request: Request) -> Request {
        let Request { args, dropped } = request;
        let mut places = std::iter::once(false).chain(self.0.iter().copied());
        let args = args.into_iter().filter(|_| !places.next().unwrap_or(false)).collect();
        Request { args, dropped }
    }

    /// The reply with a miss for each of them.
    fn put_back(self, reply: Reply) -> Reply {
        let Reply::Array(found) = reply else { return reply };
        let mut found = found.into_iter();
        let answer = |is_hole| if is_hole { Reply::Nil } else { found.next().unwrap_or(Reply::Nil) };
        Reply::Array(self.0.into_iter().map(answer).collect())
    }
}
