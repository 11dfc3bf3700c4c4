//! Mending a store: entries whose place in the log is lost are rebuilt from their payload files.
//!
//! A payload file begins with the whole record of the first entry that came with it. So that entry can be had again; others that
//! shared the file, and all that lay in the log alone, cannot. Expiry and group are the ones it was put with; a pin is not in there.
//!
//! Nothing that is whole is lost on the way, wherever it ends: an orphan is moved out of the reach of the sweep before the store is
//! opened, and removed after the entry that was rebuilt from it is synced. A repair that was interrupted goes on with the next.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blobs;
use crate::directory;
use crate::examine::{Examination, Inscription, Plan, inscription, plan};
use crate::format::{Row, payload_check};
use crate::media::Media;
use crate::ops::{Condition, PutRequest};
use crate::quarantine::Quarantine;
use crate::store::Store;
use crate::{OpenError, Options, Result, StoreError};

/// Entries rebuilt between two syncs: as many files are there twice.
const BATCH: usize = 64;

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What was found before.
    pub found: Examination,
    /// Entries that were rebuilt from their payload files.
    pub rebuilt: u64,
    /// Payload files that were no good, and were removed.
    pub dropped: u64,
    /// What is left to do: see [`Store::rewrite_through`].
    pub damaged_through: Option<u32>,
}

impl Store {
    /// Opens a store and rebuilds what can be rebuilt. The caller checks every entry then, and has what is damaged of the log
    /// rewritten.
    ///
    /// # Errors
    /// As [`Store::open`]; and when something cannot be read or written. What was whole before is there then, and the next repair
    /// goes on.
    pub fn open_repaired(options: Options) -> Result<(Self, Repaired), OpenError> {
        let media = Arc::clone(&options.media);
        let dir = options.dir.clone();
        let lock = directory::lock(&*media, &dir)?;
        let plan = plan(&*media, &dir)?;
        if let Some(id) = plan.found.unreadable_segments.first() {
            let source = std::io::Error::other("its medium does not give it; nothing was changed");
            let path = crate::log::segment_path(&dir.join(crate::log::DIR), *id);
            return Err(OpenError::Io { action: "read", path, source });
        }
        set_apart(&*media, &dir, &plan).map_err(OpenError::io("move orphans in", &dir))?;
        drop(lock);
        let store = Self::open(options)?;
        let rebuilding = Rebuilding { store: &store, media: &*media, dir: &dir, plan: &plan };
        let mut repaired = Repaired { found: plan.found.clone(), ..Repaired::default() };
        let done = rebuilding.mend_records(&mut repaired).and_then(|()| rebuilding.rebuild(&mut repaired));
        done.map_err(|error| OpenError::Io {
            action: "rebuild entries in",
            path: dir.clone(),
            source: std::io::Error::other(error),
        })?;
        let found = &repaired.found;
        let lost_before = found.lost_before.iter().map(|id| id - 1);
        let mut through = found.damaged_segments.iter().copied().chain(lost_before).max();
        if found.damaged_records > 0 {
            through = store.inner.log.all().iter().map(|segment| segment.id).max();
        }
        repaired.damaged_through = through;
        Ok((store, repaired))
    }
}

/// Moves orphans whose entry can be rebuilt to where no sweep takes them.
fn set_apart(media: &dyn Media, dir: &Path, plan: &Plan) -> std::io::Result<()> {
    if plan.rebuildable.is_empty() {
        return Ok(());
    }
    let blob_dir = dir.join(blobs::DIR);
    let waiting = Quarantine::waiting_path(dir, "");
    let waiting = waiting.parent().unwrap_or(dir);
    media.create_dir(waiting)?;
    for name in &plan.rebuildable {
        media.rename(&blob_dir.join(name), &Quarantine::waiting_path(dir, name))?;
    }
    media.sync_dir(waiting)?;
    media.sync_dir(&blob_dir)
}

struct Rebuilding<'a> {
    store: &'a Store,
    media: &'a dyn Media,
    dir: &'a Path,
    plan: &'a Plan,
}

impl Rebuilding<'_> {
    /// Writes records again that were damaged, and whose payload file has all that was in them.
    fn mend_records(&self, repaired: &mut Repaired) -> Result<()> {
        for (row, name) in &self.plan.mendable {
            let path = self.dir.join(blobs::DIR).join(name);
            let Some((inscription, payload)) = self.whole(&path)? else { continue };
            let (seq, request) = (row.seq, request_of(row, &inscription, &payload));
            let Some(version) = self.store.put(&request, Condition::Version(seq))? else { continue };
            debug_assert!(version > seq, "versions grow");
            repaired.rebuilt += 1;
        }
        Ok(())
    }

    /// Puts again what the files that wait are of, the youngest first, and frees them.
    fn rebuild(&self, repaired: &mut Repaired) -> Result<()> {
        let mut waiting: Vec<(u64, PathBuf, u64)> = Vec::new();
        let files =
            Quarantine::waiting(self.dir, self.media).map_err(StoreError::io("list the quarantine", 0))?;
        for (_, path, len) in files {
            let inscription = inscription(self.media, &path, self.plan.seed);
            let inscription = inscription.map_err(StoreError::io("read a payload file", 0))?;
            let made_ms = inscription.map_or(0, |inscription| inscription.header.created_ms);
            waiting.push((made_ms, path, len));
        }
        waiting.sort_unstable_by(|one, other| other.cmp(one));
        for batch in waiting.chunks(BATCH) {
            for (_, path, _) in batch {
                match self.whole(path)? {
                    Some((inscription, payload)) => self.put(&inscription, &payload, repaired)?,
                    None => repaired.dropped += 1,
                }
            }
            self.store.sync()?;
            for (_, path, len) in batch {
                let freed = self.store.inner.quarantine.drop_waiting(path, *len);
                freed.map_err(StoreError::io("remove a payload file", 0))?;
            }
        }
        Ok(())
    }

    fn put(&self, inscription: &Inscription, payload: &[u8], repaired: &mut Repaired) -> Result<()> {
        // Of a repair that was interrupted: since then the key may have been put again, or deleted. What it put itself may have lost
        // its payload to a power cut.
        let is_there = match self.store.peek(&inscription.space, &inscription.key) {
            Ok(there) => there.is_some() || self.plan.known.contains(&inscription.hash),
            Err(StoreError::Corrupt { .. }) => false,
            Err(error) => return Err(error),
        };
        if is_there {
            return Ok(());
        }
        if self.store.put(&request(inscription, payload), Condition::Absent)?.is_some() {
            repaired.rebuilt += 1;
        }
        Ok(())
    }

    /// The entry in a payload file, if all of it is whole.
    fn whole(&self, path: &Path) -> Result<Option<(Inscription, Vec<u8>)>> {
        let read = || -> std::io::Result<Option<(Inscription, Vec<u8>)>> {
            let Some(inscription) = inscription(self.media, path, self.plan.seed)? else { return Ok(None) };
            let header = &inscription.header;
            let mut payload = vec![0; header.payload_len as usize];
            match self.media.open(path, false)?.read_at(&mut payload, header.body_offset() as u64) {
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
                read => read?,
            }
            let is_whole = payload_check(&payload, self.plan.seed) == header.payload_check;
            Ok(is_whole.then_some((inscription, payload)))
        };
        read().map_err(StoreError::io("read a payload file", 0))
    }
}

fn request<'a>(inscription: &'a Inscription, payload: &'a [u8]) -> PutRequest<'a> {
    let Inscription { header, space, key, head, .. } = inscription;
    PutRequest {
        space,
        key,
        head,
        payload,
        digest: None,
        logical_len: header.logical_len,
        cost_ms: header.cost_ms,
        created_ms: header.created_ms,
        expires_ms: (header.expires_ms != 0).then_some(header.expires_ms),
        group: header.group,
    }
}

/// The same, with what a row knows better.
fn request_of<'a>(row: &Row, inscription: &'a Inscription, payload: &'a [u8]) -> PutRequest<'a> {
    PutRequest {
        created_ms: row.created_ms,
        expires_ms: (row.expires_ms != 0).then_some(row.expires_ms),
        group: row.group,
        ..request(inscription, payload)
    }
}
