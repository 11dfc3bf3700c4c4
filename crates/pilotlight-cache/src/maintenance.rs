//! What an operator asks of a backend that keeps its entries on a disk.

use std::fmt::Debug;
use std::ops::ControlFlow;

use crate::{Key, Namespace, Result};

/// Operations beside the cache's own, for `pilotlight verify` and its like. They block: call them off the serving
/// threads.
pub trait Maintenance: Send + Sync + Debug {
    /// Reads every entry whole and checks it, setting aside what is damaged. Calls `progress` after every entry or
    /// so; `Break` ends the run early with what it found so far.
    ///
    /// # Errors
    /// When the store cannot be read at all. A damaged entry is no error: it is in the report.
    fn verify(&self, progress: &mut dyn FnMut(&VerifyReport) -> ControlFlow<()>) -> Result<VerifyReport>;

    /// Stores entries that nobody put or got since `idle_before_ms` smaller: compressed better, or against a sibling. Nothing
    /// else of them changes, not even their version. Calls `progress` after every entry it looked at, which may take its time
    /// so that others have theirs; `Break` ends the run early. One run at a time.
    ///
    /// # Errors
    /// When the store cannot be read or written. An entry that is damaged is set aside, as by [`Maintenance::verify`].
    fn recompress(
        &self,
        idle_before_ms: u64,
        progress: &mut dyn FnMut(&RecompressReport) -> ControlFlow<()>,
    ) -> Result<RecompressReport>;

    /// Keeps the entry under `key`, and its group, from being evicted; says whether there is an entry. It still expires and
    /// can be deleted, and what is put over it is pinned too.
    ///
    /// # Errors
    /// `Full` when too much would be pinned.
    fn pin(&self, key: &Key) -> Result<bool>;

    /// Takes the pin away; says whether there is an entry.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn unpin(&self, key: &Key) -> Result<bool>;

    /// Bounds what the entries of `namespace` take together; above it, the namespace loses entries of its own and no others.
    ///
    /// # Errors
    /// When there are too many namespaces.
    fn set_quota(&self, namespace: &Namespace, bytes_max: u64) -> Result<()>;
}

/// What [`Maintenance::recompress`] did, so far or in the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecompressReport {
    /// Entries read.
    pub entries_read: u64,
    /// Entries that are stored smaller now.
    pub entries_rewritten: u64,
    /// Those among them that are stored against a sibling.
    pub deltas: u64,
    /// Bytes that this saved, without rounding.
    pub bytes_saved: u64,
}

/// What [`Maintenance::verify`] found, so far or in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Entries there when the run began.
    pub entries_total: u64,
    /// Entries read and checked.
    pub entries_checked: u64,
    /// Stored bytes read.
    pub bytes_checked: u64,
    /// Entries that failed, and why. They were set aside: their next get is a miss.
    pub damaged: Vec<(Key, String)>,
}
