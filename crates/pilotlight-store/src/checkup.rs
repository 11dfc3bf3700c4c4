//! What an operator asks of a store that is in use: is all there that should be, and nothing else.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use crate::blobs::Blobs;
use crate::format::{SEGMENT_HEADER_LEN, SegmentHeader};
use crate::space::blocks;
use crate::store::{Inner, Store};
use crate::{Result, StoreError};

/// What a checkup found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checkup {
    /// Whether every put is refused, since nobody could write here when the store was opened.
    pub is_read_only: bool,
    /// Payload files that no entry holds.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Payload files that entries hold, and that are not there.
    pub lost_files: u64,
    /// Segments of the log whose header cannot be read or fails its check.
    pub damaged_segments: u64,
    /// What is set aside.
    pub set_aside: u64,
    /// Bytes free for us and in all on the disk, as far as the system tells.
    pub disk_room: Option<(u64, u64)>,
    /// What the store takes.
    pub stored_bytes: u64,
    /// Its bound.
    pub bound_bytes: u64,
}

impl Store {
    /// Looks at the structure, not at what is in the entries.
    ///
    /// # Errors
    /// `Io` when the directory cannot be listed.
    pub fn checkup(&self) -> Result<Checkup> {
        self.inner.checkup()
    }
}

impl Inner {
    fn checkup(&self) -> Result<Checkup> {
        let failed = || StoreError::io("list the payload files", 0);
        let (mut orphans, mut orphan_bytes) = (0, 0);
        for orphan in self.blobs.orphans().map_err(failed())? {
            let (_, len) = orphan.map_err(failed())?;
            orphans += 1;
            orphan_bytes += blocks(len);
        }
        Ok(Checkup {
            is_read_only: self.check_writable().is_err(),
            orphans,
            orphan_bytes,
            lost_files: self.lost_files().map_err(failed())?,
            damaged_segments: self.damaged_segments(),
            set_aside: self.quarantine.list().len() as u64,
            disk_room: crate::media::room(&self.options.dir),
            stored_bytes: self.space.used(),
            bound_bytes: self.space.bound(),
        })
    }

    fn lost_files(&self) -> std::io::Result<u64> {
        let held = |blobs: &Blobs| -> HashSet<(u128, u64)> { blobs.state.lock().held.names().collect() };
        // Held before and after: what comes and goes meanwhile is not lost.
        let mut lost = held(&self.blobs);
        for name in self.blobs.names()? {
            if let Some(name) = crate::orphans::parse(&name?) {
                lost.remove(&name);
            }
        }
        let now = held(&self.blobs);
        Ok(lost.iter().filter(|name| now.contains(*name)).count() as u64)
    }

    fn damaged_segments(&self) -> u64 {
        let is_damaged = |segment: &std::sync::Arc<crate::log::Segment>| {
            let mut bytes = [0; SEGMENT_HEADER_LEN];
            let is_read = segment.file.read_at(&mut bytes, 0).is_ok();
            let is_short = segment.file.length().is_ok_and(|len| len < segment.written.load(Relaxed));
            !is_read || is_short || SegmentHeader::decode(&bytes, self.seed).is_none()
        };
        self.log.all().iter().filter(|segment| is_damaged(segment)).count() as u64
    }
}
