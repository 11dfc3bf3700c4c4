//! One observed operation, and where to send it.

use std::fmt;
use std::time::Duration;

use crate::{Key, Kind};

/// Which operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A lookup.
    Get,
    /// A store.
    Put,
}

/// How it ended: the four words of PyTorch's `_CacheStat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// The key was there.
    Hit,
    /// It was not.
    Miss,
    /// It was stored. A put whose precondition did not hold, or that was refused, is none of the four.
    Put,
    /// It failed.
    Exception,
}

impl Outcome {
    /// Every outcome, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Hit, Self::Miss, Self::Put, Self::Exception];

    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Put => "put",
            Self::Exception => "exception",
        }
    }
}

/// One observed operation.
#[derive(Debug, Clone)]
pub struct Sample {
    /// [`Key::log_hash`]: samples go to logs, keys do not.
    pub key_hash: u64,
    /// The key's kind.
    pub kind: Kind,
    /// Get or put.
    pub operation: Operation,
    /// How it ended; `None` while open, and for a put that an unmet precondition stopped.
    pub outcome: Option<Outcome>,
    /// The tier that answered a hit.
    pub tier: Option<u8>,
    /// Artifact bytes moved.
    pub bytes: u64,
    /// From the call to its answer.
    pub duration: Duration,
    /// The error's text, when it failed.
    pub fail_reason: Option<String>,
}

impl Sample {
    /// An open sample.
    #[must_use]
    pub fn open(key: &Key, operation: Operation) -> Self {
        Self {
            key_hash: key.log_hash(),
            kind: key.kind(),
            operation,
            outcome: None,
            tier: None,
            bytes: 0,
            duration: Duration::ZERO,
            fail_reason: None,
        }
    }
}

/// Decides which operations are sampled and takes the samples: `_create_sample` and `_log_sample` in PyTorch.
pub trait SampleHooks: Send + Sync + fmt::Debug {
    /// A sample for this operation, or `None` not to sample it.
    fn create_sample(&self, key: &Key, operation: Operation) -> Option<Sample>;
    /// Takes the closed sample. Called in every outcome, also a failure.
    fn log_sample(&self, sample: Sample);
}

/// Samples nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSamples;

impl SampleHooks for NoSamples {
    fn create_sample(&self, _key: &Key, _operation: Operation) -> Option<Sample> {
        None
    }
    fn log_sample(&self, _sample: Sample) {}
}
