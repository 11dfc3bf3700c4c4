//! What an operator asks of a backend that keeps its entries on a disk.

use std::fmt::Debug;
use std::ops::ControlFlow;

use crate::{Key, Result};

/// Operations beside the cache's own, for `pilotlight verify` and its like. They block: call them off the serving
/// threads.
pub trait Maintenance: Send + Sync + Debug {
    /// Reads every entry whole and checks it, setting aside what is damaged. Calls `progress` after every entry or
    /// so; `Break` ends the run early with what it found so far.
    ///
    /// # Errors
    /// When the store cannot be read at all. A damaged entry is no error: it is in the report.
    fn verify(&self, progress: &mut dyn FnMut(&VerifyReport) -> ControlFlow<()>) -> Result<VerifyReport>;
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
