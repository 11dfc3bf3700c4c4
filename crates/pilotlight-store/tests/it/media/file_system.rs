use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::{BLOCK, Content};

/// A file system in memory, as it is now and as it would be if nothing more reached the medium. A copy costs little: what it
/// holds is shared until it changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileSystem {
    pub(super) names: Arc<BTreeMap<PathBuf, Node>>,
    pub(super) synced_names: Arc<BTreeMap<PathBuf, Node>>,
    /// What changed names since they were synced, in order.
    pub(super) renamings: Vec<Arc<Renaming>>,
    pub(super) files: Arc<BTreeMap<u64, Arc<Inode>>>,
    /// Bytes that fit, if that is limited.
    pub(crate) capacity: Option<u64>,
    pub(crate) is_read_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    /// By number.
    File(u64),
}

/// A file, whatever it is called.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    pub(super) now: Content,
    pub(super) synced: Content,
    /// What changed it since it was synced, in order.
    pub(super) edits: Vec<Edit>,
}

impl Inode {
    fn sync(&mut self) {
        self.synced = self.now.clone();
        self.edits.clear();
    }
}

#[derive(Debug, Clone)]
pub(super) enum Edit {
    Write { bytes: Arc<[u8]>, offset: usize },
    SetLen(usize),
}

#[derive(Debug)]
pub(super) enum Renaming {
    Add(PathBuf, Node),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Renaming {
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let (one, other) = match self {
            Self::Add(path, _) | Self::Remove(path) => (path, None),
            Self::Rename(from, to) => (from, Some(to)),
        };
        std::iter::once(one).chain(other)
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Add(path, node) => _ = names.insert(path.clone(), *node),
            Self::Rename(from, to) => {
                let node = names.remove(from).expect("what made the name came before");
                names.insert(to.clone(), node);
            }
            Self::Remove(path) => _ = names.remove(path),
        }
    }
}

/// What is done to a file system.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Create(PathBuf),
    CreateDir(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDir(PathBuf),
    Write { file: u64, bytes: Arc<[u8]>, offset: usize },
    SetLen { file: u64, len: usize },
    Sync { file: u64 },
    SyncAll,
}

impl FileSystem {
    /// A file system with one file, which is synced.
    pub(crate) fn with_file(path: &Path, bytes: &[u8]) -> Self {
        let mut files = Self::default();
        let dir = path.parent().unwrap();
        files.apply(&Change::CreateDir(dir.to_owned())).unwrap();
        let file = files.apply(&Change::Create(path.to_owned())).unwrap();
        files.apply(&Change::Write { file, bytes: bytes.into(), offset: 0 }).unwrap();
        files.apply(&Change::Sync { file }).unwrap();
        files.apply(&Change::SyncDir(dir.to_owned())).unwrap();
        files.apply(&Change::SyncDir(PathBuf::from("/"))).unwrap();
        files
    }

    /// As `du` counts, without what the file system needs for itself.
    pub(crate) fn disk_use(&self) -> u64 {
        let blocks = |node: &Node| match node {
            Node::Dir => 1,
            Node::File(file) => self.files[file].now.len().div_ceil(BLOCK) as u64,
        };
        self.names.values().map(blocks).sum::<u64>() * BLOCK as u64
    }

    /// The files under `dir`, in order.
    pub(crate) fn paths(&self, dir: &Path) -> Vec<PathBuf> {
        let is_file = |(path, node): &(&PathBuf, &Node)| path.starts_with(dir) && **node != Node::Dir;
        self.names.iter().filter(is_file).map(|(path, _)| path.clone()).collect()
    }

    /// What a file holds.
    pub(crate) fn read(&self, path: &Path) -> Vec<u8> {
        let content = &self.files[&self.file(path).expect("there is such a file")].now;
        let mut bytes = vec![0; content.len()];
        assert!(content.read(&mut bytes, 0));
        bytes
    }

    /// Has a file hold something else, as if it always had.
    pub(crate) fn overwrite(&mut self, path: &Path, bytes: &[u8]) {
        let file = self.file(path).expect("there is such a file");
        self.apply(&Change::SetLen { file, len: bytes.len() }).unwrap();
        self.apply(&Change::Write { file, bytes: bytes.into(), offset: 0 }).unwrap();
        self.apply(&Change::Sync { file }).unwrap();
    }

    /// Makes a change that the medium does not refuse.
    pub(crate) fn make(&mut self, change: &Change) {
        self.apply(change).unwrap();
    }

    /// What a file is called.
    pub(super) fn path(&self, file: u64) -> Option<PathBuf> {
        self.names.iter().find(|(_, node)| **node == Node::File(file)).map(|(path, _)| path.clone())
    }

    /// Does it, and gives the number of the file that was created, or 0.
    pub(super) fn apply(&mut self, change: &Change) -> io::Result<u64> {
        if self.is_read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        match change {
            Change::Create(path) => return self.create(path),
            Change::CreateDir(path) => self.create_dir(path),
            Change::Rename(from, to) => {
                self.file(from)?;
                assert!(!self.names.contains_key(to), "{} is taken", to.display());
                self.renaming(Renaming::Rename(from.clone(), to.clone()));
            }
            Change::Remove(path) => {
                self.file(path)?;
                self.renaming(Renaming::Remove(path.clone()));
            }
            Change::SyncDir(dir) => self.sync_dir(dir),
            Change::Write { file, bytes, offset } => self.write(*file, bytes, *offset)?,
            Change::SetLen { file, len } => {
                let inode = self.inode(*file);
                inode.now.set_len(*len);
                inode.edits.push(Edit::SetLen(*len));
            }
            Change::Sync { file } => self.inode(*file).sync(),
            Change::SyncAll => {
                Arc::make_mut(&mut self.files).values_mut().for_each(|inode| Arc::make_mut(inode).sync());
                self.synced_names = self.names.clone();
                self.renamings.clear();
            }
        }
        Ok(0)
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(file)) => Ok(*file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn inode(&mut self, file: u64) -> &mut Inode {
        Arc::make_mut(Arc::make_mut(&mut self.files).get_mut(&file).expect("a file that was created"))
    }

    fn renaming(&mut self, renaming: Renaming) {
        renaming.apply(Arc::make_mut(&mut self.names));
        self.renamings.push(Arc::new(renaming));
    }

    fn create(&mut self, path: &Path) -> io::Result<u64> {
        if self.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let dir = path.parent().unwrap();
        if !matches!(self.names.get(dir), Some(Node::Dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = self.files.last_key_value().map_or(1, |(last, _)| last + 1);
        Arc::make_mut(&mut self.files).insert(file, Arc::default());
        self.renaming(Renaming::Add(path.to_owned(), Node::File(file)));
        Ok(file)
    }

    fn create_dir(&mut self, path: &Path) {
        let Some(parent) = path.parent() else { return };
        self.create_dir(parent);
        if !self.names.contains_key(path) {
            self.renaming(Renaming::Add(path.to_owned(), Node::Dir));
        }
    }

    /// What else a change of a name in `dir` builds upon is synced with it: a file system keeps a rename whole.
    fn sync_dir(&mut self, dir: &Path) {
        let mut wanted = BTreeSet::new();
        let mut synced = Vec::new();
        let mut left = Vec::new();
        for renaming in self.renamings.drain(..).rev() {
            if renaming.paths().any(|path| path.parent() == Some(dir) || wanted.contains(path)) {
                wanted.extend(renaming.paths().cloned());
                synced.push(renaming);
            } else {
                left.push(renaming);
            }
        }
        let names = Arc::make_mut(&mut self.synced_names);
        synced.iter().rev().for_each(|renaming| renaming.apply(names));
        self.renamings = left.into_iter().rev().collect();
    }

    fn write(&mut self, file: u64, bytes: &Arc<[u8]>, offset: usize) -> io::Result<()> {
        let grown = (offset + bytes.len()).saturating_sub(self.files[&file].now.len()) as u64;
        let free = self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.disk_use()));
        // What lies in the last block of the file takes no other.
        let slack =
            (self.files[&file].now.len().next_multiple_of(BLOCK) - self.files[&file].now.len()) as u64;
        if grown > free.saturating_add(slack) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = self.inode(file);
        inode.now.write(bytes, offset);
        inode.edits.push(Edit::Write { bytes: bytes.clone(), offset });
        Ok(())
    }
}
