//! Walks the records in a segment's bytes.

use crate::format::{ALIGN, Record, decode_record};

/// Every record that passes its check, in order, with its offset in the segment. Bytes that are no record are passed
/// over, so that one damaged place costs the records it hit and no others.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    bytes: &'a [u8],
    offset: u64,
    seed: u64,
}

impl<'a> Records<'a> {
    /// The records of `bytes`, which is a segment from its start, from `offset` on.
    pub(crate) fn from(bytes: &'a [u8], offset: u64, seed: u64) -> Self {
        Self { bytes, offset, seed }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (u64, Record<'a>, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.bytes.get(usize::try_from(self.offset).ok()?..)?;
            if rest.is_empty() {
                return None;
            }
            let offset = self.offset;
            let Some(record) = decode_record(rest, self.seed) else {
                self.offset += ALIGN;
                continue;
            };
            let from = record.header.body_offset();
            let payload_len = if record.header.is_external { 0 } else { record.header.payload_len as usize };
            let Some(payload) = rest.get(from..from + payload_len) else {
                // The tail of the file is missing.
                self.offset += ALIGN;
                continue;
            };
            self.offset += record.header.record_len();
            return Some((offset, record, payload));
        }
    }
}

/// What a record's key field begins with: its space's length. The space and the key follow.
pub(crate) fn space_len(space: &[u8]) -> [u8; 1] {
    [u8::try_from(space.len()).unwrap_or(u8::MAX)]
}

/// Space and key of a record's key field.
pub(crate) fn split_key(joined: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = joined.split_first()?;
    rest.split_at_checked(usize::from(*len))
}
