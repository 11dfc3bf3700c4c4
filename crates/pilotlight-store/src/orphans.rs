//! Payload files that nothing refers to: what a failed removal, or a person, left in the directory.
//!
//! An open sweeps them. Here they are found while the store is in use, which needs to know of files that are being written.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use crate::blobs::{Blobs, DIR, POOLED_LEN};
use crate::media::files;
use crate::space::file_bytes;

/// Keeps a file from being taken for an orphan while it is written.
#[derive(Debug)]
pub(crate) struct Writing<'a> {
    blobs: &'a Blobs,
    generation: u64,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.blobs.state.lock().writing.remove(&self.generation);
    }
}

impl Blobs {
    pub(crate) fn note_writing(&self, generation: u64) -> Writing<'_> {
        self.state.lock().writing.insert(generation);
        Writing { blobs: self, generation }
    }

    /// Every file that no entry holds, with its length.
    pub(crate) fn orphans(&self) -> io::Result<Vec<(PathBuf, u64)>> {
        let dir = self.dir.join(DIR);
        let mut orphans = Vec::new();
        for (name, len) in files(&*self.media, &dir)? {
            if !self.is_known(&name) {
                orphans.push((dir.join(name), len));
            }
        }
        Ok(orphans)
    }

    /// Whether an entry, a reader or a writer holds the file of this name.
    fn is_known(&self, name: &str) -> bool {
        let Some((digest, generation)) = parse(name) else { return false };
        let state = self.state.lock();
        state.held.get(digest).is_some_and(|blob| blob.generation == generation)
            || state.leaving.contains_key(&(digest, generation))
            || state.writing.contains(&generation)
    }

    /// Removes an orphan. Only what could not be removed before is counted among the store's bytes.
    pub(crate) fn remove_orphan(&self, path: &std::path::Path) -> io::Result<()> {
        match self.media.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(len) = self.state.lock().stuck.remove(path) {
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
