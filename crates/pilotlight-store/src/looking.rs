//! A medium that is only looked at: every change is refused, as on a read-only disk.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::media::{Lock, Media, MediaFile, Names};

/// Another medium, which stays as it is. A store opened on it serves what is there, and nobody else may have it open meanwhile.
#[derive(Debug)]
pub struct LookingOnly {
    inner: Arc<dyn Media>,
    /// Held for as long as this lives.
    lock: Mutex<Option<Box<dyn Lock>>>,
}

impl LookingOnly {
    /// Looks at `inner`.
    #[must_use]
    pub fn at(inner: Arc<dyn Media>) -> Arc<Self> {
        Arc::new(Self { inner, lock: Mutex::default() })
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Media for LookingOnly {
    fn create(&self, _path: &Path) -> io::Result<Arc<dyn MediaFile>> {
        refused()
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn MediaFile>> {
        if writable { refused() } else { self.inner.open(path, false) }
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, Option<u64>)>> {
        self.inner.list(dir)
    }

    fn names(&self, dir: &Path) -> io::Result<Names> {
        self.inner.names(dir)
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        self.inner.length(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.list(dir).map(drop)
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_file_system(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Locks it for real, if that makes no file, and tells the store that nobody can write here.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        if self.inner.open(path, false).is_ok() {
            match self.inner.lock(path) {
                Ok(lock) => *self.lock.lock() = Some(lock),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                // Whoever may only read here need not keep others out.
                Err(_) => {}
            }
        }
        refused()
    }
}
