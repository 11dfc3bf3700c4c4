//! The file system as the store uses it. Behind traits, so that a test can tear writes, lose syncs and fill the disk.
//!
//! What is absent here: renaming over an existing file (ext4 flushes the data then, which costs milliseconds).

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::Arc;

/// Files by path.
pub trait Media: Send + Sync + Debug {
    /// Makes a new file, open for reading and writing; fails if it exists.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn MediaFile>>;
    /// Opens a file for reading and, if `writable`, for writing.
    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn MediaFile>>;
    /// Renames a file to a name that is not taken.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in no order: files with their lengths in bytes, everything else without.
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, Option<u64>)>>;
    /// The names in a directory of any size, in no order, as they are read. Of those that come or go meanwhile some are among
    /// them.
    fn names(&self, dir: &Path) -> io::Result<Names>;
    /// The length of a file in bytes; `None` if the name is something else's.
    fn length(&self, path: &Path) -> io::Result<Option<u64>>;
    /// Makes a directory and its parents, if it is not there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a directory survive a power cut.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes everything on the file system of `dir` survive a power cut, whoever wrote it.
    fn sync_file_system(&self, dir: &Path) -> io::Result<()>;
    /// Locks a file, made if it is not there, for as long as the guard lives; `WouldBlock` if another has it locked,
    /// `ReadOnlyFilesystem` where nobody can write it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
}

/// See [`Media::names`].
pub type Names = Box<dyn Iterator<Item = io::Result<String>>>;

/// Keeps a file locked while it lives.
pub trait Lock: Send + Sync + Debug {}

/// One open file.
pub trait MediaFile: Send + Sync + Debug {
    /// Fills `buffer` from `offset` on; `UnexpectedEof` if the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// The same, if it can be done without waiting for the medium; `false`, and nothing useful in `buffer`, if not.
    fn read_at_nowait(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool>;
    /// Writes all of `parts`, one behind the other, from `offset` on, growing the file as needed.
    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Makes everything written so far survive a power cut.
    fn sync_data(&self) -> io::Result<()>;
}

/// The files in a directory, with their lengths in bytes.
pub(crate) fn files(media: &dyn Media, dir: &Path) -> io::Result<impl Iterator<Item = (String, u64)>> {
    Ok(media.list(dir)?.into_iter().filter_map(|(name, len)| Some((name, len?))))
}

/// Bytes free for us and in all on the file system of `dir`, as far as the system tells.
pub fn room(dir: &Path) -> Option<(u64, u64)> {
    let found = rustix::fs::statvfs(dir).ok()?;
    Some((found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize))
}

/// The real file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Media for Disk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn MediaFile>> {
        Ok(Arc::new(DiskFile(OpenOptions::new().read(true).write(true).create_new(true).open(path)?)))
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn MediaFile>> {
        Ok(Arc::new(DiskFile(OpenOptions::new().read(true).write(writable).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, Option<u64>)>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                // Removed since, by another thread of ours.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            let len = metadata.is_file().then_some(metadata.len());
            names.push((entry.file_name().to_string_lossy().into_owned(), len));
        }
        Ok(names)
    }

    fn names(&self, dir: &Path) -> io::Result<Names> {
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        Ok(Box::new(fs::read_dir(dir)?.map(name)))
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(metadata.is_file().then_some(metadata.len()))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent)?;
        }
        // Whoever can write here can run code on every reader: the owner alone may even look.
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn sync_file_system(&self, dir: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(dir)?)?)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(DiskFile(file))),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct DiskFile(File);

/// Closing it unlocks it.
impl Lock for DiskFile {}

/// What one system call takes: as many parts as a record is written in (prefix, payload, padding).
const PARTS: usize = 3;

impl MediaFile for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn read_at_nowait(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        let len = buffer.len();
        let flags = rustix::io::ReadWriteFlags::NOWAIT;
        match rustix::io::preadv2(&self.0, &mut [io::IoSliceMut::new(buffer)], offset, flags) {
            Ok(read) => Ok(read == len),
            // Some file systems cannot tell whether they would wait.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let slices: [_; PARTS] =
            std::array::from_fn(|i| IoSlice::new(parts.get(i).copied().unwrap_or_default()));
        let mut written = rustix::io::retry_on_intr(|| rustix::io::pwritev(&self.0, &slices, offset))?;
        // What a signal, a full disk or the system's limits cut off goes part by part, and tells what is wrong.
        let mut offset = offset + written as u64;
        for part in parts {
            let rest = part.get(written..).unwrap_or_default();
            written = written.saturating_sub(part.len());
            if !rest.is_empty() {
                self.0.write_all_at(rest, offset)?;
                offset += rest.len() as u64;
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_written_one_behind_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = Disk.create(&dir.path().join("file")).unwrap();
        let cases: [&[&[u8]]; 4] =
            [&[], &[b"ab"], &[b"", b"cd", b"e"], &[b"f", b"g", b"h", b"ij", b"", b"k"]];
        for parts in cases {
            file.set_len(7).unwrap();
            file.write_at(parts, 7).unwrap();
            let mut found = vec![0; file.length().unwrap() as usize - 7];
            file.read_at(&mut found, 7).unwrap();
            assert_eq!(found, parts.concat());
        }
    }
}
