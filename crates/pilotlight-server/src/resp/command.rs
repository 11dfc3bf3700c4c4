//! What a command is: its name, its shape and who runs it.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use super::error::Fault;
use super::reply::Reply;
use super::session::Session;

/// What a command answers, or why it was not done.
pub(crate) type Outcome = Result<Reply, Fault>;
/// A command at work. Boxed, so that an idle connection does not carry the room of the largest one.
pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// A command as the table declares it. `COMMAND`, the arity check and the dispatcher read it.
#[derive(Debug)]
pub(crate) struct Command {
    /// In lower case; of a subcommand: `container|sub`.
    pub(crate) name: &'static str,
    /// Number of arguments with the name; of at least that many when negative.
    pub(crate) arity: i32,
    /// [`Flag`]s.
    pub(crate) flags: u32,
    pub(crate) keys: Keys,
    pub(crate) group: &'static str,
    /// The version of Redis that had it first.
    pub(crate) since: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) handler: Handler,
    pub(crate) refusal: Refusal,
    pub(crate) needs: Needs,
}

/// What its user needs a right to, for a command to run. [`super::permits`] is where that is checked, and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: it tells of no entry, or of as much as its user may know, and changes none.
    Nothing,
    /// Each key, for this.
    Each(Demand),
    /// `SET`: each key to put, and to read with the option `GET`.
    Set,
    /// `GETEX`: the key to read, and to take with any option.
    GetEx,
    /// `RENAME`: the first key to take, the second to put.
    Rename,
    /// `COPY`: the first key to read, the second to put in the database that the option `DB` names.
    Copy,
    /// `MOVE`: the key to take, and to put in the database that is its argument.
    Move,
    /// Some kind to read: of the others it must tell nothing.
    List,
    /// All that is in the database, to delete it.
    Clear,
    /// The same of some database: it must clear no other.
    ClearSome,
    /// The server.
    Admin,
}

/// What for a key is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    /// To tell what is there.
    Read,
    /// To put, be it over what is there. In a namespace of low trust the put itself takes care of that.
    Put,
    /// To delete or change what is there without telling what it was.
    Remove,
    /// To put what depends on what is there, or tells of it.
    Update,
    /// To tell what is there, and delete it.
    Take,
}

/// Which arguments are keys; `last` counts from the end when negative. No keys when `first` is 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys {
    pub(crate) first: usize,
    pub(crate) last: i32,
    pub(crate) step: usize,
}

/// How a command is run.
pub(crate) enum Handler {
    /// At once: it needs no cache.
    Now(fn(&mut Session, &Args) -> Outcome),
    /// Outside the gate, since it waits.
    Waits(for<'a> fn(&'a mut Session, &'a Args) -> Running<'a>),
    /// Beside others.
    Shared(for<'a> fn(&'a mut Session, &'a Args) -> Running<'a>),
    /// With no other command in between: it writes several keys.
    Alone(for<'a> fn(&'a mut Session, &'a Args) -> Running<'a>),
    /// `EXEC`: what was queued, with no other command in between.
    Exec,
    /// By its first argument.
    Container(&'static [Command]),
}

/// What a command answers for a compile-cache kind that cannot be served: too large, or past its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Redis' error: no compiler waits behind this command.
    Fail,
    /// A miss.
    Miss,
    /// A miss for each key.
    MissEach,
    /// As a write whose condition did not hold.
    Unmet,
    /// The same, but for a value that is too large: only our client sends it, which fails over nothing and says why.
    UnmetOrTooLarge,
    /// None of so many.
    Zero,
    /// That nobody will put it, so that the client compiles.
    Alone,
}

/// Properties of a command, as bits: the names that `COMMAND INFO` answers with stand in [`FLAG_NAMES`].
#[derive(Debug)]
pub(crate) struct Flag;

impl Flag {
    pub(crate) const WRITE: u32 = 1 << 0;
    pub(crate) const READ: u32 = 1 << 1;
    pub(crate) const OOM: u32 = 1 << 2;
    pub(crate) const ADMIN: u32 = 1 << 3;
    pub(crate) const FAST: u32 = 1 << 4;
    /// Allowed before authentication.
    pub(crate) const ANYONE: u32 = 1 << 5;
    /// Runs inside `MULTI` instead of being queued.
    pub(crate) const IN_MULTI: u32 = 1 << 6;
    /// Refused inside `MULTI`.
    pub(crate) const NO_MULTI: u32 = 1 << 7;
    /// Takes part in leases.
    pub(crate) const LEADS: u32 = 1 << 8;
    /// Changes the database, so that what comes behind it in a transaction cannot be judged before it ran.
    pub(crate) const TURNS: u32 = 1 << 9;
}

pub(crate) const FLAG_NAMES: [(u32, &str); 7] = [
    (Flag::WRITE, "write"),
    (Flag::READ, "readonly"),
    (Flag::OOM, "denyoom"),
    (Flag::ADMIN, "admin"),
    (Flag::FAST, "fast"),
    (Flag::ANYONE, "no_auth"),
    (Flag::NO_MULTI, "no_multi"),
];

impl Command {
    /// Whether `len` arguments, the name included, are as many as it takes.
    pub(crate) fn takes(&self, len: usize) -> bool {
        let len = i32::try_from(len).unwrap_or(i32::MAX);
        if self.arity < 0 { len >= -self.arity } else { len == self.arity }
    }

    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Its subcommands; none for most.
    pub(crate) fn subcommands(&self) -> &'static [Self] {
        match self.handler {
            Handler::Container(subcommands) => subcommands,
            _ => &[],
        }
    }

    /// The name without the container's.
    pub(crate) fn short_name(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(_, short)| short)
    }

    /// The keys among `args`, which has the name in front.
    pub(crate) fn keys_of<'a>(&self, args: &'a [Bytes]) -> impl Iterator<Item = &'a Bytes> {
        let Keys { first, last, step } = self.keys;
        let end = match usize::try_from(last) {
            Ok(last) => last + 1,
            Err(_) => (args.len() + 1).saturating_sub(last.unsigned_abs() as usize),
        };
        let count = if first == 0 { 0 } else { end.saturating_sub(first) };
        args.iter().skip(first).take(count).step_by(step.max(1))
    }
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Now(_) => "Now",
            Self::Waits(_) => "Waits",
            Self::Shared(_) => "Shared",
            Self::Alone(_) => "Alone",
            Self::Exec => "Exec",
            Self::Container(_) => "Container",
        })
    }
}

/// A command's arguments, its name first.
#[derive(Debug, Default)]
pub(crate) struct Args(pub(crate) Vec<Bytes>);

impl Args {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The argument at `index`. The arity check comes first, so that a missing one is an option's value.
    pub(crate) fn at(&self, index: usize) -> Result<&Bytes, Fault> {
        self.0.get(index).ok_or(Fault::SYNTAX)
    }

    /// The arguments from `index` on.
    pub(crate) fn from(&self, index: usize) -> &[Bytes] {
        self.0.get(index..).unwrap_or_default()
    }

    pub(crate) fn integer(&self, index: usize) -> Result<i64, Fault> {
        super::number::parse_i64(self.at(index)?).ok_or(Fault::NOT_AN_INTEGER)
    }
}

/// Whether `arg` is the word `word`, in any case.
pub(crate) fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}
