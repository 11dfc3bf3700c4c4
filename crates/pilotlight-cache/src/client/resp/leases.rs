//! Leases over RESP: each is good on the connection that it was given on, which is kept out of the pool until it ends.

use std::sync::Arc;
use std::time::Duration;

use super::super::engine::{Asked, Hold, Search};
use super::super::pace::Deadline;
use super::super::stream::unavailable;
use super::super::wire::{Outgoing, Reply, garbage};
use super::{Connection, Dialect, Pool, RespEngine, is_refusal_to_talk, refused};
use crate::Result;

/// Items in an answer to `PILOTLIGHT.LEASE`.
const LEASE_ITEMS_MAX: usize = 3;

/// A lease, and the connection that it is good on.
#[derive(Debug)]
struct RespHold {
    connection: Connection,
    key: Vec<u8>,
    token: i64,
    pool: Arc<Pool>,
}

impl RespEngine {
    pub(super) fn lease_on(
        &self,
        mut connection: Connection,
        search: Search<'_>,
        deadline: &Arc<Deadline>,
    ) -> Result<Asked> {
        if connection.dialect == Dialect::Plain {
            self.pool.keep(connection);
            return Ok(Asked::Alone);
        }
        let reply = connection.ask(
            &[b"PILOTLIGHT.LEASE", search.key, &millis(search.lasts), &millis(search.wait)],
            search.is_again.then_some(b"AGAIN"),
            deadline,
        );
        self.count(&mut connection);
        let asked = match reply? {
            Reply::Array(items) => match items.as_slice() {
                [Reply::Bulk(word), Reply::Integer(token)] if word.as_ref() == b"lead" => {
                    let (key, pool) = (search.key.to_vec(), self.pool.clone());
                    return Ok(Asked::Lead(Box::new(RespHold { connection, key, token: *token, pool })));
                }
                [Reply::Bulk(word)] if word.as_ref() == b"look" => Asked::Look,
                [Reply::Bulk(word)] if word.as_ref() == b"alone" => Asked::Alone,
                [Reply::Bulk(word), Reply::Integer(age_ms), Reply::Integer(longest_ms)]
                    if word.as_ref() == b"wait" =>
                {
                    let millis = |ms: &i64| u64::try_from(*ms).ok().map(Duration::from_millis);
                    Asked::Wait { age: millis(age_ms).unwrap_or_default(), longest: millis(longest_ms) }
                }
                _ => return Err(garbage()),
            },
            // A Pilotlight that knows none.
            Reply::Error(text) if !is_refusal_to_talk(&text) => Asked::Alone,
            Reply::Error(text) => return Err(refused(&text)),
            _ => return Err(garbage()),
        };
        self.pool.keep(connection);
        Ok(asked)
    }
}

impl Hold for RespHold {
    fn renew(&mut self, deadline: &Arc<Deadline>) -> Result<()> {
        let token = self.token.to_string();
        match self.connection.ask(&[b"PILOTLIGHT.RENEW", &self.key, token.as_bytes()], None, deadline)? {
            Reply::Integer(1) => Ok(()),
            _ => Err(unavailable("the lease is lost")),
        }
    }

    fn end(mut self: Box<Self>, is_put: bool, deadline: &Arc<Deadline>) {
        let token = self.token.to_string();
        let is_ended = is_put
            || self
                .connection
                .ask(&[b"PILOTLIGHT.RELEASE", &self.key, token.as_bytes()], None, deadline)
                .is_ok();
        // On one that did not answer no next answer could be told from this one's.
        if is_ended {
            self.pool.keep(self.connection);
        }
    }
}

impl Connection {
    /// One command of words, and its reply.
    fn ask(&mut self, words: &[&[u8]], last: Option<&[u8]>, deadline: &Arc<Deadline>) -> Result<Reply> {
        let words: Vec<[&[u8]; 1]> = words.iter().copied().chain(last).map(|word| [word]).collect();
        let mut outgoing = Outgoing::default();
        outgoing.push_command(&words.iter().map(<[_; 1]>::as_slice).collect::<Vec<_>>());
        self.wire.begin();
        self.wire.send(&outgoing, deadline)?;
        self.wire.reply(LEASE_ITEMS_MAX, deadline)
    }
}

fn millis(duration: Duration) -> Vec<u8> {
    duration.as_millis().to_string().into_bytes()
}
