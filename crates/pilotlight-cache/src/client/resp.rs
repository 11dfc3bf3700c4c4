//! A Pilotlight or a Redis over a socket: connections kept between operations, and what is said on them.

mod leases;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::address::{Address, Place};
use super::counters::Counters;
use super::engine::{Answer, Asked, Engine, Request, Search};
use super::guarded::Guarded;
use super::pace::Deadline;
use super::stream::Stream;
use super::tls::{Tls, TlsFiles};
use super::wire::{Outgoing, Reply, Wire, garbage};
use crate::{Error, ErrorKind, Result};

/// A server that is spoken to in RESP.
#[derive(Debug)]
pub(super) struct RespEngine {
    address: Address,
    counters: Arc<Counters>,
    tls: Tls,
    pool: Arc<Pool>,
    /// Until a server is met that has none.
    may_group: AtomicBool,
}

/// Connections between operations.
#[derive(Debug)]
struct Pool {
    /// The last used at the end.
    idle: Guarded<Vec<Connection>>,
    /// The process that made them. A child after a fork must not write where its parent reads.
    pid: AtomicU32,
}

#[derive(Debug)]
struct Connection {
    wire: Wire,
    dialect: Dialect,
    pid: u32,
}

/// What a server understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// Envelopes under the keys that stock clients use; it shows those the artifact.
    Pilotlight,
    /// Plain values: whole envelopes under keys of our own, where no stock client looks.
    Plain,
}

/// In front of every key on a server that does not know envelopes. The number is the layout's version.
const PLAIN_PREFIX: &[u8] = b"pilotlight:1:";
/// More than this many idle connections are closed: each costs the server memory.
const IDLE_MAX: usize = 8;

impl RespEngine {
    pub(super) fn new(address: Address, tls: TlsFiles, counters: Arc<Counters>) -> Self {
        let pid = AtomicU32::new(std::process::id());
        let pool = Arc::new(Pool { idle: Guarded::default(), pid });
        Self { address, counters, tls: Tls::new(tls), pool, may_group: AtomicBool::new(true) }
    }

    fn connect(&self, deadline: &Arc<Deadline>) -> Result<Connection> {
        let stream = match &self.address.place {
            Place::Tcp { host, port, is_tls } => {
                Stream::tcp(host, *port, is_tls.then_some(&self.tls), deadline)?
            }
            Place::Unix { path } => Stream::unix(path, deadline)?,
            Place::Directory { .. } => {
                return Err(Error::Internal { what: "a directory has no socket".into() });
            }
        };
        deadline.connected();
        Counters::add(&self.counters.connections, 1);
        let mut connection =
            Connection { wire: Wire::new(stream), dialect: Dialect::Plain, pid: std::process::id() };
        let greeted = connection.greet(&self.address, deadline);
        self.count(&mut connection);
        greeted.map(|()| connection)
    }

    /// Moves what the connection counted to the client's counters.
    fn count(&self, connection: &mut Connection) {
        Counters::add(&self.counters.round_trips, 1);
        Counters::add(&self.counters.bytes_read, std::mem::take(&mut connection.wire.bytes_read));
        Counters::add(&self.counters.bytes_written, std::mem::take(&mut connection.wire.bytes_written));
    }

    fn exchange_on(
        &self,
        mut connection: Connection,
        requests: &[Request<'_>],
        deadline: &Arc<Deadline>,
    ) -> Result<Vec<Result<Answer>>> {
        let is_foreign = connection.dialect == Dialect::Plain && matches!(requests, [Request::Group(_)]);
        let answers = if is_foreign {
            Ok(vec![Ok(Answer::Unknown)])
        } else {
            let answers = connection.exchange(requests, deadline);
            self.count(&mut connection);
            answers
        };
        if let Ok(answers) = &answers {
            if matches!(answers[..], [Ok(Answer::Unknown)]) {
                self.may_group.store(false, Ordering::Relaxed);
            }
            self.pool.keep(connection);
        }
        answers
    }

    /// Does something on an idle connection or, if there is none or it was closed meanwhile, on a new one.
    fn on_connection<T>(
        &self,
        deadline: &Arc<Deadline>,
        work: impl Fn(Connection) -> Result<T>,
    ) -> Result<T> {
        if let Some(connection) = self.pool.idle() {
            match work(connection) {
                // The server was restarted, or closed what was idle: that is not a failure yet. Whatever is asked for may be
                // asked for twice.
                Err(error) if error.kind() == ErrorKind::Unavailable => self.close(),
                done => return done,
            }
        }
        work(self.connect(deadline)?)
    }
}

impl Pool {
    /// An idle connection of this process.
    fn idle(&self) -> Option<Connection> {
        let pid = std::process::id();
        let mut idle = self.idle.lock()?;
        if self.pid.swap(pid, Ordering::Relaxed) != pid {
            // Closing our copies of the parent's sockets does not close the parent's.
            idle.clear();
        }
        idle.pop()
    }

    fn keep(&self, connection: Connection) {
        if !connection.wire.is_clean() || connection.pid != std::process::id() {
            return;
        }
        if let Some(mut idle) = self.idle.lock()
            && self.pid.load(Ordering::Relaxed) == connection.pid
            && idle.len() < IDLE_MAX
        {
            idle.push(connection);
        }
    }
}

impl Engine for RespEngine {
    fn exchange(&self, requests: &[Request<'_>], deadline: &Arc<Deadline>) -> Result<Vec<Result<Answer>>> {
        self.on_connection(deadline, |connection| self.exchange_on(connection, requests, deadline))
    }

    fn lease(&self, search: Search<'_>, deadline: &Arc<Deadline>) -> Result<Asked> {
        self.on_connection(deadline, |connection| self.lease_on(connection, search, deadline))
    }

    fn may_group(&self) -> bool {
        self.may_group.load(Ordering::Relaxed)
    }

    fn close(&self) {
        if let Some(mut idle) = self.pool.idle.lock() {
            idle.clear();
        }
    }
}

impl Connection {
    /// Says who we are and asks what the server understands, in one round trip.
    fn greet(&mut self, address: &Address, deadline: &Arc<Deadline>) -> Result<()> {
        let database = address.database.to_string();
        let mut request = Outgoing::default();
        if let Some(login) = &address.login {
            let password: &[&[u8]] = &[login.password.as_bytes()];
            match &login.user {
                Some(user) => request.push_command(&[&[b"AUTH"], &[user.as_bytes()], password]),
                None => request.push_command(&[&[b"AUTH"], password]),
            }
        }
        if address.database != 0 {
            request.push_command(&[&[b"SELECT"], &[database.as_bytes()]]);
        }
        // Without a key this is wrong wherever it is known, and costs nothing.
        request.push_command(&[&[b"PILOTLIGHT.MGET"]]);
        self.wire.send(&request, deadline)?;
        for _ in 0..usize::from(address.login.is_some()) + usize::from(address.database != 0) {
            match self.wire.reply(0, deadline)? {
                Reply::Simple(_) => {}
                Reply::Error(text) => return Err(turned_away(&text, address)),
                _ => return Err(garbage()),
            }
        }
        match self.wire.reply(0, deadline)? {
            Reply::Error(text) if is_refusal_to_talk(&text) => Err(turned_away(&text, address)),
            Reply::Error(text) => {
                let is_known = text.starts_with("ERR wrong number of arguments");
                self.dialect = if is_known { Dialect::Pilotlight } else { Dialect::Plain };
                Ok(())
            }
            _ => Err(garbage()),
        }
    }

    fn exchange(
        &mut self,
        requests: &[Request<'_>],
        deadline: &Arc<Deadline>,
    ) -> Result<Vec<Result<Answer>>> {
        let groups: Vec<_> = requests.chunk_by(|a, b| is_get(a) && is_get(b)).collect();
        let mut outgoing = Outgoing::default();
        for group in &groups {
            self.push_group(&mut outgoing, group);
        }
        self.wire.begin();
        self.wire.send(&outgoing, deadline)?;
        let mut answers = Vec::with_capacity(requests.len());
        for group in groups {
            let reply = self.wire.reply(group.len(), deadline)?;
            push_answers(&mut answers, group, reply)?;
        }
        Ok(answers)
    }

    fn push_group<'a>(&self, outgoing: &mut Outgoing<'a>, group: &[Request<'a>]) {
        let prefix = match self.dialect {
            Dialect::Pilotlight => b"".as_slice(),
            Dialect::Plain => PLAIN_PREFIX,
        };
        let is_plain = self.dialect == Dialect::Plain;
        match group {
            [Request::Put(key, sealed)] => {
                let name: &'a [u8] = if is_plain { b"SET" } else { b"PILOTLIGHT.PUT" };
                outgoing.push_command(&[&[name], &[prefix, key], &[&sealed.head, &sealed.payload]]);
            }
            [Request::Has(key)] => outgoing.push_command(&[&[b"EXISTS"], &[prefix, key]]),
            [Request::Delete(key)] => outgoing.push_command(&[&[b"DEL"], &[prefix, key]]),
            [Request::Group(keys)] => {
                let name: [&'a [u8]; 1] = [b"PILOTLIGHT.GROUP"];
                let keys = keys.iter().map(std::slice::from_ref);
                let args: Vec<&[&'a [u8]]> = std::iter::once(name.as_slice()).chain(keys).collect();
                outgoing.push_command(&args);
            }
            [Request::Ping] => outgoing.push_command(&[&[b"PING"]]),
            gets => {
                let keys: Vec<[&'a [u8]; 2]> =
                    gets.iter().filter_map(get_key).map(|key| [prefix, key]).collect();
                let name: [&'a [u8]; 1] = [if is_plain { b"MGET" } else { b"PILOTLIGHT.MGET" }];
                let args: Vec<&[&'a [u8]]> =
                    std::iter::once(name.as_slice()).chain(keys.iter().map(<[_; 2]>::as_slice)).collect();
                outgoing.push_command(&args);
            }
        }
    }
}

fn is_get(request: &Request<'_>) -> bool {
    matches!(request, Request::Get(_))
}

fn get_key<'a>(request: &Request<'a>) -> Option<&'a [u8]> {
    match request {
        Request::Get(key) => Some(key),
        Request::Has(_) | Request::Put(..) | Request::Delete(_) | Request::Group(_) | Request::Ping => None,
    }
}

fn push_answers(answers: &mut Vec<Result<Answer>>, group: &[Request<'_>], reply: Reply) -> Result<()> {
    match reply {
        Reply::Error(text) if is_refusal_to_talk(&text) => return Err(refused(&text)),
        // It is an earlier Pilotlight.
        Reply::Error(text)
            if matches!(group, [Request::Group(_)]) && text.starts_with("ERR unknown command") =>
        {
            answers.push(Ok(Answer::Unknown));
        }
        Reply::Error(text) => answers.extend(group.iter().map(|_| Err(refused(&text)))),
        Reply::Array(items) if group.first().is_some_and(is_get) && items.len() == group.len() => {
            for item in items {
                answers.push(match item {
                    Reply::Bulk(envelope) => Ok(Answer::Found(envelope)),
                    Reply::Nil => Ok(Answer::Absent),
                    Reply::Error(text) => Err(refused(&text)),
                    Reply::Simple(_) | Reply::Integer(_) | Reply::Array(_) => return Err(garbage()),
                });
            }
        }
        reply => match (group, reply) {
            ([Request::Put(..)], Reply::Simple(_)) | ([Request::Ping], Reply::Simple(_) | Reply::Bulk(_)) => {
                answers.push(Ok(Answer::Done));
            }
            ([Request::Put(..)], Reply::Nil) => answers.push(Ok(Answer::Dropped)),
            ([Request::Has(_) | Request::Delete(_)], Reply::Integer(0)) => answers.push(Ok(Answer::Absent)),
            ([Request::Has(_) | Request::Delete(_)], Reply::Integer(_)) => answers.push(Ok(Answer::Done)),
            ([Request::Group(keys)], Reply::Integer(count)) => match usize::try_from(count) {
                Ok(count) if count <= keys.len() => answers.push(Ok(Answer::Grouped(count))),
                Ok(_) | Err(_) => return Err(garbage()),
            },
            _ => return Err(garbage()),
        },
    }
    Ok(())
}

/// Errors after which nothing else would be answered on this connection either.
fn is_refusal_to_talk(text: &str) -> bool {
    ["NOAUTH", "WRONGPASS", "LOADING", "MASTERDOWN", "ERR max number of clients", "DENIED"]
        .iter()
        .any(|prefix| text.starts_with(prefix))
}

/// An error reply to a greeting: whom a password is wanted of is told where to write it.
fn turned_away(text: &str, address: &Address) -> Error {
    let error = refused(text);
    if !(text.starts_with("NOAUTH") || text.starts_with("WRONGPASS")) {
        return error;
    }
    let form = match &address.place {
        Place::Unix { .. } => "unix://:PASSWORD@/path/to/socket",
        Place::Tcp { .. } | Place::Directory { .. } => "pilotlight://:PASSWORD@host",
    };
    Error::backend(error.kind(), format!("{error} Write the password into the URL: {form}"))
}

/// An error reply, by the prefix that is its API.
fn refused(text: &str) -> Error {
    let kind = match text.split(' ').next().unwrap_or_default() {
        "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED" => ErrorKind::Denied,
        "READONLY" => ErrorKind::ReadOnly,
        "OOM" | "MISCONF" => ErrorKind::Full,
        "TOOLARGE" => ErrorKind::TooLarge,
        _ => ErrorKind::Unavailable,
    };
    // The server's words reach the user's terminal, so they are cut and cleaned.
    let words: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    Error::backend(kind, words)
}
