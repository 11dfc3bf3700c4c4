//! What the client needs of whatever keeps its envelopes: a Pilotlight, a Redis, a directory.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::envelope::Sealed;
use crate::{Error, Result};

/// Keeps envelopes under keys. Blocks; nothing outside may hold a lock around it.
pub(super) trait Engine: Send + Sync + Debug {
    /// Does `requests` in order and in one round trip, and gives one answer each. `Err` outside means that the engine
    /// could not be reached or understood, inside that it refused one of them.
    fn exchange(&self, requests: &[Request<'_>], deadline: &Deadline) -> Result<Vec<Result<Answer>>>;

    /// Closes what is open.
    fn close(&self);
}

#[derive(Debug)]
pub(super) enum Request<'a> {
    Get(&'a [u8]),
    Put(&'a [u8], &'a Sealed),
    Delete(&'a [u8]),
    Ping,
}

#[derive(Debug)]
pub(super) enum Answer {
    /// To a get: the envelope, unchecked.
    Found(Bytes),
    /// To a get or a delete.
    Absent,
    /// To a put, a delete or a ping.
    Done,
    /// To a put that the engine did not keep, without saying why.
    Dropped,
}

/// How long an operation may wait: for the next byte, and in all.
#[derive(Debug, Clone)]
pub(super) struct Deadline {
    connect: Duration,
    stall: Duration,
    total: Duration,
    until: Instant,
}

impl Deadline {
    pub(super) fn new(connect: Duration, stall: Duration, total: Duration) -> Self {
        Self { connect, stall, total, until: Instant::now() + total }
    }

    /// How long a wait for the next byte may take from now on.
    pub(super) fn wait(&self) -> Result<Duration> {
        self.at_most(self.stall)
    }

    /// How long a connection may take to make from now on.
    pub(super) fn connect_wait(&self) -> Result<Duration> {
        self.at_most(self.connect)
    }

    /// What is said of a wait in which no byte moved.
    pub(super) fn stalled(&self) -> Error {
        match self.wait() {
            Ok(_) => Error::Timeout { what: "waiting for the next byte", after: self.stall },
            Err(error) => error,
        }
    }

    pub(super) fn not_connected(&self) -> Error {
        Error::Timeout { what: "connecting", after: self.connect }
    }

    fn at_most(&self, limit: Duration) -> Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        // The system takes no timeout of zero, and rounds one below a millisecond.
        if left < Duration::from_millis(1) {
            return Err(Error::Timeout { what: "an operation", after: self.total });
        }
        Ok(left.min(limit).max(Duration::from_millis(1)))
    }
}
