//! Payload files that nothing refers to: what a crash, a failed removal, or a person left in the directory.
//!
//! They are found while the store is in use. So a file counts as known while it is written or moved, before its name is there,
//! and as no name is used twice, one that is there and not known never will be: see [`crate::blobs`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use crate::blobs::{Blobs, DIR, POOLED_LEN, State};
use crate::media::Names;
use crate::space::file_bytes;

/// Keeps a file from being taken for an orphan while it is written or moved.
#[derive(Debug)]
pub(crate) struct Busy<'a> {
    blobs: &'a Blobs,
    generation: u64,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.blobs.state.lock().busy.remove(&self.generation);
    }
}

impl Blobs {
    pub(crate) fn note_busy(&self, state: &mut State, generation: u64) -> Busy<'_> {
        state.busy.insert(generation);
        Busy { blobs: self, generation }
    }

    /// The names of all files.
    pub(crate) fn names(&self) -> io::Result<Names> {
        self.media.names(&self.dir.join(DIR))
    }

    /// The files that no entry holds, with their lengths in bytes, as they are found.
    pub(crate) fn orphans(&self) -> io::Result<impl Iterator<Item = io::Result<(PathBuf, u64)>>> {
        Ok(self.names()?.filter_map(|name| name.and_then(|name| self.orphan(&name)).transpose()))
    }

    /// The file of this name with its length in bytes, if it is there and no entry, reader or writer holds it.
    pub(crate) fn orphan(&self, name: &str) -> io::Result<Option<(PathBuf, u64)>> {
        if self.is_known(name) {
            return Ok(None);
        }
        let path = self.dir.join(DIR).join(name);
        match self.media.length(&path) {
            Ok(len) => Ok(len.map(|len| (path, len))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_known(&self, name: &str) -> bool {
        let Some((digest, generation)) = parse(name) else { return false };
        let state = self.state.lock();
        state.held.get(digest).is_some_and(|blob| blob.generation == generation)
            || state.leaving.contains_key(&(digest, generation))
            || state.busy.contains(&generation)
    }

    /// Removes an orphan. Only one that could not be removed is counted among the store's bytes.
    pub(crate) fn remove_orphan(&self, path: &Path, len: u64) -> io::Result<()> {
        let removed = self.media.remove(path);
        let mut state = self.state.lock();
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                state.stuck.entry(path.to_owned()).or_insert_with(|| {
                    self.space.blobs.fetch_add(file_bytes(len), Relaxed);
                    len
                });
                return Err(error);
            }
            _ => {}
        }
        if let Some(len) = state.stuck.remove(path) {
            self.space.blobs.fetch_sub(file_bytes(len), Relaxed);
        }
        Ok(())
    }

    /// Removes the files that wait for a payload.
    pub(crate) fn drain_pool(&self) -> io::Result<()> {
        loop {
            let Some(pooled) = self.state.lock().pool.pop() else { return Ok(()) };
            self.media.remove(&pooled.path)?;
            self.space.blobs.fetch_sub(file_bytes(POOLED_LEN), Relaxed);
        }
    }
}

/// Digest and generation of a payload file's name.
pub(crate) fn parse(name: &str) -> Option<(u128, u64)> {
    let (digest, generation) = name.split_once('.')?;
    Some((u128::from_str_radix(digest, 16).ok()?, u64::from_str_radix(generation, 16).ok()?))
}
