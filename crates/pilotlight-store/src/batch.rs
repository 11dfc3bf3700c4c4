//! Records that go into their files with one system call for each.

use std::io;
use std::mem;
use std::sync::Arc;

use crate::Durability;
use crate::log::Segment;

/// Records that go into their files together, in order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) chunks: Vec<Chunk>,
    /// The sequence number of the first record that was given one; 0 if none was.
    pub(crate) first_seq: u64,
    /// Of the last.
    pub(crate) last_seq: u64,
    /// Reused for the next chunk.
    pub(crate) spare_bytes: Vec<u8>,
}

/// Neighbouring bytes of one segment.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) segment: Arc<Segment>,
    /// Where they go, in bytes.
    pub(crate) from: u64,
    pub(crate) bytes: Vec<u8>,
    /// How many of them are records; a footer may follow.
    records_len: usize,
    /// Rows of the segment before these records.
    pub(crate) rows: usize,
}

impl Batch {
    /// Adds a record to what goes to `segment`, whose bytes so far end at `end`, behind `rows` rows.
    pub(crate) fn add_record(&mut self, segment: &Arc<Segment>, end: u64, rows: usize, parts: &[&[u8]]) {
        let chunk = self.chunk(segment, end, rows);
        parts.iter().for_each(|part| chunk.bytes.extend_from_slice(part));
        chunk.records_len = chunk.bytes.len();
    }

    /// Adds the footer that `segment` ends in.
    pub(crate) fn add_footer(&mut self, segment: &Arc<Segment>, end: u64, rows: usize, footer: &[u8]) {
        self.chunk(segment, end, rows).bytes.extend_from_slice(footer);
    }

    fn chunk(&mut self, segment: &Arc<Segment>, end: u64, rows: usize) -> &mut Chunk {
        if self.chunks.last().is_none_or(|chunk| chunk.segment.id != segment.id) {
            let (segment, bytes) = (segment.clone(), mem::take(&mut self.spare_bytes));
            self.chunks.push(Chunk { segment, from: end, bytes, records_len: 0, rows });
        }
        #[expect(clippy::expect_used, reason = "one was pushed if there was none")]
        self.chunks.last_mut().expect("a chunk")
    }

    /// Notes that a record was given `seq`.
    pub(crate) fn note_seq(&mut self, seq: u64) {
        if self.first_seq == 0 {
            self.first_seq = seq;
        }
        self.last_seq = seq;
    }

    /// Bytes of `segment`, if they are in here.
    pub(crate) fn read(&self, segment: u32, offset: u64, len: usize) -> Option<Vec<u8>> {
        let chunk = self.chunks.iter().find(|chunk| chunk.segment.id == segment && chunk.from <= offset)?;
        let from = usize::try_from(offset - chunk.from).ok()?;
        chunk.bytes.get(from..from.checked_add(len)?).map(<[u8]>::to_vec)
    }

    pub(crate) fn write(&self, durability: Durability) -> io::Result<()> {
        self.chunks.iter().try_for_each(|chunk| chunk.write(durability))
    }
}

impl Chunk {
    fn write(&self, durability: Durability) -> io::Result<()> {
        let file = &self.segment.file;
        let Some((records, footer)) = self.bytes.split_at_checked(self.records_len) else { return Ok(()) };
        if footer.is_empty() || durability == Durability::Relaxed {
            return file.write_at(&[&self.bytes], self.from);
        }
        file.write_at(&[records], self.from)?;
        // An open believes a footer. Were it down before the records it tells of, a power cut would leave a key with the
        // name of a put that is lost, and hide the acknowledged one before it. Without a footer the segment is scanned.
        if file.sync_data().is_ok() {
            file.write_at(&[footer], self.from + records.len() as u64)?;
        }
        Ok(())
    }
}
