//! What can go wrong: while opening, and afterwards.

use std::io;
use std::path::PathBuf;

/// The result of a store operation.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why an operation on an open store failed. A miss is not an error.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The bound leaves no room, even after eviction.
    #[error("no room for {needed_bytes} bytes under the bound of {bound_bytes} bytes")]
    Full {
        /// What the entry takes.
        needed_bytes: u64,
        /// The bound.
        bound_bytes: u64,
    },
    /// A pin would leave too little for what comes and goes.
    #[error("{pinned_bytes} bytes would be pinned, expected at most {max_bytes}")]
    PinnedFull {
        /// What would be.
        pinned_bytes: u64,
        /// Half of the bound, about.
        max_bytes: u64,
    },
    /// The disk has no room, though the bound leaves some: others fill it.
    #[error("no room for {needed_bytes} bytes on the disk")]
    DiskFull {
        /// What was to be written, as far as is known.
        needed_bytes: u64,
    },
    /// What room there is, is known when a sweep is through: see [`crate::Store::try_put`].
    #[error("no room for {needed_bytes} bytes before what a crash left is removed")]
    Unswept {
        /// What the entry takes.
        needed_bytes: u64,
    },
    /// Larger than a record can be.
    #[error("{what} of {size_bytes} bytes, expected at most {max_bytes}")]
    TooLarge {
        /// Key, head or payload.
        what: &'static str,
        /// What came.
        size_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// Stored bytes failed their check. The entry was set aside: its next get is a miss.
    #[error("damaged entry: {what}")]
    Corrupt {
        /// What was expected and found.
        what: String,
    },
    /// The medium is read-only.
    #[error("the store's disk is read-only")]
    ReadOnly,
    /// The medium failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// Names the failed action, and tells a full and a read-only disk from other failures.
    pub(crate) fn io(action: &'static str, needed_bytes: u64) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { needed_bytes },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::Io { action, source },
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("`{}` is in use by another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory holds something else.
    #[error("`{}` is not a Pilotlight store: {found}", dir.display())]
    NotAStore {
        /// The directory.
        dir: PathBuf,
        /// What is there.
        found: String,
    },
    /// Written by a later version.
    #[error("`{}` has format {found}, expected at most {expected}", dir.display())]
    TooNew {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The newest this build reads.
        expected: u32,
    },
    /// A bound that the engine cannot keep.
    #[error("a bound of {bound_bytes} bytes, expected at least {min_bytes}")]
    BoundTooSmall {
        /// What was asked.
        bound_bytes: u64,
        /// The least.
        min_bytes: u64,
    },
    /// The directory cannot be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Locked { .. } => {
                "stop the other server, give this one its own `--data-dir`, or talk to the running one with `--server`"
                    .to_owned()
            }
            Self::NotAStore { .. } => "choose an empty or a new `--data-dir`".to_owned(),
            Self::TooNew { .. } => "run the newer Pilotlight that wrote it, or choose another `--data-dir`".to_owned(),
            Self::BoundTooSmall { min_bytes, .. } => format!("use `--max-size {}MiB` or more", min_bytes.div_ceil(1 << 20)),
            Self::Io { .. } => "check that the directory exists, is writable, and has room".to_owned(),
        }
    }
}
