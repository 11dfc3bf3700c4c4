//! Why an origin did not do as asked.

use std::time::Duration;

use crate::{Error, ErrorKind};

/// Why an origin did not do as asked, by cause. That an object is not there is no error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Nobody answers there.
    #[error("the origin does not answer: {what}")]
    Unreachable {
        /// What the network said.
        what: String,
    },
    /// It did not finish in time.
    #[error("the origin took over {} ms", after.as_millis())]
    Timeout {
        /// The budget it had.
        after: Duration,
    },
    /// It asks for fewer requests (S3's 503 `SlowDown`).
    #[error("the origin asks to slow down: {what}")]
    Throttled {
        /// What it said.
        what: String,
    },
    /// It does not let us do this.
    #[error("the origin refuses: {what}")]
    Denied {
        /// What it said.
        what: String,
    },
    /// Its clock and ours differ by too much for it to trust a request.
    #[error("the origin's clock differs too much from this machine's: {what}")]
    Skewed {
        /// What it said.
        what: String,
    },
    /// The bucket is not there.
    #[error("the origin has no such bucket: {what}")]
    NoBucket {
        /// What it said.
        what: String,
    },
    /// The object is above the caller's limit.
    #[error("an object of {size_bytes} bytes at the origin, expected at most {max_bytes}")]
    TooLarge {
        /// Its length.
        size_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// It cannot do this at all.
    #[error("the origin does not offer {what}")]
    Unsupported {
        /// What was asked.
        what: &'static str,
    },
    /// It does not take this request, and would not take it later either.
    #[error("the origin does not take a request: {what}")]
    Rejected {
        /// What it said.
        what: String,
    },
    /// It answers, and not with what was asked for.
    #[error("the origin failed: {what}")]
    Failed {
        /// What it said.
        what: String,
    },
    /// It was not asked: it failed too often just now.
    #[error("the origin is not asked: it failed {failures} times in a row")]
    Paused {
        /// How often it failed.
        failures: u32,
    },
}

/// The cause of an [`OriginError`], as metrics and `stats` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the variants of `OriginError`, under the same names")]
pub enum OriginFault {
    Unreachable,
    Timeout,
    Throttled,
    Denied,
    Skewed,
    NoBucket,
    TooLarge,
    Unsupported,
    Rejected,
    Failed,
    Paused,
}

impl OriginFault {
    /// Every fault, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Unreachable,
        Self::Timeout,
        Self::Throttled,
        Self::Denied,
        Self::Skewed,
        Self::NoBucket,
        Self::TooLarge,
        Self::Unsupported,
        Self::Rejected,
        Self::Failed,
        Self::Paused,
    ];

    /// The name in metrics and `stats`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Throttled => "throttled",
            Self::Denied => "denied",
            Self::Skewed => "skewed",
            Self::NoBucket => "no-bucket",
            Self::TooLarge => "too-large",
            Self::Unsupported => "unsupported",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::Paused => "paused",
        }
    }
}

impl OriginError {
    /// The cause.
    #[must_use]
    pub fn fault(&self) -> OriginFault {
        match self {
            Self::Unreachable { .. } => OriginFault::Unreachable,
            Self::Timeout { .. } => OriginFault::Timeout,
            Self::Throttled { .. } => OriginFault::Throttled,
            Self::Denied { .. } => OriginFault::Denied,
            Self::Skewed { .. } => OriginFault::Skewed,
            Self::NoBucket { .. } => OriginFault::NoBucket,
            Self::TooLarge { .. } => OriginFault::TooLarge,
            Self::Unsupported { .. } => OriginFault::Unsupported,
            Self::Rejected { .. } => OriginFault::Rejected,
            Self::Failed { .. } => OriginFault::Failed,
            Self::Paused { .. } => OriginFault::Paused,
        }
    }

    /// Whether asking again at once may go better.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Throttled { .. } | Self::Failed { .. })
    }

    /// Whether it says that the origin as a whole is in trouble, and not this one object.
    pub(crate) fn is_trouble(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Throttled { .. }
            | Self::Denied { .. }
            | Self::Skewed { .. }
            | Self::NoBucket { .. }
            | Self::Failed { .. } => true,
            Self::TooLarge { .. }
            | Self::Unsupported { .. }
            | Self::Rejected { .. }
            | Self::Paused { .. } => false,
        }
    }

    /// Whether a person has to mend something before it can go better.
    #[must_use]
    pub fn is_misconfigured(&self) -> bool {
        matches!(
            self,
            Self::Denied { .. } | Self::Skewed { .. } | Self::NoBucket { .. } | Self::Rejected { .. }
        )
    }

    /// What a person can do about it, where something is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } => {
                Some("check `--origin-endpoint`, the network, and that the origin runs")
            }
            Self::Timeout { .. } => Some(
                "raise `--origin-timeout`, or find out why the origin is slow; entries are served from the disk meanwhile",
            ),
            Self::Throttled { .. } => {
                Some("nothing is lost; ask the origin's operator for more requests a second")
            }
            Self::Denied { .. } => Some(
                "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or `--origin-credentials`, and that they may list the bucket \
                 and get, put and delete its objects",
            ),
            Self::Skewed { .. } => Some("set this machine's clock, with NTP for example"),
            Self::NoBucket { .. } => {
                Some("make the bucket, or check its name, `--origin-endpoint` and `--origin-region`")
            }
            Self::TooLarge { .. } => Some("raise `--max-entry-size`"),
            Self::Unsupported { .. } | Self::Rejected { .. } | Self::Failed { .. } | Self::Paused { .. } => {
                None
            }
        }
    }
}

impl From<OriginError> for Error {
    fn from(error: OriginError) -> Self {
        let kind = match error.fault() {
            OriginFault::Timeout => ErrorKind::Timeout,
            OriginFault::TooLarge => ErrorKind::TooLarge,
            OriginFault::Unsupported => ErrorKind::Unsupported,
            OriginFault::Rejected => ErrorKind::Internal,
            // What the origin denies is denied to this server, and not to its client.
            OriginFault::Unreachable
            | OriginFault::Throttled
            | OriginFault::Denied
            | OriginFault::Skewed
            | OriginFault::NoBucket
            | OriginFault::Failed
            | OriginFault::Paused => ErrorKind::Unavailable,
        };
        Self::backend(kind, error)
    }
}
