//! One error type, by cause. A miss is not an error.

use std::time::Duration;

use crate::trust::Refusal;

/// The result of a cache operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers there.
    #[error("{what} is unavailable")]
    Unavailable {
        /// The backend or file.
        what: String,
        /// What the system said.
        #[source]
        source: Option<std::io::Error>,
    },
    /// It did not finish in time.
    #[error("{what} took over {} ms", after.as_millis())]
    Timeout {
        /// The operation.
        what: &'static str,
        /// The limit it ran under.
        after: Duration,
    },
    /// The byte bound leaves no room, even after eviction.
    #[error("no room for {needed_bytes} bytes under the bound of {bound_bytes} bytes")]
    Full {
        /// What the entry takes.
        needed_bytes: u64,
        /// The bound.
        bound_bytes: u64,
    },
    /// Too little would be left for what comes and goes.
    #[error("{pinned_bytes} bytes would be pinned, expected at most {max_bytes}, half of the space")]
    PinnedFull {
        /// What would be.
        pinned_bytes: u64,
        /// Half of the bound, about.
        max_bytes: u64,
    },
    /// Larger than this backend takes.
    #[error("{what} of {size_bytes} bytes, expected at most {max_bytes}")]
    TooLarge {
        /// Key or entry.
        what: &'static str,
        /// What came.
        size_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// Stored bytes failed their check. The entry is set aside: the next get is a miss.
    #[error("damaged entry: {what}")]
    Corrupt {
        /// What was expected and found.
        what: String,
    },
    /// Policy asks for a signature that the entry does not carry.
    #[error("unverified entry: {0}")]
    Unverified(Refusal),
    /// The caller may not do this.
    #[error("permission denied: {what}")]
    Denied {
        /// What was asked.
        what: String,
    },
    /// The backend takes no writes.
    #[error("{what} is read-only")]
    ReadOnly {
        /// The backend.
        what: String,
    },
    /// The backend cannot do this at all.
    #[error("unsupported: {what}")]
    Unsupported {
        /// What was asked.
        what: String,
    },
    /// The request makes no sense.
    #[error("invalid: {what}")]
    Invalid {
        /// What is wrong with it.
        what: String,
    },
    /// A defect of ours.
    #[error("internal error: {what}")]
    Internal {
        /// What was found.
        what: String,
    },
    /// A failure of a backend written elsewhere; its text is kept word for word, as PyTorch's samples keep it.
    #[error("{source}")]
    Backend {
        /// The cause's kind.
        kind: ErrorKind,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The cause of an [`Error`], for the tables that map it to a RESP reply, an HTTP status and a Python exception.
///
/// Not `non_exhaustive`: those tables match it without a wildcard, so that a new kind fails to compile there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorKind {
    /// Nobody answers.
    Unavailable,
    /// Not in time.
    Timeout,
    /// No room.
    Full,
    /// Over a size limit.
    TooLarge,
    /// Failed its check.
    Corrupt,
    /// Lacks a proof.
    Unverified,
    /// Not allowed.
    Denied,
    /// Takes no writes.
    ReadOnly,
    /// Cannot do it.
    Unsupported,
    /// Senseless request.
    Invalid,
    /// Our defect.
    Internal,
}

impl ErrorKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Unavailable,
        Self::Timeout,
        Self::Full,
        Self::TooLarge,
        Self::Corrupt,
        Self::Unverified,
        Self::Denied,
        Self::ReadOnly,
        Self::Unsupported,
        Self::Invalid,
        Self::Internal,
    ];

    /// The name used as a metric label and in `stats`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Full => "full",
            Self::TooLarge => "too-large",
            Self::Corrupt => "corrupt",
            Self::Unverified => "unverified",
            Self::Denied => "denied",
            Self::ReadOnly => "read-only",
            Self::Unsupported => "unsupported",
            Self::Invalid => "invalid",
            Self::Internal => "internal",
        }
    }

    /// What a person can do about it, where something is known.
    #[must_use]
    pub fn hint(self) -> Option<&'static str> {
        match self {
            Self::Full => Some("raise `--max-size` where the disk has room, or pass a smaller entry"),
            Self::Unavailable => Some("check that the disk is mounted and writable"),
            Self::Corrupt => {
                Some("the entry was set aside and will be compiled again; run `pilotlight verify`")
            }
            Self::TooLarge => Some("raise `--max-entry-size`, or `--max-size` if that is the smaller"),
            Self::Timeout
            | Self::Unverified
            | Self::Denied
            | Self::ReadOnly
            | Self::Unsupported
            | Self::Invalid
            | Self::Internal => None,
        }
    }
}

impl Error {
    /// Wraps a failure of a backend written outside this crate.
    pub fn backend(kind: ErrorKind, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Backend { kind, source: source.into() }
    }

    /// The cause.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Full { .. } | Self::PinnedFull { .. } => ErrorKind::Full,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Unverified(_) => ErrorKind::Unverified,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::ReadOnly { .. } => ErrorKind::ReadOnly,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Internal { .. } => ErrorKind::Internal,
            Self::Backend { kind, .. } => *kind,
        }
    }

    /// What a person can do about it, where something is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::PinnedFull { .. } => Some(
                "unpin other entries (`pilotlight ls` shows them), or raise `--max-size` where the disk has room",
            ),
            Self::Unverified(refusal) => Some(refusal.reason().hint()),
            #[cfg(feature = "origin")]
            Self::Backend { source, .. } => match source.downcast_ref::<crate::origin::OriginError>() {
                Some(error) => error.hint(),
                None => self.kind().hint(),
            },
            error => error.kind().hint(),
        }
    }
}
