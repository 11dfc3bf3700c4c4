//! A plain directory as a remote cache: shared by processes, or by hosts over NFS. Not the server's store.
//!
//! # Layout
//! `pilotlight-1/<2 hex digits>/<62 hex digits>.entry`, the digits being the BLAKE3 of the key. A file is `PLfe`, version 1
//! (1 byte), length of the key (4 bytes, little-endian), the key, the envelope. Another key in front is a miss.
//!
//! # Why it is safe without locks
//! A file is written under a name of its own beside its place and then renamed: who reads sees the old one or the new one.
//! What a crash of the host leaves half written fails its digest. Nothing is mapped into memory, since NFS takes files away.
//!
//! # Limits
//! The bound holds approximately, see [`super::sweep`]. A mount that hangs hangs its readers: the system has no time limit
//! for files.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::counters::Counters;
use super::engine::{Answer, Asked, Engine, Request, Search};
use super::pace::Deadline;
use super::stream::lost;
use super::sweep;
use super::wire::BULK_LEN_MAX;
use crate::envelope::Sealed;
use crate::{Digest, Error, ErrorKind, Result};

#[derive(Debug)]
pub(super) struct DirectoryEngine {
    root: PathBuf,
    max_bytes: u64,
    counters: Arc<Counters>,
    /// Makes names that nobody else makes, with `seed`.
    serial: AtomicU64,
    seed: u64,
}

/// What a directory holds that is used as a cache.
pub const ROOT: &str = "pilotlight-1";
const MAGIC: &[u8] = b"PLfe\x01";
pub(super) const ENTRY_SUFFIX: &str = ".entry";
pub(super) const UNFINISHED_SUFFIX: &str = ".unfinished";
/// An entry's time is that of its last use, to this precision: noting each use would make every read a write.
const TOUCH_AFTER: Duration = Duration::from_secs(3600);

impl DirectoryEngine {
    pub(super) fn new(directory: &Path, max_bytes: u64, seed: u64, counters: Arc<Counters>) -> Self {
        Self { root: directory.join(ROOT), max_bytes, counters, serial: AtomicU64::new(0), seed }
    }

    /// The directory and the file of `key`.
    fn place(&self, key: &[u8]) -> (PathBuf, String) {
        let hash = Digest::of(key).to_string();
        let (shard, name) = hash.split_at(2);
        (self.root.join(shard), format!("{name}{ENTRY_SUFFIX}"))
    }

    fn get(&self, key: &[u8]) -> Result<Answer> {
        let (shard, name) = self.place(key);
        let bytes = match read(&shard.join(name)) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Answer::Absent),
            // Over NFS an open file can be replaced under its reader.
            Err(error) if is_gone(&error) => return Ok(Answer::Absent),
            Err(error) => return Err(failure("cannot read", error)),
        };
        Counters::add(&self.counters.bytes_read, bytes.len() as u64);
        Ok(envelope_of(key, bytes).map_or(Answer::Absent, Answer::Found))
    }

    fn has(&self, key: &[u8]) -> Result<Answer> {
        let (shard, name) = self.place(key);
        match fs::symlink_metadata(shard.join(name)) {
            Ok(metadata) if metadata.is_file() => Ok(Answer::Done),
            Ok(_) => Ok(Answer::Absent),
            Err(error) if is_gone(&error) => Ok(Answer::Absent),
            Err(error) => Err(failure("cannot look at", error)),
        }
    }

    fn put(&self, key: &[u8], sealed: &Sealed) -> Result<Answer> {
        let mut front = MAGIC.to_vec();
        front.extend_from_slice(&(key.len() as u32).to_le_bytes());
        front.extend_from_slice(key);
        let size_bytes = (front.len() + sealed.len()) as u64;
        if size_bytes > self.max_bytes {
            return Err(Error::TooLarge { what: "entry", size_bytes, max_bytes: self.max_bytes });
        }
        let (shard, name) = self.place(key);
        let unfinished = shard.join(self.unfinished_name());
        let written = write(&shard, &unfinished, &[&front, &sealed.head, &sealed.payload])
            .and_then(|()| fs::rename(&unfinished, shard.join(name)));
        if let Err(error) = written {
            let _ = fs::remove_file(&unfinished);
            return Err(failure("cannot write", error));
        }
        Counters::add(&self.counters.bytes_written, size_bytes);
        if sweep::is_due(size_bytes, self.max_bytes, self.random()) {
            sweep::sweep(&self.root, self.max_bytes, self.random());
        }
        Ok(Answer::Done)
    }

    fn delete(&self, key: &[u8]) -> Result<Answer> {
        let (shard, name) = self.place(key);
        match fs::remove_file(shard.join(name)) {
            Ok(()) => Ok(Answer::Done),
            Err(error) if is_gone(&error) => Ok(Answer::Absent),
            Err(error) => Err(failure("cannot delete", error)),
        }
    }

    fn ping(&self) -> Result<Answer> {
        fs::create_dir_all(&self.root).map_err(|error| failure("cannot make the directory", error))?;
        Ok(Answer::Done)
    }

    /// A name that no other process on any host uses: the seed has time and process in it, and the process again because a
    /// fork copies the seed.
    fn unfinished_name(&self) -> String {
        format!("{:016x}{:08x}{UNFINISHED_SUFFIX}", self.random(), std::process::id())
    }

    fn random(&self) -> u64 {
        let serial = self.serial.fetch_add(1, Relaxed);
        let input = [self.seed, serial, u64::from(std::process::id())].map(u64::to_le_bytes).concat();
        xxhash_rust::xxh3::xxh3_64(&input)
    }
}

impl Engine for DirectoryEngine {
    fn exchange(&self, requests: &[Request<'_>], deadline: &Arc<Deadline>) -> Result<Vec<Result<Answer>>> {
        Counters::add(&self.counters.round_trips, 1);
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            deadline.in_time()?;
            let answer = match request {
                Request::Get(key) => self.get(key),
                Request::Has(key) => self.has(key),
                Request::Put(key, sealed) => self.put(key, sealed),
                Request::Delete(key) => self.delete(key),
                Request::Group(_) => Ok(Answer::Unknown),
                Request::Ping => self.ping(),
            };
            deadline.moved(match (request, &answer) {
                (Request::Put(_, sealed), _) => sealed.len(),
                (_, Ok(Answer::Found(envelope))) => envelope.len(),
                _ => 0,
            });
            answers.push(answer);
        }
        Ok(answers)
    }

    fn may_group(&self) -> bool {
        false
    }

    /// Who waits for a process on another host would have to look again and again whether that lives.
    fn lease(&self, _search: Search<'_>, _deadline: &Arc<Deadline>) -> Result<Asked> {
        Ok(Asked::Alone)
    }

    fn close(&self) {}
}

/// The whole of a file, and its time brought up to date; `None` for what is no file of ours.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Not waiting and not following: a pipe or a link in the place of an entry is not ours.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    let mut file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > BULK_LEN_MAX {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // A file that grows meanwhile is not ours either.
    (&mut file).take(BULK_LEN_MAX).read_to_end(&mut bytes)?;
    let is_old = metadata.modified()?.elapsed().is_ok_and(|age| age > TOUCH_AFTER);
    if is_old {
        // Where that is not allowed, entries are evicted by the time they were put.
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
    }
    Ok(Some(bytes))
}

fn write(shard: &Path, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let open = || OpenOptions::new().write(true).create_new(true).open(path);
    let mut file: File = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(shard)?;
            open()?
        }
        opened => opened?,
    };
    parts.iter().try_for_each(|part| file.write_all(part))
}

/// The envelope in a file, if that was put under `key`.
fn envelope_of(key: &[u8], bytes: Vec<u8>) -> Option<Bytes> {
    let bytes = Bytes::from(bytes);
    let rest = bytes.strip_prefix(MAGIC)?;
    let (key_len, rest) = rest.split_first_chunk()?;
    let envelope = rest.get(..u32::from_le_bytes(*key_len) as usize).filter(|found| *found == key)?;
    let at = MAGIC.len() + key_len.len() + envelope.len();
    Some(bytes.slice(at..))
}

/// Nothing is there, or a link, which is not ours.
fn is_gone(error: &io::Error) -> bool {
    let is_link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    is_link || matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle)
}

fn failure(what: &str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => return lost(what, error),
    };
    Error::backend(kind, format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;
    use crate::envelope::seal;

    fn engine(dir: &Path, max_bytes: u64) -> DirectoryEngine {
        DirectoryEngine::new(dir, max_bytes, 7, Arc::default())
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                found.extend(files(&entry.path()));
            } else {
                found.push(entry.path());
            }
        }
        found
    }

    fn found(engine: &DirectoryEngine, key: &[u8]) -> Option<Bytes> {
        match engine.get(key) {
            Ok(Answer::Found(whole)) => Some(whole),
            _ => None,
        }
    }

    #[test]
    fn a_get_returns_the_whole_envelope_that_was_put() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path(), 1 << 20);
        assert!(matches!(engine.get(b"k"), Ok(Answer::Absent)));
        let sealed = seal(&Entry::new(vec![7; 5000])).unwrap();
        for _ in 0..2 {
            assert!(matches!(engine.put(b"k", &sealed), Ok(Answer::Done)));
            assert_eq!(found(&engine, b"k"), Some(sealed.to_whole()));
        }
        assert_eq!(files(dir.path()).len(), 1, "nothing unfinished is left");
        assert!(matches!(engine.delete(b"k"), Ok(Answer::Done)));
        assert!(matches!(engine.delete(b"k"), Ok(Answer::Absent)));
    }

    #[test]
    fn another_keys_file_in_its_place_is_a_miss() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path(), 1 << 20);
        engine.put(b"k", &seal(&Entry::new("a")).unwrap()).unwrap();
        let ((shard, name), (other_shard, other_name)) = (engine.place(b"k"), engine.place(b"l"));
        fs::create_dir_all(&other_shard).unwrap();
        fs::copy(shard.join(name), other_shard.join(other_name)).unwrap();
        assert_eq!(found(&engine, b"l"), None);
    }

    #[test]
    fn what_is_no_file_of_ours_is_a_miss_and_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path(), 1 << 20);
        let (shard, name) = engine.place(b"k");
        fs::create_dir_all(&shard).unwrap();
        let path = shard.join(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(found(&engine, b"k"), None);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert_eq!(found(&engine, b"k"), None);
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"PLfe\x01\xff\xff\xff\xff").unwrap();
        assert_eq!(found(&engine, b"k"), None);
    }

    #[test]
    fn the_bound_holds_about_and_foreign_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path(), 1 << 20);
        let (shard, _) = engine.place(b"0");
        fs::create_dir_all(&shard).unwrap();
        let foreign = [shard.join("notes.txt"), shard.join("x.entry"), engine.root.join("README")];
        foreign.iter().for_each(|path| fs::write(path, vec![0; 100 << 10]).unwrap());
        for i in 0..500u32 {
            let mut noise = vec![0; 20 << 10];
            blake3::Hasher::new().update(&i.to_le_bytes()).finalize_xof().fill(&mut noise);
            engine.put(&i.to_le_bytes(), &seal(&Entry::new(noise)).unwrap()).unwrap();
        }
        let ours: u64 = files(dir.path())
            .iter()
            .filter(|path| !foreign.contains(path))
            .map(|path| fs::metadata(path).unwrap().len())
            .sum();
        assert!(ours < 2 << 20, "{ours} bytes under a bound of 1 MiB");
        assert!(ours > 1 << 19, "{ours} bytes: too much was evicted");
        assert!(found(&engine, &499u32.to_le_bytes()).is_some(), "the newest stays");
        assert!(foreign.iter().all(|path| path.exists()));
    }

    #[test]
    fn an_entry_above_the_bound_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = engine(dir.path(), 100).put(b"k", &seal(&Entry::new(vec![1; 200])).unwrap());
        assert_eq!(refused.err().map(|error| error.kind()), Some(ErrorKind::TooLarge));
    }
}
