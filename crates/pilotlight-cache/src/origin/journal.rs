//! The queue's file: what waits to be sent, so that a restart forgets none of it.
//!
//! Records are appended, never changed. A crash may cut the last one off: replaying stops there, and the file is cut to what was
//! read. That something was done may be lost with it; then it is done again, which changes nothing at the origin.
//!
//! The file begins with `PLoq`, 1 (1 byte) and three zeros. A record is the length of what follows the check (4 bytes), XXH3-64 of
//! that (8 bytes), what it says (1 byte), the length of the namespace (1 byte), the namespace, the key. Numbers are little-endian.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::{KEY_LEN_MAX, Key, Namespace};

const FILE: &str = "queue";
/// The file while it is written anew.
const FILE_NEW: &str = "queue.new";
const START: [u8; 8] = *b"PLoq\x01\0\0\0";
const BEFORE_LEN: usize = 12;
/// What a record says, a namespace and a key.
const RECORD_LEN_MAX: usize = 2 + 255 + KEY_LEN_MAX;

/// What a record says of a key, or of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Says {
    /// Its entry is to be put.
    Upload = 1,
    /// The same, where nothing is.
    UploadFirst = 2,
    /// Its object is to be deleted.
    Remove = 3,
    /// Nothing is to be done any more.
    Done = 4,
    /// All objects of the namespace are to be deleted, and what was to be done before is not.
    Clear = 5,
    /// They are deleted.
    Cleared = 6,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) says: Says,
    /// Of the namespace alone for [`Says::Clear`] and [`Says::Cleared`].
    pub(super) key: Key,
}

impl Says {
    fn of_number(number: u8) -> Option<Self> {
        let known = [Self::Upload, Self::UploadFirst, Self::Remove, Self::Done, Self::Clear, Self::Cleared];
        known.into_iter().find(|known| *known as u8 == number)
    }
}

/// Appends a record to bytes that are to be written.
pub(super) fn encode(says: Says, key: &Key, into: &mut Vec<u8>) {
    let (namespace, key) = (key.namespace().as_str().as_bytes(), key.bytes());
    let len = 2 + namespace.len() + key.len();
    let start = into.len();
    into.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    into.extend_from_slice(&[0; 8]);
    // A namespace is at most 255 bytes long.
    into.extend_from_slice(&[says as u8, u8::try_from(namespace.len()).unwrap_or(u8::MAX)]);
    into.extend_from_slice(namespace);
    into.extend_from_slice(key);
    let check = into.get(start + BEFORE_LEN..).map_or(0, xxh3_64);
    if let Some(place) = into.get_mut(start + 4..start + BEFORE_LEN) {
        place.copy_from_slice(&check.to_le_bytes());
    }
}

/// The record that these bytes begin with, and those behind it.
fn decode(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (check, rest) = rest.split_first_chunk()?;
    let len = u32::from_le_bytes(*len) as usize;
    let (body, rest) = rest.split_at_checked(len).filter(|_| len <= RECORD_LEN_MAX)?;
    if xxh3_64(body) != u64::from_le_bytes(*check) {
        return None;
    }
    let (says, body) = body.split_first()?;
    let (namespace_len, body) = body.split_first()?;
    let (namespace, key) = body.split_at_checked(usize::from(*namespace_len))?;
    let namespace = Namespace::new(std::str::from_utf8(namespace).ok()?).ok()?;
    let record = Record { says: Says::of_number(*says)?, key: Key::in_namespace(namespace, key.to_vec()) };
    Some((record, rest))
}

/// The file, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    file: File,
    len: u64,
}

impl Journal {
    /// Opens the file in `dir`, and says what is in it, oldest first. A file that is none of ours is left alone, and refused.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Vec<Record>)> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join(FILE);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut records = Vec::new();
        let mut rest = match bytes.strip_prefix(&START[..]) {
            Some(rest) => rest,
            // New, or cut off when it was new.
            None if START.starts_with(&bytes) => &[],
            None => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no queue of this version"));
            }
        };
        while let Some((record, behind)) = decode(rest) {
            records.push(record);
            rest = behind;
        }
        let len = (bytes.len() - rest.len()).max(START.len()) as u64;
        if bytes.len() < START.len() {
            file.rewind()?;
            file.write_all(&START)?;
        }
        file.set_len(len)?;
        file.seek(SeekFrom::Start(len))?;
        Ok((Self { dir: dir.to_owned(), file, len }, records))
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Appends encoded records: the kernel has them then, so that `kill -9` loses none.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // What got there in part would hide what is appended behind it.
                self.file.set_len(self.len)?;
                self.file.seek(SeekFrom::Start(self.len))?;
                Err(error)
            }
        }
    }

    /// Forgets all of it.
    pub(super) fn reset(&mut self) -> io::Result<()> {
        self.file.set_len(START.len() as u64)?;
        self.len = START.len() as u64;
        self.file.seek(SeekFrom::Start(self.len)).map(drop)
    }

    /// Writes it anew with these records alone: the old one counts until the new one is whole.
    pub(super) fn rewrite(&mut self, records: &[u8]) -> io::Result<()> {
        let (path, path_new) = (self.dir.join(FILE), self.dir.join(FILE_NEW));
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path_new)?;
        file.write_all(&START)?;
        file.write_all(records)?;
        file.sync_data()?;
        std::fs::rename(&path_new, &path)?;
        File::open(&self.dir)?.sync_all()?;
        self.len = (START.len() + records.len()) as u64;
        self.file = file;
        Ok(())
    }

    /// A second handle, to sync by without holding up who appends.
    pub(super) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let namespace = Namespace::new("team").unwrap();
        let record = |says, key| Record { says, key };
        vec![
            record(Says::Upload, Key::new("a")),
            record(Says::UploadFirst, Key::in_namespace(namespace.clone(), "b")),
            record(Says::Remove, Key::new(vec![0xff; 300])),
            record(Says::Done, Key::new("a")),
            record(Says::Clear, Key::in_namespace(namespace.clone(), "")),
            record(Says::Cleared, Key::in_namespace(namespace, "")),
        ]
    }

    fn bytes_of(records: &[Record]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in records {
            encode(record.says, &record.key, &mut bytes);
        }
        bytes
    }

    #[test]
    fn what_was_appended_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, found) = Journal::open(dir.path()).unwrap();
        assert_eq!(found, []);
        journal.append(&bytes_of(&records())).unwrap();
        drop(journal);
        let (mut journal, found) = Journal::open(dir.path()).unwrap();
        assert_eq!(found, records());
        journal.rewrite(&bytes_of(&records()[..1])).unwrap();
        journal.append(&bytes_of(&records()[1..2])).unwrap();
        drop(journal);
        let (mut journal, found) = Journal::open(dir.path()).unwrap();
        assert_eq!(found, records()[..2]);
        journal.reset().unwrap();
        journal.append(&bytes_of(&records()[3..])).unwrap();
        drop(journal);
        assert_eq!(Journal::open(dir.path()).unwrap().1, records()[3..]);
    }

    #[test]
    fn any_cut_leaves_the_records_before_it_and_what_is_appended_then() {
        let (records, bytes) = (records(), [&START[..], &bytes_of(&records())].concat());
        let ends: Vec<usize> =
            (0..=records.len()).map(|count| 8 + bytes_of(&records[..count]).len()).collect();
        for cut in 0..=bytes.len() {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(FILE), &bytes[..cut]).unwrap();
            let (mut journal, found) = Journal::open(dir.path()).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
            assert_eq!(found, records[..whole], "cut at {cut}");
            journal.append(&bytes_of(&records[..1])).unwrap();
            drop(journal);
            assert_eq!(Journal::open(dir.path()).unwrap().1.len(), whole + 1, "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_byte_ends_what_is_read_and_a_foreign_file_is_refused() {
        let bytes = [&START[..], &bytes_of(&records())].concat();
        for place in 0..bytes.len() {
            let dir = tempfile::tempdir().unwrap();
            let mut flipped = bytes.clone();
            flipped[place] ^= 1;
            std::fs::write(dir.path().join(FILE), &flipped).unwrap();
            match Journal::open(dir.path()) {
                Ok((_, found)) => assert!(place >= 8 && records().starts_with(&found), "flipped at {place}"),
                Err(_) => {
                    assert!(place < 8, "flipped at {place}");
                    assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap(), flipped);
                }
            }
        }
    }
}
