//! What an operator asks of a backend that keeps its entries on a disk.

use std::fmt::Debug;
use std::ops::ControlFlow;

pub use pilotlight_store::{Checkup, Collect, Collected, Examination, GROUP_ENTRIES_MAX, Purged, Repaired};

use crate::portable::Portable;
use crate::{Cursor, Head, Key, Namespace, Result, Version};

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

    /// Puts the entries under `leader` and `keys` of its namespace into one group, which is evicted together or not at all; says
    /// how many are in it then. The group is that of `leader`, if it is in one. An entry that another group needs too belongs to
    /// neither, and of more than [`GROUP_ENTRIES_MAX`] those behind do not fit in. Nothing else of an entry changes, but for its
    /// version; what is put over it is in its group too.
    ///
    /// # Errors
    /// As a put; some may be in the group then.
    fn group(&self, leader: &Key, keys: &[Key]) -> Result<usize>;

    /// Bounds what the entries of `namespace` take together; above it, the namespace loses entries of its own and no others.
    ///
    /// # Errors
    /// When there are too many namespaces.
    fn set_quota(&self, namespace: &Namespace, bytes_max: u64) -> Result<()>;

    /// Sets an entry aside that was found damaged for this reason, if it still is that version; says whether it was.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn set_aside(&self, key: &Key, version: Version, reason: &str) -> Result<bool>;

    /// What was set aside, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn quarantine(&self) -> Result<Vec<SetAside>>;

    /// Removes what was set aside before `before_ms`, or all of it.
    ///
    /// # Errors
    /// When some of it cannot be removed.
    fn purge_quarantine(&self, before_ms: Option<u64>) -> Result<Purged>;

    /// Removes what nobody needs (expired entries, files that no entry holds, dead bytes of the log) and gives the space back, or
    /// says what there is of it. `Break` ends the run early with what it did so far.
    ///
    /// # Errors
    /// When the store cannot be read or written. Every entry that is alive is there then as before.
    fn collect(
        &self,
        what: Collect,
        progress: &mut dyn FnMut(&Collected) -> ControlFlow<()>,
    ) -> Result<Collected>;

    /// Looks whether all is there that should be, and nothing else; not at what is in the entries.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn checkup(&self) -> Result<Checkup>;

    /// Which store this is, and what namespaces there are.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn about(&self) -> Result<StoreAbout>;

    /// Gives up to about `limit` entries of `namespace`, from `cursor` on, as they stand in a portable file, if they are wanted
    /// and whole. It is no use of them.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn export_page(
        &self,
        namespace: &Namespace,
        cursor: Cursor,
        limit: usize,
        is_wanted: &dyn Fn(&Key, &Head) -> bool,
        each: &mut dyn FnMut(&Portable) -> ControlFlow<()>,
    ) -> Result<Exported>;

    /// Takes an entry in, every check of it passed.
    ///
    /// # Errors
    /// `Corrupt` for one that fails, and as a put. It waits for no sync but in a store that does so for each put.
    fn import(&self, portable: &Portable, conflict: Conflict) -> Result<Imported>;

    /// Makes everything put so far survive a power cut.
    ///
    /// # Errors
    /// When the disk fails.
    fn sync(&self) -> Result<()>;
}

/// Which store it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreAbout {
    /// The same for a store as long as it lives, and for no other.
    pub id: u64,
    /// The namespaces that hold, or held, entries.
    pub namespaces: Vec<Namespace>,
}

/// How far an export came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Where it goes on; [`Cursor::START`] at the end.
    pub next: Cursor,
    /// Entries that were damaged, and set aside.
    pub damaged: u32,
}

/// What becomes of an entry that an import finds under its key, holding another artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// Of the two, the one that was made later.
    NewerStays,
    /// It is replaced.
    Replace,
}

/// What an import did with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// There was none under its key.
    New,
    /// There was another.
    Replaced,
    /// The same artifact was there already.
    Unchanged,
    /// What is there was made later.
    NewerStayed,
    /// Its time has passed.
    Expired,
}

/// An entry that was set aside because it failed its check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Grows from one to the next.
    pub number: u64,
    /// Its key, where that is known.
    pub key: Option<Key>,
    /// When, milliseconds since the Unix epoch, where it is known.
    pub set_aside_ms: Option<u64>,
    /// What it took, in bytes.
    pub bytes: u64,
    /// Whether its bytes are kept for a person to look at.
    pub is_kept: bool,
    /// What was expected and found.
    pub reason: String,
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
