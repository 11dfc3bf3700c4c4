//! What requests and replies in flight hold in memory, of all connections together.
//!
//! Counted as bytes arrive, not as they are announced: an announcement costs a client nothing and must not keep others
//! out. Nobody waits for room, since requests that wait for each other would wait for ever: who finds none is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use pilotlight_cache::Error;

/// What a connection may hold without being counted: it is what each may always have, and counting it would cost more than
/// it takes.
pub(crate) const UNCOUNTED_BYTES: u64 = 256 << 10;

/// The account of a server.
#[derive(Debug)]
pub(crate) struct Memory {
    held_bytes: AtomicU64,
    max_bytes: u64,
}

/// One connection's or request's share, given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Memory {
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { held_bytes: AtomicU64::new(0), max_bytes }
    }

    /// Whether all of it is taken.
    pub(crate) fn is_full(&self) -> bool {
        self.held_bytes() >= self.max_bytes
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Relaxed)
    }

    /// A share of nothing yet.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { memory: Arc::clone(self), bytes: 0 }
    }

    /// The error of who found no room.
    pub(crate) fn refusal(&self) -> Error {
        let what = format!("room for requests in flight, {} MiB in all,", self.max_bytes >> 20);
        Error::Unavailable { what, source: None }
    }
}

impl Share {
    /// Makes it `bytes`, and says whether all shares together fit. It is that large in any case: what is there is counted.
    pub(crate) fn resize(&mut self, bytes: u64) -> bool {
        let held_bytes = &self.memory.held_bytes;
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes <= before {
            held_bytes.fetch_sub(before - bytes, Relaxed);
            return true;
        }
        held_bytes.fetch_add(bytes - before, Relaxed) + (bytes - before) <= self.memory.max_bytes
    }

    /// The same for a connection that holds `bytes`, of which [`UNCOUNTED_BYTES`] are free.
    pub(crate) fn hold(&mut self, bytes: u64) -> bool {
        let counted = if bytes <= UNCOUNTED_BYTES { 0 } else { bytes };
        counted == self.bytes || self.resize(counted)
    }

    pub(crate) fn is_counted(&self) -> bool {
        self.bytes > 0
    }

    /// `bytes`, counted for as long as anybody has them. Short ones are not.
    pub(crate) fn holding(mut self, bytes: Bytes) -> Bytes {
        self.hold(bytes.len() as u64);
        if self.bytes == 0 { bytes } else { Bytes::from_owner(Held { bytes, _share: self }) }
    }

    pub(crate) fn refusal(&self) -> Error {
        self.memory.refusal()
    }
}

struct Held {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_refused_beyond_the_whole_and_given_back() {
        let memory = Arc::new(Memory::new(10));
        let (mut one, mut other) = (memory.share(), memory.share());
        assert!(one.resize(6) && other.resize(4) && memory.is_full());
        assert!(!other.resize(5));
        assert!(one.resize(2) && other.resize(8));
        assert!(!one.resize(3));
        drop(other);
        assert_eq!(memory.held_bytes(), 3);
        drop(one);
        assert_eq!(memory.held_bytes(), 0);
    }

    #[test]
    fn what_every_connection_may_have_is_not_counted() {
        let memory = Arc::new(Memory::new(UNCOUNTED_BYTES));
        let mut share = memory.share();
        assert!(share.hold(UNCOUNTED_BYTES) && memory.held_bytes() == 0);
        assert!(!share.hold(UNCOUNTED_BYTES + 1) && memory.is_full());
        assert!(share.hold(1) && memory.held_bytes() == 0);
        let bytes = share.holding(vec![1; 1 << 20].into());
        let part = bytes.slice(1..2);
        drop(bytes);
        assert_eq!(memory.held_bytes(), 1 << 20);
        drop(part);
        assert_eq!(memory.held_bytes(), 0);
    }
}
