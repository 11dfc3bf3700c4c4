//! What the client needs of whatever keeps its envelopes: a Pilotlight, a Redis, a directory.

use std::fmt::Debug;
use std::sync::Arc;

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
