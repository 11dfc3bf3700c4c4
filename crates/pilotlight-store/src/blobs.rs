//! Payloads too large for the log: one file each, named by digest and generation, shared by all entries that hold the
//! same payload.
//!
//! A name is never used twice (see [`crate::generations`]) and no file is replaced by a rename (ext4 would flush it). On a disk
//! that evicts, making an inode costs thirty times what reusing one does, so a released file is emptied and kept for the next
//! payload, unless a reader is at it. It is renamed while it is empty: whoever counts the directory's bytes meanwhile sees none
//! twice. A file is a whole record with its payload inline: the log could be rebuilt from them.
//!
//! An entry holds the file of its payload, and that of its base if it has one: see [`crate::rewrite`].

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use crate::format::{BaseRef, Ref};
use crate::generations::Generations;
use crate::holds::{Blob, Hold, Holds, Role};
use crate::media::{Media, MediaFile, files};
use crate::quarantine::{self, Quarantine};
use crate::space::{Reservation, Space, file_bytes};
use crate::{Result, StoreError};

/// The directory of payload files, in the store's. One for all: ext4 and XFS find a name among ten millions in a moment,
/// and directories by prefix would cost a small store more than its entries.
pub(crate) const DIR: &str = "blobs";
/// The directory of empty files waiting for a payload.
pub(crate) const RECYCLE_DIR: &str = "recycle";
/// Released files kept for reuse: a few writers' worth.
const POOL_MAX: usize = 16;
/// What a file is cut to while it waits. Not to nothing: ext4 takes a file that was emptied and filled again for one being
/// replaced, and starts writing it out when it is closed.
pub(crate) const POOLED_LEN: u64 = 1;

/// All payload files of one store.
#[derive(Debug)]
pub(crate) struct Blobs {
    pub(crate) dir: PathBuf,
    pub(crate) media: Arc<dyn Media>,
    pub(crate) space: Arc<Space>,
    pub(crate) state: Mutex<State>,
    generations: Generations,
    quarantine: Arc<Quarantine>,
    /// Files written since the last sync. By name: a second of puts may write more files than a process may hold open.
    unsynced: Mutex<Vec<Ref>>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) held: Holds,
    /// Released blobs that a reader was still at, by name.
    pub(crate) leaving: HashMap<(u128, u64), Blob>,
    pub(crate) pool: Vec<Pooled>,
    /// Generations of files that are being written or moved.
    pub(crate) busy: HashSet<u64>,
    /// Files that could not be removed, with the bytes they are still counted with.
    pub(crate) stuck: HashMap<PathBuf, u64>,
}

/// An empty file waiting for a payload.
#[derive(Debug)]
pub(crate) struct Pooled {
    pub(crate) path: PathBuf,
    file: Arc<dyn MediaFile>,
}

/// A reader's hold on a file: while it lives, the file is not emptied.
#[derive(Debug)]
pub(crate) struct Pin<'a> {
    blobs: &'a Blobs,
    reference: Ref,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.blobs.unpin(&self.reference);
    }
}

impl Blobs {
    pub(crate) fn new(
        dir: PathBuf,
        media: Arc<dyn Media>,
        space: Arc<Space>,
        quarantine: Arc<Quarantine>,
    ) -> Self {
        Self {
            dir,
            media,
            space,
            state: Mutex::default(),
            generations: Generations::drawn(),
            quarantine,
            unsynced: Mutex::default(),
        }
    }

    /// Makes the directories that are not there, and says which.
    pub(crate) fn make_dirs(&self) -> io::Result<Vec<&'static str>> {
        let there = self.media.list(&self.dir)?;
        let mut made = Vec::new();
        for dir in [DIR, RECYCLE_DIR, quarantine::DIR] {
            if there.iter().all(|(name, _)| name != dir) {
                self.media.create_dir(&self.dir.join(dir))?;
                made.push(dir);
            }
        }
        Ok(made)
    }

    /// At recovery: counts one more entry, of this space, that holds the file.
    pub(crate) fn recover(&self, hold: &Hold, payload_len: u32, space: u16) {
        let Hold { reference, role } = hold;
        self.generations.note(reference.generation);
        let len = u64::from(reference.payload_offset) + u64::from(payload_len);
        let mut state = self.state.lock();
        match state.held.get(reference.digest) {
            Some(blob) if blob.generation > reference.generation => return,
            Some(blob) if blob.generation == reference.generation => {}
            Some(_) | None => {
                // The older file was quarantined, and then the payload came again: only the newer one is there.
                if let Some(older) = state.held.remove(reference.digest) {
                    self.space.blobs.fetch_sub(file_bytes(older.len), Relaxed);
                }
                self.space.blobs.fetch_add(file_bytes(len), Relaxed);
                state.held.insert(reference.digest, Blob::new(reference, len));
            }
        }
        state.held.change(reference, |blob| blob.take(*role, space));
    }

    /// Removes the files that waited for a payload when the store was closed or killed.
    pub(crate) fn clear_pool(&self) -> io::Result<()> {
        let dir = self.dir.join(RECYCLE_DIR);
        files(&*self.media, &dir)?.try_for_each(|(name, _)| self.media.remove(&dir.join(name)))
    }

    /// Holds the file with this digest once more, if there is one, and it is as long as it must be.
    pub(crate) fn hold(&self, digest: u128) -> io::Result<Option<Ref>> {
        let known = self.state.lock().held.get(digest).copied();
        let Some(Blob { generation, payload_offset, .. }) = known else { return Ok(None) };
        let reference = Ref { digest, generation, payload_offset };
        if !self.is_whole(&reference)? {
            return Ok(None);
        }
        let held = self.state.lock().held.change(&reference, |blob| blob.refs += 1);
        Ok(held.map(|_| reference))
    }

    /// Holds the file for an entry of `space` as its base, if it is still there, and not the base of another space's.
    /// Whoever has a base has read it.
    pub(crate) fn hold_base(&self, base: &BaseRef, space: u16) -> Option<Hold> {
        let mut state = self.state.lock();
        let blob = state.held.get(base.reference.digest)?;
        if blob.bases > 0 && blob.space != space {
            return None;
        }
        state.held.change(&base.reference, |blob| blob.take(Role::Base, space))?;
        Some(Hold { reference: base.reference, role: Role::Base })
    }

    /// Whether a file that is held is as long as it must be. Of one that records tell of, this is looked up when somebody else
    /// would hold it first: a power cut or a person may have cut it off, or taken it away. It is set aside then.
    fn is_whole(&self, reference: &Ref) -> io::Result<bool> {
        let known = self.state.lock().held.get(reference.digest).copied();
        let Some(blob) = known.filter(|blob| blob.generation == reference.generation) else {
            return Ok(false);
        };
        if blob.is_whole {
            return Ok(true);
        }
        let is_whole = match self.media.length(&self.path(reference)) {
            Ok(len) => len.is_some_and(|len| len >= blob.len),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if is_whole {
            self.state.lock().held.change(reference, |blob| blob.is_whole = true);
        } else {
            self.quarantine(reference);
        }
        Ok(is_whole)
    }

    /// Bytes of payloads that are there only because entries of `space` need them as bases.
    pub(crate) fn orphaned_bytes(&self, space: u16) -> u64 {
        self.state.lock().held.orphaned_bytes(space)
    }

    /// Writes `prefix` and `payload` into a file and holds it; or holds the file that another writer of the same payload
    /// finished meanwhile. What was promised for it is given back when it is counted.
    pub(crate) fn write(
        &self,
        digest: u128,
        prefix: &[u8],
        payload: &[u8],
        promised: Reservation<'_>,
        is_synced: bool,
    ) -> Result<Ref> {
        let len = (prefix.len() + payload.len()) as u64;
        let generation = self.generations.next();
        let reference = Ref { digest, generation, payload_offset: prefix.len() as u32 };
        let path = self.path(&reference);
        let _busy = self.note_busy(&mut self.state.lock(), generation);
        self.space.blobs.fetch_add(file_bytes(len), Relaxed);
        drop(promised);
        let file = self.begin(&path).map_err(|error| {
            self.space.blobs.fetch_sub(file_bytes(len), Relaxed);
            StoreError::io("begin a payload file", len)(error)
        })?;
        if let Err(error) = self.fill(&*file, prefix, payload, is_synced) {
            self.remove(&path, len);
            return Err(StoreError::io("write a payload file", len)(error));
        }
        if !is_synced {
            self.unsynced.lock().push(reference);
        }
        Ok(self.publish(reference, len))
    }

    fn publish(&self, reference: Ref, len: u64) -> Ref {
        let mut state = self.state.lock();
        let ours = Blob { is_whole: true, ..Blob::new(&reference, len) };
        if let Some(Blob { generation, payload_offset, .. }) = state.held.get(reference.digest).copied() {
            let theirs = Ref { generation, payload_offset, ..reference };
            state.held.change(&theirs, |blob| blob.refs += 1);
            drop(state);
            self.discard(reference.digest, ours);
            return theirs;
        }
        state.held.insert(reference.digest, Blob { refs: 1, ..ours });
        reference
    }

    /// An empty file of this name: a new one, or one that waited for a payload.
    fn begin(&self, path: &Path) -> io::Result<Arc<dyn MediaFile>> {
        let pooled = self.state.lock().pool.pop();
        let Some(pooled) = pooled else { return self.media.create(path) };
        self.space.blobs.fetch_sub(file_bytes(POOLED_LEN), Relaxed);
        self.media.rename(&pooled.path, path).inspect_err(|_| {
            let _ = self.media.remove(&pooled.path);
        })?;
        Ok(pooled.file)
    }

    fn fill(&self, file: &dyn MediaFile, prefix: &[u8], payload: &[u8], is_synced: bool) -> io::Result<()> {
        file.write_at(&[prefix, payload], 0)?;
        if is_synced {
            file.sync_data()?;
            self.media.sync_dir(&self.dir.join(DIR))?;
        }
        Ok(())
    }

    /// Removes a file that is counted with `len` bytes.
    fn remove(&self, path: &Path, len: u64) {
        match self.media.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // Still counted, so the bound holds; a collection removes it, or the sweep after the next open.
                tracing::warn!(%error, "cannot remove a payload file");
                self.state.lock().stuck.insert(path.to_owned(), len);
            }
            _ => {
                self.space.blobs.fetch_sub(file_bytes(len), Relaxed);
            }
        }
    }

    fn path(&self, reference: &Ref) -> PathBuf {
        self.dir.join(DIR).join(name(reference))
    }

    /// Lets go of the file once; the last one to let go frees it.
    pub(crate) fn release(&self, hold: &Hold) {
        let Hold { reference, role } = hold;
        let mut state = self.state.lock();
        if state.held.change(reference, |blob| blob.let_go(*role)).is_none_or(|blob| blob.refs > 0) {
            return;
        }
        let Some(blob) = state.held.remove(reference.digest) else { return };
        if blob.pins > 0 {
            state.leaving.insert((reference.digest, blob.generation), blob);
            return;
        }
        drop(state);
        self.discard(reference.digest, blob);
    }

    /// Frees a file that nobody holds: into the pool, or off the disk.
    fn discard(&self, digest: u128, blob: Blob) {
        let path = self.path(&Ref { digest, generation: blob.generation, payload_offset: 0 });
        if self.state.lock().pool.len() < POOL_MAX
            && let Ok(pooled) = self.to_pool(&path, &blob)
        {
            self.space.blobs.fetch_add(file_bytes(POOLED_LEN), Relaxed);
            self.space.blobs.fetch_sub(file_bytes(blob.len), Relaxed);
            self.state.lock().pool.push(pooled);
            return;
        }
        self.remove(&path, blob.len);
    }

    fn to_pool(&self, path: &Path, blob: &Blob) -> io::Result<Pooled> {
        let file = self.media.open(path, true)?;
        file.set_len(POOLED_LEN)?;
        let to = self.dir.join(RECYCLE_DIR).join(format!("old.{:x}", blob.generation));
        self.media.rename(path, &to)?;
        Ok(Pooled { path: to, file })
    }

    /// Keeps the file from being emptied while the pin lives; `None` if it is gone already.
    pub(crate) fn pin(&self, reference: &Ref) -> Option<Pin<'_>> {
        let mut state = self.state.lock();
        let blob = state.held.get_mut(reference.digest)?;
        if blob.generation != reference.generation {
            return None;
        }
        blob.pins += 1;
        Some(Pin { blobs: self, reference: *reference })
    }

    fn unpin(&self, reference: &Ref) {
        let mut state = self.state.lock();
        let name = (reference.digest, reference.generation);
        if let Some(blob) = state.leaving.get_mut(&name) {
            blob.pins -= 1;
            if blob.pins == 0
                && let Some(blob) = state.leaving.remove(&name)
            {
                drop(state);
                self.discard(reference.digest, blob);
            }
        } else if let Some(blob) = state.held.get_mut(reference.digest)
            && blob.generation == reference.generation
        {
            blob.pins -= 1;
        }
    }

    /// Opens the pinned file for reading.
    pub(crate) fn open(&self, pin: &Pin<'_>) -> io::Result<Arc<dyn MediaFile>> {
        self.media.open(&self.path(&pin.reference), false)
    }

    /// Moves a file that failed its check out of the way, and lets go of all who held it: their gets are misses now. Gives the
    /// number that it has in quarantine, if it is kept there.
    pub(crate) fn quarantine(&self, reference: &Ref) -> Option<u64> {
        let mut state = self.state.lock();
        let is_current =
            state.held.get(reference.digest).is_some_and(|blob| blob.generation == reference.generation);
        let blob = is_current.then(|| state.held.remove(reference.digest)).flatten()?;
        let _busy = self.note_busy(&mut state, reference.generation);
        drop(state);
        let path = self.path(reference);
        let number = self.quarantine.take_in(&path, reference.digest, blob.len);
        if number.is_none() {
            self.remove(&path, blob.len);
        }
        number
    }

    /// Makes every file written so far survive a power cut.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let unsynced = std::mem::take(&mut *self.unsynced.lock());
        if unsynced.is_empty() {
            return Ok(());
        }
        let sync = |reference: &Ref| match self.media.open(&self.path(reference), false) {
            Ok(file) => file.sync_data(),
            // Released meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        let result =
            unsynced.iter().try_for_each(sync).and_then(|()| self.media.sync_dir(&self.dir.join(DIR)));
        if result.is_err() {
            // None of them is known to be down: the next sync tries them all.
            self.unsynced.lock().extend(unsynced);
        }
        result
    }

    /// Files.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().held.len()
    }
}

/// What the file is called.
pub(crate) fn name(reference: &Ref) -> String {
    let Ref { digest, generation, .. } = reference;
    format!("{digest:032x}.{generation:x}")
}
