//! One connection's state, and the way every command takes through it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;

use bytes::Bytes;
use pilotlight_cache::{
    Error, ErrorKind, Found, KEY_LEN_MAX, Key, Namespace, PendingPut, ReadThrough, Verified, Version,
};
use tokio::time::{Instant, timeout_at};

use super::audit::Note;
use super::clients::Client;
use super::command::{Args, Command, Flag, Handler, Outcome, Refusal, Running, is};
use super::commands::transaction::{self, Transaction};
use super::decode::{Dropped, Request};
use super::error::Fault;
use super::leases::Led;
use super::permits::Permit;
use super::reply::{Protocol, Reply};
use super::standing::Standing;
use super::{Shared, table};
use crate::Server;
use crate::memory::UNCOUNTED_BYTES;

/// What the replies to one command may hold beside one entry of the largest size.
const REPLIES_BYTES_BESIDE_ENTRY: u64 = 64 << 20;
/// So many artifacts may always be fetched together, without a look at how long they are: one of ours asks for two, PyTorch for one.
const FEW_KEYS: usize = 4;

/// A thread that serves connections, and what those share. Not shared with other threads.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) server: Arc<Server>,
    pub(crate) index: usize,
    /// Read into by whichever connection is reading right now, and decoded before anything else happens: so an idle
    /// connection needs no buffer.
    pub(crate) scratch: RefCell<Vec<u8>>,
    /// Connections here.
    pub(crate) open: Arc<AtomicUsize>,
}

impl Core {
    /// Whether more than one connection is served here.
    pub(crate) fn has_neighbours(&self) -> bool {
        self.open.load(Relaxed) > 1
    }
}

/// What a connection remembers between commands.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) core: Rc<Core>,
    pub(crate) client: Arc<Client>,
    pub(crate) database: u16,
    /// The database's namespace.
    pub(crate) namespace: Namespace,
    pub(crate) protocol: Protocol,
    /// Who it is, and what that lets it do here.
    pub(crate) standing: Standing,
    /// Whether the command that is running comes too soon after others of its user.
    pub(crate) is_too_fast: bool,
    /// Between `MULTI` and `EXEC`.
    pub(crate) transaction: Option<Box<Transaction>>,
    /// What was under each watched key; `None` was nothing.
    pub(crate) watched: Vec<(Key, Option<Version>)>,
    pub(crate) replies: Replies,
    /// Shown in `CLIENT LIST`.
    pub(crate) last_command: &'static str,
    /// Set by a command after which the connection closes.
    pub(crate) is_closing: bool,
    /// What this connection compiles for others.
    pub(crate) led: Vec<Led>,
    /// Whether a command may wait for another client: not with puts that are staged, or requests behind it.
    pub(crate) may_wait: bool,
    /// What the replies of the transaction that runs hold so far.
    pub(crate) replied_bytes: u64,
    /// What the command that ran last staged: its answer must wait until that is settled.
    pub(crate) staged: Option<PendingPut>,
    /// What is to be noted of it once it is.
    pub(super) unsettled: Option<Note>,
}

/// `CLIENT REPLY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replies {
    On,
    Off,
    /// Off for the command that is running, which is `CLIENT REPLY SKIP` itself.
    SkipThisAndNext,
    SkipThis,
}

/// Whether this is a line of an HTTP request. A web page can have its reader's browser send one to any port of theirs, with a body
/// of its choice, of which each line would be a command.
fn is_http(request: &Request) -> bool {
    request.args.first().is_some_and(|name| is(name, "post") || is(name, "host:"))
}

impl Session {
    pub(crate) fn new(core: Rc<Core>, client: Arc<Client>) -> Self {
        let standing = Standing::nobody();
        let mut session = Self {
            core,
            client,
            database: 0,
            namespace: Namespace::default(),
            protocol: Protocol::default(),
            standing,
            is_too_fast: false,
            transaction: None,
            watched: Vec::new(),
            replies: Replies::On,
            last_command: "",
            is_closing: false,
            led: Vec::new(),
            may_wait: true,
            replied_bytes: 0,
            staged: None,
            unsettled: None,
        };
        session.stand_as_stranger();
        session
    }

    pub(crate) fn server(&self) -> &Server {
        &self.core.server
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.core.server.resp
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.core.server.clock.now_ms()
    }

    pub(crate) fn select(&mut self, database: u16) {
        self.database = database;
        self.take_place();
        self.client.database.store(database, Relaxed);
    }

    pub(crate) fn speak(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.client.is_resp3.store(protocol == Protocol::Resp3, Relaxed);
    }

    /// Runs or queues one command, and says what to answer.
    pub(crate) async fn execute(&mut self, request: Request) -> Reply {
        self.keep_up();
        let reply = match self.admit(&request) {
            Ok(command) if self.transaction.is_some() && !command.has(Flag::IN_MULTI) => {
                transaction::queue(self, command, request)
            }
            Ok(command) => {
                self.last_command = command.name;
                self.serve(command, request).await
            }
            Err(_) if is_http(&request) => {
                self.is_closing = true;
                self.server().stats.protocol_errors_total.fetch_add(1, Relaxed);
                return Reply::Error(Fault::err("Protocol error: HTTP is spoken on another port"));
            }
            Err(fault) => Reply::Error(self.reject(&request, fault)),
        };
        match self.replies {
            Replies::On => reply,
            Replies::Off => Reply::Silence,
            Replies::SkipThisAndNext => {
                self.replies = Replies::SkipThis;
                Reply::Silence
            }
            Replies::SkipThis => {
                self.replies = Replies::On;
                Reply::Silence
            }
        }
    }

    /// What a command that was not admitted does to a transaction.
    fn reject(&mut self, request: &Request, fault: Fault) -> Fault {
        if request.args.first().is_some_and(|name| is(name, "exec")) {
            self.transaction = None;
            self.watched.clear();
            return fault.aborting_exec();
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.abort();
        }
        fault
    }

    /// Finds the command and checks what can be checked without running it.
    fn admit(&self, request: &Request) -> Result<&'static Command, Fault> {
        let command = table::find(&request.args)?;
        if !command.takes(request.args.len()) {
            return Err(Fault::wrong_arity(command.name));
        }
        if !self.is_authenticated() && !command.has(Flag::ANYONE) {
            return Err(Fault::NO_AUTH);
        }
        if self.transaction.is_some() && command.has(Flag::NO_MULTI) {
            return Err(Fault::err("Command not allowed inside a transaction"));
        }
        Ok(command)
    }

    /// Runs a command outside a transaction.
    pub(crate) async fn run(&mut self, permit: Permit, request: Request) -> Reply {
        let deadline = Instant::now() + self.server().config.request_timeout;
        self.run_until(permit, request, deadline).await
    }

    pub(crate) async fn run_until(&mut self, permit: Permit, request: Request, deadline: Instant) -> Reply {
        // Cloned so that a pass through the gate does not borrow the session.
        let core = Rc::clone(&self.core);
        let gate = &core.server.resp.gate;
        let pass = match permit.command().handler {
            Handler::Now(_) | Handler::Waits(_) | Handler::Container(_) => {
                return self.run_inside(permit, request, deadline).await;
            }
            Handler::Shared(_) => match gate.try_shared(core.index) {
                Some(pass) => Some(pass),
                None => timeout_at(deadline, gate.shared(core.index)).await.ok(),
            },
            Handler::Alone(_) | Handler::Exec => timeout_at(deadline, gate.alone()).await.ok(),
        };
        match (pass, &permit.command().handler) {
            (None, _) => self.late(permit.command(), &Args(request.args)),
            (Some(_pass), Handler::Exec) => transaction::exec(self, deadline).await,
            (Some(_pass), _) => self.run_inside(permit, request, deadline).await,
        }
    }

    /// Runs a command for which the gate, if it needs that, is passed.
    pub(crate) async fn run_inside(&mut self, permit: Permit, request: Request, deadline: Instant) -> Reply {
        let command = permit.command();
        let args = Args(request.args);
        if let Some(why) = request.dropped {
            return self.dropped(command, &args, why);
        }
        if matches!(command.refusal, Refusal::Miss | Refusal::MissEach)
            && self.is_crowded(command, &args).await
        {
            let refused = self.refuse(command, &args, || self.server().memory.refusal());
            return refused.unwrap_or_else(Reply::Error);
        }
        let outcome = match command.handler {
            Handler::Now(handler) => handler(self, &args),
            Handler::Waits(handler) | Handler::Shared(handler) | Handler::Alone(handler) => {
                match by(deadline, handler(self, &args)).await {
                    Some(outcome) => outcome,
                    None => return self.late(command, &args),
                }
            }
            // The table has neither inside the other, and `find` looks into containers.
            Handler::Exec | Handler::Container(_) => Err(Fault::SYNTAX),
        };
        outcome.unwrap_or_else(Reply::Error)
    }

    /// Answers a command whose deadline passed.
    fn late(&mut self, command: &Command, args: &Args) -> Reply {
        self.server().stats.timeouts_total.fetch_add(1, Relaxed);
        let after = self.server().config.request_timeout;
        let refused = self.refuse(command, args, || Error::Timeout { what: command.name, after });
        refused.unwrap_or_else(|fault| {
            // Its answer may come at any time, or never: better a new connection than a client that waits again.
            self.is_closing = true;
            Reply::Error(fault)
        })
    }

    /// Answers a command that had an argument which was not kept.
    fn dropped(&self, command: &Command, args: &Args, why: Dropped) -> Reply {
        let max_bytes = self.server().config.entry_bytes_max;
        let refused = self.refuse(command, args, || match why {
            Dropped::TooLarge(size_bytes) => Error::TooLarge { what: "entry", size_bytes, max_bytes },
            Dropped::NoRoom => self.server().memory.refusal(),
        });
        refused.unwrap_or_else(Reply::Error)
    }

    /// What the replies of one command, or of one transaction, may hold in bytes.
    pub(crate) fn replies_bytes_max(&self) -> u64 {
        self.server().config.entry_bytes_max.saturating_add(REPLIES_BYTES_BESIDE_ENTRY)
    }

    /// Whether what a command asks for should not be fetched now: there is no room for it on its way to the client. What any
    /// connection may always have is let through: nobody can keep short entries from others by taking all the room.
    async fn is_crowded(&self, command: &Command, args: &Args) -> bool {
        if self.replied_bytes > self.replies_bytes_max() {
            return true;
        }
        if !self.server().memory.is_full() {
            return false;
        }
        let (mut bytes, mut keys) = (0, 0);
        for name in command.keys_of(&args.0) {
            // What fails here fails again when it is fetched, and is told then.
            let head = self.server().cache.head_through(&self.key(name), self.standing.through()).await;
            bytes += head.ok().flatten().map_or(0, |head| head.artifact_len);
            keys += 1;
            if bytes > UNCOUNTED_BYTES || keys > FEW_KEYS {
                return true;
            }
        }
        false
    }

    /// How many of `keys`, from the first on, may be fetched together.
    pub(crate) async fn fitting(&self, keys: &[Key]) -> usize {
        if keys.len() <= FEW_KEYS {
            return keys.len();
        }
        let mut bytes = 0;
        for (number, key) in keys.iter().enumerate() {
            // What fails here fails again when it is fetched, and is told then.
            let head = self.server().cache.head_through(key, self.standing.through()).await.ok().flatten();
            bytes += head.map_or(0, |head| head.artifact_len);
            if bytes > self.replies_bytes_max() {
                return number;
            }
        }
        keys.len()
    }

    /// A lookup that is not made, for want of room.
    pub(crate) fn refuse_for_room<T>(&self, key: &Key) -> pilotlight_cache::Result<Option<T>> {
        self.server().cache.refuse_get(key, self.server().memory.refusal())
    }

    /// What a command answers that cannot be served: where a compiler waits, what it takes for a miss.
    pub(super) fn refuse(&self, command: &Command, args: &Args, error: impl Fn() -> Error) -> Outcome {
        let cache = &self.server().cache;
        let mut reply = Reply::Error(error().into());
        let mut misses = Vec::new();
        for key in command.keys_of(&args.0) {
            let key = self.key(key);
            match command.refusal {
                Refusal::Fail => {}
                Refusal::Miss | Refusal::MissEach => {
                    cache.refuse_get::<Found>(&key, error())?;
                    misses.push(Reply::Nil);
                    reply = Reply::Nil;
                }
                Refusal::UnmetOrTooLarge if error().kind() == ErrorKind::TooLarge => {
                    reply = Reply::Error(Fault::too_large(&error()));
                    // Counted as any put that was refused; what the policy makes of it is for clients that would fail over it.
                    let _ = cache.refuse_put(&key, error());
                }
                Refusal::Unmet | Refusal::UnmetOrTooLarge => {
                    cache.refuse_put(&key, error())?;
                    reply = Reply::Nil;
                }
                Refusal::Zero | Refusal::Alone
                    if self.server().config.is_strict || !key.kind().is_compile_cache() =>
                {
                    return Err(error().into());
                }
                Refusal::Zero => reply = Reply::Integer(0),
                Refusal::Alone => reply = super::commands::leases::alone(),
            }
        }
        match reply {
            Reply::Error(fault) => Err(fault),
            _ if command.refusal == Refusal::MissEach => Ok(Reply::Array(misses)),
            reply => Ok(reply),
        }
    }

    /// The key that the client calls `name`, in its database.
    pub(crate) fn key(&self, name: &Bytes) -> Key {
        Key::in_namespace(self.namespace.clone(), name.clone())
    }

    /// The same, for commands whose errors no compiler minds.
    pub(crate) fn short_key(&self, name: &Bytes) -> Result<Key, Fault> {
        match key_too_long(name) {
            Some(error) => Err(error.into()),
            None => Ok(self.key(name)),
        }
    }

    /// The entry under `key`, looked for in other namespaces too where that is set up: counted, and with failures absorbed as
    /// the cache's policy says.
    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Found<Verified>>, Fault> {
        self.get_through(key, self.standing.through()).await
    }

    /// The same in the key's own namespace alone: for whoever goes on to change what it finds.
    pub(crate) async fn get_own(&self, key: &Key) -> Result<Option<Found<Verified>>, Fault> {
        self.get_through(key, None).await
    }

    async fn get_through(
        &self,
        key: &Key,
        through: Option<&ReadThrough>,
    ) -> Result<Option<Found<Verified>>, Fault> {
        let cache = &self.server().cache;
        if let Some(error) = key_too_long(key.bytes()) {
            return Ok(cache.refuse_get(key, error)?);
        }
        let mut found = cache.get_many_through(std::slice::from_ref(key), through).await;
        Ok(found.pop().unwrap_or(Ok(None))?)
    }

    /// What a get of a key that is too long comes to, in whatever form entries were asked for.
    pub(crate) fn refuse_long<T>(&self, key: &Key) -> pilotlight_cache::Result<Option<T>> {
        let refuse = |error| self.server().cache.refuse_get(key, error);
        key_too_long(key.bytes()).map_or(Ok(None), refuse)
    }
}

/// What the command answers, if it does so in time. Most are done when they are first polled: only one that waits gets a
/// timer.
async fn by(deadline: Instant, mut running: Running<'_>) -> Option<Outcome> {
    match poll_fn(|cx| Poll::Ready(running.as_mut().poll(cx))).await {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => timeout_at(deadline, running).await.ok(),
    }
}

pub(super) fn key_too_long(name: &Bytes) -> Option<Error> {
    (name.len() > KEY_LEN_MAX).then_some(Error::TooLarge {
        what: "key",
        size_bytes: name.len() as u64,
        max_bytes: KEY_LEN_MAX as u64,
    })
}
