//! Segments: begun, ended with a footer, removed.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Active, Log};
use crate::format::{REF_LEN, ROW_LEN, Row, SEGMENT_HEADER_LEN, SegmentHeader, TRAILER_LEN, encode_footer};
use crate::media::MediaFile;
use crate::space::blocks;
use crate::{Result, StoreError};

/// One file of the log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: u32,
    pub(crate) file: Arc<dyn MediaFile>,
    /// End of the records, in bytes, those included that are not in the file yet.
    pub(crate) end: AtomicU64,
    /// End of what is in the file, in bytes; what lies behind it is in [`crate::pending`].
    pub(crate) written: AtomicU64,
    /// Length with the footer, in bytes; of the active segment, with the footer it will get.
    pub(crate) len: AtomicU64,
    /// Bytes of records of live entries.
    pub(crate) live: AtomicU64,
}

pub(crate) fn segment_path(dir: &Path, id: u32) -> PathBuf {
    dir.join(format!("{id:010}.seg"))
}

impl Log {
    /// The segment to append `record_len` bytes to: the active one, or a new one if they and a footer do not fit.
    pub(super) fn segment_for(&self, active: &mut Active, record_len: u64) -> Result<Arc<Segment>> {
        if let Some(segment) = &active.segment {
            let footer_len = footer_len(active.rows.len() + 1, active.based + 1) + active.names_len;
            if segment.end.load(Relaxed) + record_len + footer_len <= self.segment_bytes {
                return Ok(segment.clone());
            }
            self.seal(active);
        }
        let segment = self.create_segment(active)?;
        active.segment = Some(segment.clone());
        Ok(segment)
    }

    /// Ends the active segment, so that it can be cleaned.
    pub(crate) fn rotate(&self) {
        self.seal(&mut self.active.lock());
    }

    fn create_segment(&self, active: &mut Active) -> Result<Arc<Segment>> {
        let id = active.next_id;
        // A name that a failed attempt left behind is passed over, never reused.
        active.next_id += 1;
        let path = segment_path(&self.dir, id);
        let header = SegmentHeader { created_seq: active.next_seq }.encode(self.seed);
        let create = || -> io::Result<Arc<dyn MediaFile>> {
            let file = self.media.create(&path)?;
            file.write_at(&[&header], 0).inspect_err(|_| {
                // Else each put that a full disk refuses would leave a file.
                let _ = self.media.remove(&path);
            })?;
            Ok(file)
        };
        let file = create().map_err(StoreError::io("begin a segment", SEGMENT_HEADER_LEN as u64))?;
        let segment = Arc::new(Segment {
            id,
            file,
            end: AtomicU64::new(SEGMENT_HEADER_LEN as u64),
            written: AtomicU64::new(SEGMENT_HEADER_LEN as u64),
            len: AtomicU64::new(SEGMENT_HEADER_LEN as u64),
            live: AtomicU64::new(0),
        });
        self.space.log.fetch_add(blocks(SEGMENT_HEADER_LEN as u64), Relaxed);
        self.segments.write().insert(id, segment.clone());
        Ok(segment)
    }

    /// Ends the active segment with its footer. Without one (its write failed) it is scanned at the next open.
    fn seal(&self, active: &mut Active) {
        let Some(segment) = active.segment.take() else { return };
        let mut rows = std::mem::take(&mut active.rows);
        let names = self.name_spaces(&mut rows);
        active.spaces.clear();
        active.names_len = 0;
        active.based = 0;
        let end = segment.end.load(Relaxed);
        let footer = encode_footer(&rows, &names, self.seed);
        active.pending.batch.add_footer(&segment, end, rows.len(), &footer);
        self.note_len(&segment, end + footer.len() as u64);
        // What is in it by now; its last bytes are noted when they are, too.
        self.unsynced.lock().push(segment.file.clone());
    }

    /// The names of the spaces that `rows` speak of; the rows count in these from here on. Not the names of all spaces:
    /// clients choose how many there are.
    fn name_spaces(&self, rows: &mut [Row]) -> Vec<Vec<u8>> {
        let spaces = self.spaces.read();
        let mut names = Vec::new();
        let mut numbers = HashMap::new();
        for row in rows {
            row.space = *numbers.entry(row.space).or_insert_with(|| {
                names.push(spaces.get(usize::from(row.space)).cloned().unwrap_or_default());
                (names.len() - 1) as u16
            });
        }
        names
    }

    /// Removes a segment that holds nothing worth keeping. Readers that hold it may finish. What is in it is `forgotten`
    /// when its file is gone and its bytes can still be read.
    pub(crate) fn remove(&self, id: u32, forgotten: impl FnOnce()) -> Result<()> {
        let Some(segment) = self.segment(id) else { return Ok(()) };
        match self.media.remove(&segment_path(&self.dir, id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // It stays the oldest: were a younger one removed first, the next open would find the entries in here
                // without the tombstones in there.
                return Err(StoreError::io("remove a segment", 0)(error));
            }
            _ => {}
        }
        forgotten();
        self.segments.write().remove(&id);
        self.space.log.fetch_sub(blocks(segment.len.load(Relaxed)), Relaxed);
        Ok(())
    }
}

/// What the footer will take, the names of spaces left out but for that of the next record.
pub(super) fn footer_len(rows: usize, based: usize) -> u64 {
    (rows * ROW_LEN + based * REF_LEN + TRAILER_LEN + 256) as u64
}
