//! What a store is told when it is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::media::{Disk, Media};
use crate::{Clock, SystemClock};

/// When a put counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When the kernel has it: `kill -9` loses nothing, a power cut at most about the last second.
    #[default]
    Relaxed,
    /// When the medium has it, together with the other puts of the last few milliseconds.
    Batch,
    /// When the medium has it, at once.
    Always,
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory; made if it is not there.
    pub dir: PathBuf,
    /// The bound on everything in it, in bytes, as `du` counts.
    pub max_bytes: u64,
    /// When a put counts as done.
    pub durability: Durability,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// The file system, behind a trait for the sake of crash tests.
    pub media: Arc<dyn Media>,
    /// How often the background work runs, and how long after the open first: expiry, eviction ahead of need. The sweep of what a
    /// crash left begins after ten of them.
    pub tick: Duration,
}

impl Options {
    /// A bound for whoever opens a store to look into it or to mend it, and does not know which one it is served under. New
    /// segments are then as long as those that are there, since each is cleaned in one go, under the bound.
    pub const UNBOUNDED: u64 = 1 << 60;

    /// A store in `dir`, bounded by `max_bytes`, with everything else as usual.
    pub fn new(dir: impl Into<PathBuf>, max_bytes: u64) -> Self {
        Self {
            dir: dir.into(),
            max_bytes,
            durability: Durability::default(),
            clock: Arc::new(SystemClock),
            media: Arc::new(Disk),
            tick: Duration::from_millis(100),
        }
    }
}
