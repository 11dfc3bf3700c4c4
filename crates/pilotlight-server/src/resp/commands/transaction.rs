//! Commands that run together: `MULTI`, `EXEC`, `WATCH`.

use std::sync::Arc;

use pilotlight_cache::Key;
use tokio::time::{Instant, timeout_at};

use crate::memory::UNCOUNTED_BYTES;
use crate::resp::command::{Args, Command, Flag, Outcome, Refusal};
use crate::resp::decode::{ARG_OVERHEAD_BYTES, Request};
use crate::resp::error::Fault;
use crate::resp::reply::Reply;
use crate::resp::session::Session;

/// What a queue may hold beside one entry of the largest size.
const QUEUE_BYTES_BESIDE_ENTRY: u64 = 64 << 20;
/// Keys that a connection watches, and what they may take together with [`ARG_OVERHEAD_BYTES`] for each. Each is compared with
/// those before it.
const WATCHED_MAX: usize = 1024;
const WATCHED_BYTES_MAX: u64 = 1 << 20;

/// Commands that wait for `EXEC`.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    queue: Vec<(&'static Command, Request)>,
    queue_bytes: u64,
    /// Whether a command could not even be queued: `EXEC` will refuse.
    is_aborted: bool,
    /// Whether what comes next runs in another database than this one.
    turns: bool,
}

impl Transaction {
    /// What is queued, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.queue_bytes
    }

    /// Has `EXEC` refuse. What was queued will never run, so it is not kept until then.
    pub(crate) fn abort(&mut self) {
        *self = Self { is_aborted: true, ..Self::default() };
    }
}

/// Keeps a command for `EXEC`. The queue is bounded, as nothing else would bound what a connection holds in memory.
pub(crate) fn queue(session: &mut Session, command: &'static Command, request: Request) -> Reply {
    // What is not allowed is said at once, as in Redis; `EXEC` judges again.
    if !session.transaction.as_ref().is_some_and(|transaction| transaction.turns)
        && let Some(refusal) = session.refuse_to_queue(command, &request.args)
    {
        session.transaction.iter_mut().for_each(|transaction| transaction.abort());
        return refusal;
    }
    let max_bytes = session.server().config.entry_bytes_max.saturating_add(QUEUE_BYTES_BESIDE_ENTRY);
    let memory = Arc::clone(&session.server().memory);
    let Some(transaction) = session.transaction.as_deref_mut().filter(|transaction| !transaction.is_aborted)
    else {
        // As in Redis: it is told that one was refused, and again by `EXEC`.
        return Reply::Simple("QUEUED");
    };
    transaction.turns |= command.has(Flag::TURNS);
    transaction.queue_bytes +=
        request.args.iter().map(|arg| arg.len() as u64 + ARG_OVERHEAD_BYTES).sum::<u64>();
    if transaction.queue_bytes > max_bytes {
        transaction.abort();
        return Reply::Error(Fault::quoting(format!(
            "the transaction is above the limit of {max_bytes} bytes"
        )));
    }
    if memory.is_full() && transaction.queue_bytes > UNCOUNTED_BYTES {
        transaction.abort();
        return Reply::Error(memory.refusal().into());
    }
    transaction.queue.push((command, request));
    Reply::Simple("QUEUED")
}

pub(crate) fn multi(session: &mut Session, _args: &Args) -> Outcome {
    if session.transaction.is_some() {
        return Err(Fault::err("MULTI calls can not be nested"));
    }
    session.transaction = Some(Box::default());
    Ok(Reply::Ok)
}

pub(crate) fn discard(session: &mut Session, _args: &Args) -> Outcome {
    session.transaction.take().ok_or(Fault::err("DISCARD without MULTI"))?;
    session.watched.clear();
    Ok(Reply::Ok)
}

/// Remembers which put each key holds. Versions never repeat, so a key that was changed and changed back is seen.
pub(crate) async fn watch(session: &mut Session, args: &Args) -> Outcome {
    if session.transaction.is_some() {
        return Err(Fault::err("WATCH inside MULTI is not allowed"));
    }
    for name in args.from(1) {
        let key = session.short_key(name)?;
        if session.watched.iter().any(|(watched, _)| *watched == key) {
            continue;
        }
        let watched_bytes = |key: &Key| key.bytes().len() as u64 + ARG_OVERHEAD_BYTES;
        let all_bytes: u64 = session.watched.iter().map(|(watched, _)| watched_bytes(watched)).sum();
        if session.watched.len() >= WATCHED_MAX || all_bytes + watched_bytes(&key) > WATCHED_BYTES_MAX {
            return Err(Fault::err("too many watched keys"));
        }
        let head = session.server().cache.head(&key).await?;
        session.watched.push((key, head.map(|head| head.version)));
    }
    Ok(Reply::Ok)
}

pub(crate) fn unwatch(session: &mut Session, _args: &Args) -> Outcome {
    session.watched.clear();
    Ok(Reply::Ok)
}

/// Runs what was queued. The caller holds the gate alone; the deadline is one for all commands.
pub(crate) async fn exec(session: &mut Session, deadline: Instant) -> Reply {
    let Some(transaction) = session.transaction.take() else {
        return Reply::Error(Fault::err("EXEC without MULTI"));
    };
    let Transaction { queue, is_aborted, .. } = *transaction;
    let watched = std::mem::take(&mut session.watched);
    if is_aborted {
        return Reply::Error(Fault::EXEC_ABORT);
    }
    for (key, version) in watched {
        let head = timeout_at(deadline, session.server().cache.head(&key)).await;
        // What cannot be told to be unchanged counts as changed: the client tries again.
        let is_unchanged = matches!(head, Ok(Ok(head)) if head.map(|head| head.version) == version);
        if !is_unchanged {
            return Reply::NilArray;
        }
    }
    let mut replies = Vec::with_capacity(queue.len());
    let (mut owed, mut places) = (Vec::new(), Vec::new());
    session.replied_bytes = 0;
    for (command, request) in queue {
        // Whatever changes something is done, or the transaction would be done in part; lookups know by themselves what they
        // are answered.
        let is_over = session.replied_bytes > session.replies_bytes_max() || Instant::now() >= deadline;
        if is_over && !command.has(Flag::WRITE) && command.refusal == Refusal::Fail {
            replies.push(Reply::Error(Fault::err(
                "the replies of the transaction are above the limit, or late",
            )));
            continue;
        }
        let reply = session.serve_inside(command, request, deadline).await;
        session.replied_bytes += reply.len();
        match session.owe(reply) {
            Ok(put) => {
                owed.push(put);
                places.push(replies.len());
                // Until it is settled.
                replies.push(Reply::Nil);
            }
            Err(reply) => replies.push(reply),
        }
    }
    session.replied_bytes = 0;
    for (place, reply) in places.into_iter().zip(session.settle(owed).await) {
        if let Some(answer) = replies.get_mut(place) {
            *answer = reply;
        }
    }
    Reply::Array(replies)
}
