use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use pilotlight_store::media::{Disk, Lock, Media, MediaFile, Names};

use super::{Call, Operation};

type Hook = Arc<dyn Fn(&Call<'_>) -> io::Result<()> + Send + Sync>;

/// A medium whose calls are counted, and seen by a hook first, which may have them fail.
#[derive(Debug)]
pub(crate) struct Watched {
    inner: Arc<dyn Media>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    hook: Mutex<Option<Hook>>,
    calls: Mutex<BTreeMap<Operation, u64>>,
    /// Files that were written to or synced, and whether the last of it was a write.
    written: Mutex<BTreeMap<PathBuf, bool>>,
    open: Arc<()>,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seen")
    }
}

impl Seen {
    fn call(&self, operation: Operation, path: &Path) -> io::Result<()> {
        *self.calls.lock().entry(operation).or_default() += 1;
        // Not locked while it runs: it may wait for others who come by here.
        let hook = self.hook.lock().clone();
        hook.map_or(Ok(()), |hook| hook(&Call { operation, path }))
    }
}

impl Watched {
    /// The disk, watched.
    pub(crate) fn disk() -> Arc<Self> {
        Self::over(Arc::new(Disk))
    }

    pub(crate) fn over(inner: Arc<dyn Media>) -> Arc<Self> {
        Arc::new(Self { inner, seen: Arc::default() })
    }

    /// Has `hook` run at each call from now on: it may act in between, or have the call fail.
    pub(crate) fn set(&self, hook: impl Fn(&Call<'_>) -> io::Result<()> + Send + Sync + 'static) {
        *self.seen.hook.lock() = Some(Arc::new(hook));
    }

    pub(crate) fn unset(&self) {
        *self.seen.hook.lock() = None;
    }

    /// How often `operation` was asked for.
    pub(crate) fn calls(&self, operation: Operation) -> u64 {
        self.seen.calls.lock().get(&operation).copied().unwrap_or(0)
    }

    /// Files that are open now.
    pub(crate) fn open_files(&self) -> usize {
        Arc::strong_count(&self.seen.open) - 1
    }

    /// The files that were written to or synced, with whether something in them is not synced.
    pub(crate) fn written(&self) -> BTreeMap<PathBuf, bool> {
        self.seen.written.lock().clone()
    }

    /// Forgets which files were written to.
    pub(crate) fn forget_written(&self) {
        self.seen.written.lock().clear();
    }

    fn watch(&self, path: &Path, file: Arc<dyn MediaFile>) -> Arc<dyn MediaFile> {
        let _open = self.seen.open.clone();
        Arc::new(WatchedFile { inner: file, path: path.to_owned(), seen: self.seen.clone(), _open })
    }
}

impl Media for Watched {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn MediaFile>> {
        self.seen.call(Operation::Create, path)?;
        self.inner.create(path).map(|file| self.watch(path, file))
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn MediaFile>> {
        self.inner.open(path, writable).map(|file| self.watch(path, file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.seen.call(Operation::Rename, from)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.seen.call(Operation::Remove, path)?;
        self.inner.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, Option<u64>)>> {
        self.seen.call(Operation::List, dir)?;
        self.inner.list(dir)
    }

    fn names(&self, dir: &Path) -> io::Result<Names> {
        self.seen.call(Operation::List, dir)?;
        self.inner.names(dir)
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        self.seen.call(Operation::Length, path)?;
        self.inner.length(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.seen.call(Operation::CreateDir, dir)?;
        self.inner.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.seen.call(Operation::SyncDir, dir)?;
        self.inner.sync_dir(dir)
    }

    fn sync_file_system(&self, dir: &Path) -> io::Result<()> {
        self.seen.call(Operation::SyncFileSystem, dir)?;
        self.inner.sync_file_system(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.inner.lock(path)
    }
}

#[derive(Debug)]
struct WatchedFile {
    inner: Arc<dyn MediaFile>,
    path: PathBuf,
    seen: Arc<Seen>,
    _open: Arc<()>,
}

impl WatchedFile {
    fn call(&self, operation: Operation) -> io::Result<()> {
        self.seen.call(operation, &self.path)
    }

    fn note_written(&self, is_written: bool) {
        self.seen.written.lock().insert(self.path.clone(), is_written);
    }
}

impl MediaFile for WatchedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.call(Operation::Read)?;
        self.inner.read_at(buffer, offset)
    }

    fn read_at_nowait(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        self.call(Operation::Read)?;
        self.inner.read_at_nowait(buffer, offset)
    }

    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.note_written(true);
        if let Err(error) = self.call(Operation::Write) {
            // A write that fails may have written a part.
            let bytes = parts.concat();
            self.inner.write_at(&[&bytes[..bytes.len() / 2]], offset)?;
            return Err(error);
        }
        self.inner.write_at(parts, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call(Operation::SetLen)?;
        self.inner.set_len(len)
    }

    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.call(Operation::Sync)?;
        self.inner.sync_data()?;
        self.note_written(false);
        Ok(())
    }
}
