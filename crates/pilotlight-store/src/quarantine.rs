//! What failed its check and was set aside: what is kept of it for a person to look at, and what is noted of it.
//!
//! Of a payload file the file itself is kept, of what lies in the log a copy of its bytes; so many, and no more. All are noted,
//! up to a length. Notes are for people: one that cannot be written is left out, and nobody's get or put fails over it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use crate::directory::Access;
use crate::media::{Media, MediaFile, files};
use crate::notes::{self, Note};
use crate::space::{Space, file_bytes};

/// Its directory, in the store's.
pub(crate) const DIR: &str = "quarantine";
/// What the names of payload files begin with that wait for their entries to be rebuilt; the name they had follows.
const REBUILD: &str = "rebuild.";
/// What the names of files with notes begin with; their number follows.
const NOTES: &str = "notes.";
/// Files kept for a person to look at; later ones are removed.
const FILES_MAX: usize = 16;
/// What all notes may take, in bytes: those of some thousand entries. Later ones are left out until there is room again.
const NOTES_LEN_MAX: u64 = 256 << 10;

/// What is set aside in one store.
#[derive(Debug)]
pub(crate) struct Quarantine {
    dir: PathBuf,
    media: Arc<dyn Media>,
    space: Arc<Space>,
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    notes: BTreeMap<u64, Note>,
    /// Names of the kept files, and the bytes they are counted with.
    kept: BTreeMap<u64, (String, u64)>,
    last_number: u64,
    /// Files with notes, by number, and the bytes they are counted with. The last is appended to.
    written: BTreeMap<u64, u64>,
    /// Open once something was appended.
    open: Option<Arc<dyn MediaFile>>,
    is_unsynced: bool,
}

/// One thing that is set aside.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) number: u64,
    pub(crate) note: Option<Note>,
    /// The file that is kept, and its length in bytes.
    pub(crate) kept: Option<(PathBuf, u64)>,
}

impl Quarantine {
    pub(crate) fn new(dir: &Path, media: Arc<dyn Media>, space: Arc<Space>, seed: u64) -> Self {
        Self { dir: dir.join(DIR), media, space, seed, state: Mutex::default() }
    }

    /// At recovery: finds out what is there. Notes that cannot be read are as good as none.
    pub(crate) fn recover(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        for (name, len) in files(&*self.media, &self.dir)? {
            self.space.blobs.fetch_add(file_bytes(len), Relaxed);
            if let Some(number) = name.strip_prefix(NOTES).and_then(|number| number.parse().ok()) {
                let notes = self.read(&self.dir.join(&name), len).unwrap_or_default();
                state.notes.extend(notes.into_iter().map(|note| (note.number, note)));
                state.written.insert(number, len);
            } else if let Some(number) = name.split('.').next().and_then(|number| number.parse().ok()) {
                state.kept.insert(number, (name, len));
            }
        }
        let last = [state.notes.keys().max(), state.kept.keys().max()];
        state.last_number = last.into_iter().flatten().max().copied().unwrap_or(0);
        Ok(())
    }

    fn read(&self, path: &Path, len: u64) -> io::Result<Vec<Note>> {
        let mut bytes = vec![0; len.min(2 * NOTES_LEN_MAX) as usize];
        self.media.open(path, false)?.read_at(&mut bytes, 0)?;
        Ok(notes::decode(&bytes, self.seed))
    }

    /// Takes over a payload file that is counted with `len` bytes, if there is room for one more; gives the number it has then.
    pub(crate) fn take_in(&self, path: &Path, digest: u128, len: u64) -> Option<u64> {
        let mut state = self.state.lock();
        let (number, name) = self.next_file(&mut state, digest)?;
        self.media.rename(path, &self.dir.join(&name)).ok()?;
        state.kept.insert(number, (name, len));
        Some(number)
    }

    /// Keeps a copy of these bytes, if there is room for one more; gives the number it has then.
    pub(crate) fn copy(&self, hash: u128, parts: &[&[u8]]) -> Option<u64> {
        let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let mut state = self.state.lock();
        let (number, name) = self.next_file(&mut state, hash)?;
        let _reservation = self.space.try_reserve(file_bytes(len))?;
        let path = self.dir.join(&name);
        let file = self.media.create(&path).ok()?;
        self.space.blobs.fetch_add(file_bytes(len), Relaxed);
        if file.write_at(parts, 0).is_err() {
            // Still counted if it stays; the next open finds it.
            if self.media.remove(&path).is_ok() {
                self.space.blobs.fetch_sub(file_bytes(len), Relaxed);
            }
            return None;
        }
        state.kept.insert(number, (name, len));
        Some(number)
    }

    /// Frees a file whose entry was rebuilt, or is not worth it.
    pub(crate) fn drop_waiting(&self, path: &Path, len: u64) -> io::Result<()> {
        self.media.remove(path)?;
        self.space.blobs.fetch_sub(file_bytes(len), Relaxed);
        Ok(())
    }

    fn next_file(&self, state: &mut State, digest: u128) -> Option<(u64, String)> {
        if state.kept.len() >= FILES_MAX {
            return None;
        }
        state.last_number += 1;
        Some((state.last_number, format!("{}.{digest:032x}", state.last_number)))
    }

    /// Notes why the thing with this number was set aside, or one of which nothing is kept. The note's own number counts for
    /// nothing.
    pub(crate) fn note(&self, number: Option<u64>, note: Note, access: Access) {
        let mut state = self.state.lock();
        let number = number.unwrap_or_else(|| {
            state.last_number += 1;
            state.last_number
        });
        let note = Note { number, ..note };
        let line = notes::encode(&note, self.seed);
        if state.written.values().sum::<u64>() + line.len() as u64 > NOTES_LEN_MAX {
            return;
        }
        if access == Access::Full
            && let Err(error) = self.append(&mut state, line.as_bytes())
        {
            tracing::warn!(%error, "cannot note what was set aside");
        }
        state.notes.insert(number, note);
    }

    fn append(&self, state: &mut State, line: &[u8]) -> io::Result<()> {
        if state.open.is_none() {
            self.open_notes(state)?;
        }
        let Some(file) = state.open.clone() else { return Ok(()) };
        let Some(mut last) = state.written.last_entry() else { return Ok(()) };
        let len = *last.get();
        // What a crash tore off has no line end of its own.
        let lead: &[u8] = if len == 0 { b"" } else { b"\n" };
        let new_len = len + (lead.len() + line.len()) as u64;
        self.space.blobs.fetch_add(file_bytes(new_len) - file_bytes(len), Relaxed);
        // Counted whether or not all of it is written.
        last.insert(new_len);
        file.write_at(&[lead, line], len)?;
        state.is_unsynced = true;
        Ok(())
    }

    fn open_notes(&self, state: &mut State) -> io::Result<()> {
        if let Some((number, _)) = state.written.last_key_value() {
            state.open = Some(self.media.open(&self.notes_path(*number), true)?);
            return Ok(());
        }
        state.open = Some(self.media.create(&self.notes_path(1))?);
        state.written.insert(1, 0);
        self.space.blobs.fetch_add(file_bytes(0), Relaxed);
        Ok(())
    }

    fn notes_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{NOTES}{number}"))
    }

    /// Makes what was noted survive a power cut, if it can be had.
    pub(crate) fn sync(&self) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.is_unsynced) {
            let synced = state.open.as_ref().map_or(Ok(()), |file| file.sync_data());
            if let Err(error) = synced.and_then(|()| self.media.sync_dir(&self.dir)) {
                tracing::warn!(%error, "cannot sync the notes of what was set aside");
            }
        }
    }

    /// All that is set aside, oldest first.
    pub(crate) fn list(&self) -> Vec<Held> {
        let state = self.state.lock();
        let mut held: BTreeMap<u64, Held> = BTreeMap::new();
        for number in state.notes.keys().chain(state.kept.keys()) {
            held.entry(*number).or_insert_with(|| Held {
                number: *number,
                note: state.notes.get(number).cloned(),
                kept: state.kept.get(number).map(|(name, len)| (self.dir.join(name), *len)),
            });
        }
        held.into_values().collect()
    }

    /// Removes what was set aside before `before_ms`, or all; gives how many, and the bytes that came back. What cannot be
    /// removed stays, and the first reason is told.
    pub(crate) fn purge(&self, before_ms: Option<u64>) -> io::Result<(u64, u64)> {
        let held = self.list();
        let mut state = self.state.lock();
        let used = self.space.blobs.load(Relaxed);
        let (mut count, mut failure) = (0, None);
        for Held { number, note, kept } in held {
            // Of what has no note nobody knows how old it is: it goes with all the rest.
            let is_old = |before_ms| note.is_some_and(|note| note.when_ms < before_ms);
            if !before_ms.is_none_or(is_old) {
                continue;
            }
            if let Some((path, len)) = kept {
                match self.media.remove(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        failure.get_or_insert(error);
                        continue;
                    }
                    _ => {}
                }
                self.space.blobs.fetch_sub(file_bytes(len), Relaxed);
                state.kept.remove(&number);
            }
            state.notes.remove(&number);
            count += 1;
        }
        if count > 0 {
            self.rewrite(&mut state)?;
        }
        match failure {
            Some(error) => Err(error),
            None => Ok((count, used.saturating_sub(self.space.blobs.load(Relaxed)))),
        }
    }

    /// Writes down the notes that are left, and removes what was written before. A crash between leaves both, which say the same
    /// of what is left.
    fn rewrite(&self, state: &mut State) -> io::Result<()> {
        let old = state.written.clone();
        state.open = None;
        let next = old.keys().max().map_or(1, |number| number + 1);
        if !state.notes.is_empty() {
            let text: String = state.notes.values().map(|note| notes::encode(note, self.seed)).collect();
            let file = self.media.create(&self.notes_path(next))?;
            self.space.blobs.fetch_add(file_bytes(text.len() as u64), Relaxed);
            state.written.insert(next, text.len() as u64);
            file.write_at(&[text.as_bytes()], 0)?;
            file.sync_data()?;
            self.media.sync_dir(&self.dir)?;
        }
        for (number, len) in old {
            match self.media.remove(&self.notes_path(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.space.blobs.fetch_sub(file_bytes(len), Relaxed);
            state.written.remove(&number);
        }
        self.media.sync_dir(&self.dir)
    }

    /// Payload files that wait for their entries to be rebuilt, by the names they had, with their lengths.
    pub(crate) fn waiting(dir: &Path, media: &dyn Media) -> io::Result<Vec<(String, PathBuf, u64)>> {
        let dir = dir.join(DIR);
        let waiting =
            |(name, len): (String, u64)| Some((name.strip_prefix(REBUILD)?.to_owned(), dir.join(&name), len));
        match files(media, &dir) {
            Ok(files) => Ok(files.filter_map(waiting).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Where a payload file of this name waits.
    pub(crate) fn waiting_path(dir: &Path, name: &str) -> PathBuf {
        dir.join(DIR).join(format!("{REBUILD}{name}"))
    }
}
