use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use pilotlight_store::media::{Lock, Media, MediaFile, Names};

use super::file_system::{Change, FileSystem, Node};

/// A medium in memory.
#[derive(Debug)]
pub(crate) struct Simulated(Arc<Mutex<State>>);

type Recorder = Box<dyn FnMut(&FileSystem, &Change) + Send>;

struct State {
    files: FileSystem,
    locked: BTreeSet<PathBuf>,
    recorder: Option<Recorder>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State")
    }
}

impl Simulated {
    pub(crate) fn holding(files: FileSystem) -> Arc<Self> {
        let state = State { files, locked: BTreeSet::new(), recorder: None };
        Arc::new(Self(Arc::new(Mutex::new(state))))
    }

    /// Shows `recorder` every change from now on, before it is made.
    pub(crate) fn record(&self, recorder: impl FnMut(&FileSystem, &Change) + Send + 'static) {
        self.state().recorder = Some(Box::new(recorder));
    }

    pub(crate) fn files(&self) -> FileSystem {
        self.state().files.clone()
    }

    /// Changes what the medium holds, or takes.
    pub(crate) fn alter(&self, alter: impl FnOnce(&mut FileSystem)) {
        alter(&mut self.state().files);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    fn handle(&self, file: u64) -> Arc<dyn MediaFile> {
        Arc::new(OpenFile { state: self.0.clone(), file })
    }
}

impl State {
    fn change(&mut self, change: &Change) -> io::Result<u64> {
        if let Some(recorder) = &mut self.recorder {
            recorder(&self.files, change);
        }
        self.files.apply(change)
    }
}

impl Media for Simulated {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn MediaFile>> {
        let file = self.state().change(&Change::Create(path.to_owned()))?;
        Ok(self.handle(file))
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn MediaFile>> {
        let state = self.state();
        if writable && state.files.is_read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let file = state.files.file(path)?;
        drop(state);
        Ok(self.handle(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state().change(&Change::Rename(from.to_owned(), to.to_owned())).map(|_| ())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().change(&Change::Remove(path.to_owned())).map(|_| ())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, Option<u64>)>> {
        let state = self.state();
        if state.files.names.get(dir) != Some(&Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let in_dir = state.files.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let named = in_dir.map(|(path, node)| {
            let len = match node {
                Node::Dir => None,
                Node::File(file) => Some(state.files.files[file].now.len() as u64),
            };
            (path.file_name().unwrap().to_str().unwrap().to_owned(), len)
        });
        Ok(named.collect())
    }

    fn names(&self, dir: &Path) -> io::Result<Names> {
        Ok(Box::new(self.list(dir)?.into_iter().map(|(name, _)| Ok(name))))
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        let state = self.state();
        match state.files.names.get(path) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(Node::Dir) => Ok(None),
            Some(Node::File(file)) => Ok(Some(state.files.files[file].now.len() as u64)),
        }
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.files.names.get(dir) == Some(&Node::Dir) {
            return Ok(());
        }
        state.change(&Change::CreateDir(dir.to_owned())).map(|_| ())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().change(&Change::SyncDir(dir.to_owned())).map(|_| ())
    }

    fn sync_file_system(&self, _dir: &Path) -> io::Result<()> {
        self.state().change(&Change::SyncAll).map(|_| ())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut state = self.state();
        if state.files.is_read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if !state.locked.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        drop(state);
        Ok(Box::new(Locked { state: self.0.clone(), path: path.to_owned() }))
    }
}

#[derive(Debug)]
struct Locked {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

impl Lock for Locked {}

impl Drop for Locked {
    fn drop(&mut self) {
        self.state.lock().locked.remove(&self.path);
    }
}

#[derive(Debug)]
struct OpenFile {
    state: Arc<Mutex<State>>,
    file: u64,
}

impl OpenFile {
    fn change(&self, change: &Change) -> io::Result<()> {
        self.state.lock().change(change).map(|_| ())
    }
}

impl MediaFile for OpenFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let inode = self.state.lock().files.files[&self.file].clone();
        if inode.now.read(buffer, offset as usize) {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn read_at_nowait(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        self.read_at(buffer, offset).map(|()| true)
    }

    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let bytes = parts.concat().into();
        self.change(&Change::Write { file: self.file, bytes, offset: offset as usize })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(&Change::SetLen { file: self.file, len: len as usize })
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.state.lock().files.files[&self.file].now.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(&Change::Sync { file: self.file })
    }
}
