//! Reads frames one after the other, and trusts none before its check passed.

use std::io::{self, Read};

use bytes::Bytes;

use super::Totals;
use super::frame::{FILE_MAGIC, Frame, FrameHead, FrameType, HEAD_LEN, PREAMBLE_LEN, VERSION, decode_head};

/// The longest fields of a frame, in bytes: an entry's key, or what a file tells of itself.
const FIELDS_LEN_MAX: u32 = 1 << 20;
/// What is taken at a time, so that a length that lies costs no memory.
const STEP: u64 = 1 << 20;

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The medium failed.
    #[error("could not read on at byte {offset}")]
    Io {
        /// Where.
        offset: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("this is no export of a Pilotlight store: at byte 0 is something else")]
    NotOurs,
    /// A later version wrote it.
    #[error("the file has version {found} at byte 8, expected 1 to {VERSION}")]
    TooNew {
        /// Its version.
        found: u32,
    },
    /// Bytes are not what was written.
    #[error("damage at byte {offset}: {what}")]
    Damaged {
        /// Where the damaged frame begins.
        offset: u64,
        /// What was expected and found.
        what: String,
    },
    /// The end is missing.
    #[error("the file breaks off at byte {offset}, in or before what begins at byte {frame_at}")]
    BrokenOff {
        /// How long it is.
        offset: u64,
        /// Where what is missing begins.
        frame_at: u64,
    },
}

impl Trouble {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } => "check that the file's disk is mounted and works",
            Self::NotOurs => "name a file that `pilotlight export` wrote",
            Self::TooNew { .. } => "use the newer Pilotlight that wrote it",
            Self::Damaged { .. } => "use another copy of the file, or export again",
            Self::BrokenOff { .. } => {
                "the export was interrupted: go on with `pilotlight export --resume`, or export again"
            }
        }
    }

    /// Whether the file is at fault, not whoever reads it.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::BrokenOff { .. })
    }
}

/// Reads frames.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    offset: u64,
    totals: Totals,
    is_at_end: bool,
}

impl<R: Read> Reader<R> {
    /// Of a file.
    ///
    /// # Errors
    /// For what is no export, or a later version's.
    pub fn of_file(from: R) -> Result<Self, Trouble> {
        let mut reader = Self::of_frames(from);
        let mut bytes = [0; PREAMBLE_LEN];
        let read = reader.fill(&mut bytes)?;
        let (magic, rest) = bytes.split_at(FILE_MAGIC.len());
        if magic != FILE_MAGIC {
            // A byte that was hit, or another's file.
            return Err(Trouble::NotOurs);
        }
        if read < PREAMBLE_LEN {
            return Err(Trouble::BrokenOff { offset: reader.offset, frame_at: 0 });
        }
        let version = rest.first_chunk().map_or(0, |version| u32::from_le_bytes(*version));
        if !(1..=VERSION).contains(&version) {
            return Err(Trouble::TooNew { found: version });
        }
        if !rest.ends_with(&[0; 4]) {
            let what = "the last four bytes of the preamble are not zero".to_owned();
            return Err(Trouble::Damaged { offset: 12, what });
        }
        Ok(reader)
    }

    /// Of frames alone, as they go over the wire.
    pub fn of_frames(from: R) -> Self {
        Self { from, offset: 0, totals: Totals::default(), is_at_end: false }
    }

    /// Where the next frame begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What was read so far.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The next frame; none behind the last one of a file, or where what came over the wire ends.
    ///
    /// # Errors
    /// [`Trouble`]; what was read before it is good.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Trouble> {
        let offset = self.offset;
        let damaged = |what: &str| Trouble::Damaged { offset, what: what.to_owned() };
        let mut head = [0; HEAD_LEN];
        let read = self.fill(&mut head)?;
        if self.is_at_end && read > 0 {
            return Err(damaged("there is more behind the last frame"));
        }
        if read == 0 {
            return Ok(None);
        }
        if read < HEAD_LEN {
            return Err(self.broken_off(offset));
        }
        let FrameHead { frame_type, fields_len, payload_len } =
            decode_head(&head).ok_or_else(|| damaged("the head of a frame fails its check"))?;
        if fields_len > FIELDS_LEN_MAX {
            return Err(damaged("the fields of a frame are too long"));
        }
        let fields = self.take(u64::from(fields_len), offset)?;
        let payload: Bytes = self.take(payload_len, offset)?.into();
        let frame = Frame::received(head, frame_type, fields, payload)
            .ok_or_else(|| damaged("a frame is not what its digest says"))?;
        if frame_type == FrameType::End {
            if frame.fields != self.totals.end().fields {
                return Err(damaged(
                    "frames are missing, or there are too many: the counts of the last one differ",
                ));
            }
            self.is_at_end = true;
        }
        self.totals.count(&frame);
        Ok(Some(frame))
    }

    /// The next frame of a file, which ends in its last frame and nowhere else.
    ///
    /// # Errors
    /// As [`Reader::next_frame`].
    pub fn next_of_file(&mut self) -> Result<Option<Frame>, Trouble> {
        match self.next_frame()? {
            None if !self.is_at_end => Err(self.broken_off(self.offset)),
            frame => Ok(frame),
        }
    }

    fn broken_off(&self, frame_at: u64) -> Trouble {
        Trouble::BrokenOff { offset: self.offset, frame_at }
    }

    fn take(&mut self, len: u64, frame_at: u64) -> Result<Vec<u8>, Trouble> {
        let mut bytes = Vec::with_capacity(len.min(STEP) as usize);
        let read = (&mut self.from).take(len).read_to_end(&mut bytes);
        self.offset += bytes.len() as u64;
        read.map_err(|source| Trouble::Io { offset: self.offset, source })?;
        if (bytes.len() as u64) < len { Err(self.broken_off(frame_at)) } else { Ok(bytes) }
    }

    /// Fills `buffer`, as far as there is something; gives how far.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.from.read(rest) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Trouble::Io { offset: self.offset + filled as u64, source }),
            }
        }
        self.offset += filled as u64;
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::portable::{Mark, Portable, preamble};
    use crate::{Cursor, Entry, Key, Namespace, envelope};

    fn portable(number: u64) -> Portable {
        let namespace = Namespace::new(if number.is_multiple_of(2) { "" } else { "team" }).unwrap();
        let sealed = envelope::seal(&Entry::new(vec![number as u8; 300])).unwrap();
        let expires_ms = (number == 1).then_some(7);
        Portable {
            key: Key::in_namespace(namespace, format!("key {number}")),
            expires_ms,
            is_pinned: number == 2,
            group: NonZeroU32::new(number as u32),
            sealed,
        }
    }

    fn file() -> Vec<u8> {
        let mut bytes = preamble().to_vec();
        let mut totals = Totals::default();
        Frame::new(FrameType::About, b"{}".to_vec(), Bytes::new()).write(&mut bytes).unwrap();
        for number in 0..3 {
            let frame = portable(number).to_frame();
            totals.count(&frame);
            frame.write(&mut bytes).unwrap();
        }
        let mark = Mark { namespace: Namespace::default(), next: Cursor(9), damaged: 1 };
        mark.to_frame().write(&mut bytes).unwrap();
        totals.end().write(&mut bytes).unwrap();
        bytes
    }

    /// All frames, or why not, and where the frame in question begins.
    fn read(bytes: &[u8]) -> Result<Vec<Frame>, Trouble> {
        let mut reader = Reader::of_file(bytes)?;
        let mut frames = Vec::new();
        while let Some(frame) = reader.next_of_file()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn what_was_written_is_read() {
        let frames = read(&file()).unwrap();
        let types: Vec<_> = frames.iter().map(Frame::frame_type).collect();
        use FrameType::{About, End, Entry, Mark as Marked};
        assert_eq!(types, [About, Entry, Entry, Entry, Marked, End]);
        for (number, frame) in (0..3).zip(&frames[1..4]) {
            let (found, expected) = (Portable::of_frame(frame).unwrap(), portable(number));
            assert_eq!(found.key, expected.key);
            assert_eq!((found.expires_ms, found.is_pinned), (expected.expires_ms, expected.is_pinned));
            assert_eq!(found.group, expected.group);
            assert_eq!(found.sealed.to_whole(), expected.sealed.to_whole());
        }
        let mark = Mark::of_frame(&frames[4]).unwrap();
        assert_eq!((mark.next, mark.damaged), (Cursor(9), 1));
    }

    #[test]
    fn a_file_of_version_1_is_read() {
        let mut bytes = file();
        bytes[8] = 1;
        assert_eq!(read(&bytes).unwrap().len(), read(&file()).unwrap().len());
        for version in [0, VERSION as u8 + 1] {
            bytes[8] = version;
            assert!(matches!(read(&bytes), Err(Trouble::TooNew { .. })), "version {version}");
        }
    }

    #[test]
    fn a_flipped_byte_anywhere_is_refused_and_told_by_its_place() {
        let whole = file();
        for at in 0..whole.len() {
            for bit in [0, 7] {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                let place = match read(&damaged).unwrap_err() {
                    Trouble::NotOurs => 0,
                    Trouble::TooNew { .. } => 8,
                    Trouble::Damaged { offset, .. } => offset,
                    other => panic!("byte {at}: {other}"),
                };
                assert!(place <= at as u64 && at as u64 - place < 500, "byte {at}, told {place}");
            }
        }
    }

    #[test]
    fn any_cut_is_refused_and_says_where() {
        let whole = file();
        for len in 8..whole.len() {
            match read(&whole[..len]).unwrap_err() {
                Trouble::BrokenOff { offset, .. } => assert_eq!(offset, len as u64),
                other => panic!("cut to {len}: {other}"),
            }
        }
        assert!(matches!(read(&[&whole[..], b"x"].concat()), Err(Trouble::Damaged { .. })));
    }

    #[test]
    fn a_frame_that_is_missing_or_there_twice_is_noticed_in_the_end() {
        let frames = read(&file()).unwrap();
        for (left_out, doubled) in [(Some(1), None), (Some(3), None), (None, Some(2))] {
            let mut bytes = preamble().to_vec();
            for (at, frame) in frames.iter().enumerate() {
                for _ in 0..usize::from(left_out != Some(at)) + usize::from(doubled == Some(at)) {
                    frame.write(&mut bytes).unwrap();
                }
            }
            assert!(matches!(read(&bytes), Err(Trouble::Damaged { .. })), "{left_out:?} {doubled:?}");
        }
    }

    #[test]
    fn a_length_that_lies_costs_no_memory() {
        let mut head = Vec::new();
        Frame::new(FrameType::Entry, Vec::new(), Bytes::new()).write(&mut head).unwrap();
        head[16..24].copy_from_slice(&(1u64 << 50).to_le_bytes());
        let check = xxhash_rust::xxh3::xxh3_64(&head[..24]).to_le_bytes();
        head[24..32].copy_from_slice(&check);
        let mut reader = Reader::of_frames(&head[..]);
        assert!(matches!(reader.next_frame(), Err(Trouble::BrokenOff { offset: 64, frame_at: 0 })));
    }
}
