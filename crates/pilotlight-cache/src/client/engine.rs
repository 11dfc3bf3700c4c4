//! What the client needs of whatever keeps its envelopes: a Pilotlight, a Redis, a directory.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::pace::Deadline;
use crate::Result;
use crate::envelope::Sealed;

/// Keeps envelopes under keys. Blocks; nothing outside may hold a lock around it.
pub(super) trait Engine: Send + Sync + Debug {
    /// Does `requests` in order and in one round trip, and gives one answer each. `Err` outside means that the engine
    /// could not be reached or understood, inside that it refused one of them.
    fn exchange(&self, requests: &[Request<'_>], deadline: &Arc<Deadline>) -> Result<Vec<Result<Answer>>>;

    /// Whether it may know groups; it is not asked for one otherwise.
    fn may_group(&self) -> bool;

    /// Asks who compiles a key.
    fn lease(&self, search: Search<'_>, deadline: &Arc<Deadline>) -> Result<Asked>;

    /// Closes what is open.
    fn close(&self);
}

#[derive(Debug)]
pub(super) enum Request<'a> {
    Get(&'a [u8]),
    /// Whether something stands under the key, without fetching it.
    Has(&'a [u8]),
    Put(&'a [u8], &'a Sealed),
    Delete(&'a [u8]),
    /// Puts what stands under the keys into the group of the first. By itself in an exchange.
    Group(&'a [&'a [u8]]),
    Ping,
}

#[derive(Debug)]
pub(super) enum Answer {
    /// To a get: the envelope, unchecked.
    Found(Bytes),
    /// To a get, a has or a delete.
    Absent,
    /// To a has, a put, a delete or a ping.
    Done,
    /// To a put that the engine did not keep, without saying why.
    Dropped,
    /// To a group: how many are in it.
    Grouped(usize),
    /// To a group: there is no such thing here.
    Unknown,
}

/// A key that is not there, to be compiled by one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) key: &'a [u8],
    /// How long a lease lasts unless renewed.
    pub(super) lasts: Duration,
    /// How long the answer may take.
    pub(super) wait: Duration,
    /// It was asked before, and waited.
    pub(super) is_again: bool,
}

/// Who compiles it.
#[derive(Debug)]
pub(super) enum Asked {
    /// Whoever asked.
    Lead(Box<dyn Hold>),
    /// Nobody: it is there.
    Look,
    /// Whoever wants it.
    Alone,
    /// Another still does, for so long already; the longest of the latest such compiles took so long.
    Wait { age: Duration, longest: Option<Duration> },
}

/// A lease, where it was given.
pub(super) trait Hold: Send + Debug {
    /// Says that its leader lives. `Err` if nobody heard, or it was lost.
    fn renew(&mut self, deadline: &Arc<Deadline>) -> Result<()>;

    /// Gives it up, unless what was put has ended it.
    fn end(self: Box<Self>, is_put: bool, deadline: &Arc<Deadline>);
}
