//! What makes a directory a store: its lock, and FORMAT, which says which format it is in and what seeds its checks.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::xxh3_64;

use crate::format::{FORMAT_FIRST, FORMAT_REWRITTEN};
use crate::media::{Lock, Media};
use crate::{OpenError, sweep};

const FORMAT: &str = "FORMAT";
/// FORMAT while it is written.
const FORMAT_NEW: &str = "FORMAT.new";
const LOCK: &str = "LOCK";
/// What a new store's directory may hold: what an open that was killed left, and what a file system puts there itself.
const KNOWN: [&str; 3] = [LOCK, FORMAT_NEW, "lost+found"];
/// The first line of FORMAT.
const MAGIC: &str = "pilotlight-store";
/// More than any FORMAT is long: what is read of one.
const FORMAT_LEN_MAX: u64 = 4096;

/// What the medium lets the store do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Full,
    ReadOnly,
}

impl Access {
    /// That of a store whose directory was locked so, see [`lock`].
    pub(crate) fn under(lock: Option<&dyn Lock>) -> Self {
        if lock.is_some() { Self::Full } else { Self::ReadOnly }
    }
}

/// Locks the directory for as long as the guard lives. There is none on a read-only medium, and nobody to lock out.
pub(crate) fn lock(media: &dyn Media, dir: &Path) -> Result<Option<Box<dyn Lock>>, OpenError> {
    let path = dir.join(LOCK);
    match media.lock(&path) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(OpenError::Locked { dir: dir.to_owned() })
        }
        Err(source) => Err(OpenError::Io { action: "lock", path, source }),
    }
}

/// Refuses a directory that holds something, and no store, before anything is written into it.
pub(crate) fn refuse_foreign(media: &dyn Media, dir: &Path) -> Result<(), OpenError> {
    let names = media.list(dir).map_err(OpenError::io("list", dir))?;
    if names.iter().any(|(name, _)| name == FORMAT) {
        return Ok(());
    }
    match names.into_iter().find(|(name, _)| !KNOWN.contains(&name.as_str())) {
        Some((name, _)) => {
            Err(OpenError::NotAStore { dir: dir.to_owned(), found: format!("it holds `{name}`") })
        }
        None => Ok(()),
    }
}

/// What FORMAT says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pub(crate) version: u32,
    pub(crate) seed: u64,
}

/// Reads FORMAT, or makes the file in a directory that holds no store yet.
pub(crate) fn open_format(media: &dyn Media, dir: &Path) -> Result<Format, OpenError> {
    let path = dir.join(FORMAT);
    match read(media, &path) {
        Ok(text) => parse(&text, dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let seed = new_seed(dir);
            write(media, dir, seed).map_err(OpenError::io("write", &path))?;
            Ok(Format { version: FORMAT_FIRST, seed })
        }
        Err(source) => Err(OpenError::Io { action: "read", path, source }),
    }
}

/// The seed from FORMAT, which must be there.
pub(crate) fn look_at_format(media: &dyn Media, dir: &Path) -> Result<u64, OpenError> {
    let path = dir.join(FORMAT);
    match read(media, &path) {
        Ok(text) => parse(&text, dir).map(|format| format.seed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(OpenError::NotAStore { dir: dir.to_owned(), found: "it has no FORMAT".to_owned() })
        }
        Err(source) => Err(OpenError::Io { action: "read", path, source }),
    }
}

/// Names in the store's directory that no store puts there.
pub(crate) fn foreign_names(media: &dyn Media, dir: &Path) -> io::Result<Vec<String>> {
    // `origin` is that of whoever sends entries elsewhere: what is still to be sent.
    let ours = [FORMAT, sweep::MARK, "log", "blobs", "recycle", "quarantine", "origin"];
    let names = media.list(dir)?.into_iter().map(|(name, _)| name);
    Ok(names.filter(|name| !KNOWN.contains(&&**name) && !ours.contains(&&**name)).collect())
}

fn read(media: &dyn Media, path: &Path) -> io::Result<String> {
    let file = media.open(path, false)?;
    let mut bytes = vec![0; file.length()?.min(FORMAT_LEN_MAX) as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse(text: &str, dir: &Path) -> Result<Format, OpenError> {
    let not_a_store = |found: &str| OpenError::NotAStore { dir: dir.to_owned(), found: found.to_owned() };
    let mut lines = text.lines();
    if lines.next() != Some(MAGIC) {
        return Err(not_a_store("FORMAT is another program's"));
    }
    let mut field = |name: &str| lines.next().and_then(|line| line.strip_prefix(name)).map(str::trim);
    let version: Option<u32> = field("format").and_then(|version| version.parse().ok());
    let version = match version {
        Some(found) if found > FORMAT_REWRITTEN => {
            return Err(OpenError::TooNew { dir: dir.to_owned(), found, expected: FORMAT_REWRITTEN });
        }
        Some(version @ 1..) => version,
        _ => return Err(not_a_store("FORMAT has no version")),
    };
    let seed = field("seed").and_then(|seed| u64::from_str_radix(seed, 16).ok());
    Ok(Format { version, seed: seed.ok_or_else(|| not_a_store("FORMAT has no seed"))? })
}

/// Whole or not at all, and there for good: everything else in the directory means nothing without it.
fn write(media: &dyn Media, dir: &Path, seed: u64) -> io::Result<()> {
    let new = dir.join(FORMAT_NEW);
    match media.remove(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = media.create(&new)?;
    let text = format!("{MAGIC}\nformat {FORMAT_FIRST}\nseed {seed:016x}\n");
    file.write_at(&[text.as_bytes()], 0)?;
    file.sync_data()?;
    media.rename(&new, &dir.join(FORMAT))?;
    media.sync_dir(dir)?;
    for parent in dir.ancestors().skip(1) {
        // Any of them may be new, too. Where we may not look, others made the next, and synced its name, or not.
        let _ = media.sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    }
    Ok(())
}

/// Makes builds that know only the first format refuse the store from here on. One byte is written, in its place: there is
/// no moment in which the file says neither the one nor the other.
pub(crate) fn raise(media: &dyn Media, dir: &Path) -> io::Result<()> {
    let path = dir.join(FORMAT);
    let before_number = format!("{MAGIC}\nformat ");
    if !read(media, &path)?.starts_with(&format!("{before_number}{FORMAT_FIRST}\n")) {
        return Err(io::Error::other("FORMAT is not as it was written"));
    }
    let file = media.open(&path, true)?;
    file.write_at(&[FORMAT_REWRITTEN.to_string().as_bytes()], before_number.len() as u64)?;
    file.sync_data()
}

/// A number that clients cannot know. It keeps honest bytes apart, it is no cryptographic secret.
fn new_seed(dir: &Path) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // `RandomState` is seeded by the operating system.
    let random = RandomState::new().hash_one(time);
    xxh3_64(format!("{random:x}{time:?}{}{}", std::process::id(), dir.display()).as_bytes())
}
