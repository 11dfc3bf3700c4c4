//! Media for tests: one that watches and breaks the calls of another, and one in memory that knows what a crash leaves.
//!
//! [`Watched`] stands in front of the disk or of [`Simulated`]: it counts calls, and a hook may act between them or have one
//! fail, as [`Fuse`] does with call after call. [`Simulated`] keeps beside what is there what would be there after a power
//! cut; [`crash`] draws from both what a kill or a power cut may leave.

/// What a file holds, in blocks that copies share.
mod content;
/// What a kill and a power cut leave.
pub(crate) mod crash;
/// Calls that fail.
mod faults;
/// Files in memory, with what of them was synced.
mod file_system;
/// A medium that keeps its files in memory.
mod simulated;
/// Calls seen and broken.
mod watched;

use std::path::Path;

pub(crate) use self::faults::{BROKEN, FULL, Failure, Fuse, Lasting, READ_ONLY, STUCK, UNWRITABLE};
pub(crate) use self::file_system::FileSystem;
pub(crate) use self::simulated::Simulated;
pub(crate) use self::watched::Watched;

/// What is asked of a medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Create,
    Rename,
    Remove,
    CreateDir,
    SyncDir,
    SyncFileSystem,
    Write,
    SetLen,
    Sync,
    Read,
    List,
    Length,
}

impl Operation {
    fn is_look(self) -> bool {
        matches!(self, Self::Read | Self::List | Self::Length)
    }
}

/// One call of a medium, before it is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) operation: Operation,
    pub(crate) path: &'a Path,
}

impl Call<'_> {
    pub(crate) fn is_on_segment(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "seg")
    }

    /// On a file that payloads are written to, or a directory of those.
    pub(crate) fn is_on_payload(&self) -> bool {
        let is_in = |name| self.path.parent().is_some_and(|parent| parent.ends_with(name));
        is_in("blobs") || is_in("recycle")
    }
}
