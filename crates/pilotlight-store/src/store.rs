//! The store's shared state, and how one is opened and closed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use xxhash_rust::xxh3::xxh3_64;

use crate::blobs::Blobs;
use crate::commit::Committer;
use crate::evict::Candidate;
use crate::format::{FORMAT_VERSION, Row};
use crate::groups::Groups;
use crate::index::{Index, Place, Slot};
use crate::log::{self, Log};
use crate::policy::{Candidates, Policy, Standing};
use crate::quota::Quota;
use crate::recovery::{self, Recovered};
use crate::space::Space;
use crate::{Durability, OpenError, Options, StoreError, background};

/// A space is known by 16 bits, and numbers are never given twice.
const SPACES_MAX: usize = u16::MAX as usize;

/// A bounded, crash-safe map from keys to entries, in one directory. See the crate's docs.
#[derive(Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
}

/// What every operation and the background threads share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: Options,
    /// Seeds every check and hash; made at random when the store was.
    pub(crate) seed: u64,
    pub(crate) space: Arc<Space>,
    pub(crate) spaces: Arc<RwLock<Vec<Vec<u8>>>>,
    pub(crate) tallies: RwLock<Vec<Arc<Tally>>>,
    /// Whether any space ever had a quota.
    pub(crate) has_quotas: AtomicBool,
    pub(crate) groups: Groups,
    pub(crate) log: Log,
    pub(crate) blobs: Blobs,
    pub(crate) index: Index,
    pub(crate) committer: Committer,
    pub(crate) counters: Counters,
    pub(crate) policy: Policy,
    /// Random draws so far.
    pub(crate) draws: AtomicU64,
    /// One at a time makes room. It keeps whom it found to be worth little.
    pub(crate) room: Mutex<Candidates<Candidate>>,
    /// One at a time syncs.
    syncing: Mutex<()>,
    pub(crate) is_closing: AtomicBool,
    /// Held for the life of the store: dropping it unlocks the directory.
    _lock: File,
}

/// What happened since the store was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) evicted: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) quarantined: AtomicU64,
    pub(crate) deduplicated: AtomicU64,
}

/// How much is kept of one space.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) entries: AtomicU64,
    pub(crate) logical_bytes: AtomicU64,
    pub(crate) stored_bytes: AtomicU64,
    /// Footprints of what is pinned.
    pub(crate) pinned_bytes: AtomicU64,
    pub(crate) quota: Quota,
    /// The last clear of the space: what is older does not come back.
    pub(crate) cleared_seq: AtomicU64,
}

impl Tally {
    pub(crate) fn add(&self, slot: &Slot) {
        self.entries.fetch_add(1, Relaxed);
        self.logical_bytes.fetch_add(u64::from(slot.logical_len), Relaxed);
        self.stored_bytes.fetch_add(slot.stored_bytes(), Relaxed);
        if slot.is_pinned {
            self.pinned_bytes.fetch_add(slot.footprint(), Relaxed);
        }
    }

    pub(crate) fn subtract(&self, slot: &Slot) {
        self.entries.fetch_sub(1, Relaxed);
        self.logical_bytes.fetch_sub(u64::from(slot.logical_len), Relaxed);
        self.stored_bytes.fetch_sub(slot.stored_bytes(), Relaxed);
        if slot.is_pinned {
            self.pinned_bytes.fetch_sub(slot.footprint(), Relaxed);
        }
    }
}

impl Store {
    /// Opens the store in `options.dir`, making it if it is not there.
    ///
    /// # Errors
    /// [`OpenError`], each with a hint; nothing in the directory is changed then.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let segment_bytes = segment_bytes(options.max_bytes);
        let bound_min = Space::bound_min(segment_bytes);
        if options.max_bytes < bound_min {
            return Err(OpenError::BoundTooSmall { bound_bytes: options.max_bytes, min_bytes: bound_min });
        }
        let dir = &options.dir;
        options.media.create_dir(dir).map_err(OpenError::io("make", dir))?;
        refuse_foreign(dir)?;
        let lock = lock(dir)?;
        let seed = open_format(dir)?;
        let log_dir = dir.join(log::DIR);
        options.media.create_dir(&log_dir).map_err(OpenError::io("make", &log_dir))?;
        let recovered =
            recovery::recover(&log_dir, &*options.media, seed).map_err(OpenError::io("read", &log_dir))?;
        if recovered.is_foreign {
            let found = "none of its segments fits the seed in FORMAT".to_owned();
            return Err(OpenError::NotAStore { dir: dir.clone(), found });
        }
        let inner = Arc::new(Inner::recovered(options, seed, segment_bytes, recovered, lock));
        inner.blobs.make_dirs().map_err(OpenError::io("make the directories of", &inner.options.dir))?;
        inner.blobs.sweep().map_err(OpenError::io("read", &inner.options.dir))?;
        // A lowered bound, or one that a crash left overrun, holds from the start.
        inner.make_room(0);
        let threads =
            background::start(&inner).map_err(OpenError::io("start the threads of", &inner.options.dir))?;
        Ok(Self { inner, threads })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.inner.is_closing.store(true, Relaxed);
        self.inner.committer.stop();
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // A thread that panicked has nothing more to say here.
            let _ = thread.join();
        }
        if let Err(error) = self.inner.sync_all() {
            tracing::warn!(%error, "cannot sync the store at its end");
        }
    }
}

impl Inner {
    fn recovered(options: Options, seed: u64, segment_bytes: u64, recovered: Recovered, lock: File) -> Self {
        let space = Arc::new(Space::new(options.max_bytes, segment_bytes));
        let Recovered { segments, tail, spaces, live, is_foreign: _ } = recovered;
        let tallies = spaces.iter().map(|_| Arc::default()).collect();
        let spaces = Arc::new(RwLock::new(spaces));
        let log = Log::new(
            options.dir.join(log::DIR),
            options.media.clone(),
            seed,
            segment_bytes,
            space.clone(),
            spaces.clone(),
        );
        log.recover(segments, tail);
        let blobs = Blobs::new(options.dir.clone(), options.media.clone(), space.clone());
        let inner = Self {
            seed,
            space,
            spaces,
            tallies: RwLock::new(tallies),
            has_quotas: AtomicBool::new(false),
            groups: Groups::default(),
            log,
            blobs,
            index: Index::new(),
            committer: Committer::default(),
            counters: Counters::default(),
            policy: Policy::new(options.max_bytes),
            draws: AtomicU64::new(0),
            room: Mutex::default(),
            syncing: Mutex::default(),
            is_closing: AtomicBool::new(false),
            _lock: lock,
            options,
        };
        for (segment, row) in live {
            inner.recover_entry(segment, &row);
        }
        inner
    }

    fn recover_entry(&self, segment: u32, row: &Row) {
        let mut slot = Slot {
            hash: row.hash,
            seq: row.seq,
            expires_ms: row.expires_ms,
            created_ms: row.created_ms,
            place: Place { segment, offset: row.offset, record_len: row.record_len },
            payload_len: row.payload_len,
            logical_len: row.logical_len,
            cost_ms: row.cost_ms,
            accessed_s: (row.created_ms / 1000) as u32,
            standing: Standing::default(),
            hits: 0,
            space: row.space,
            group_number: row.group,
            is_external: row.reference.is_some(),
            is_pinned: row.is_pinned,
        };
        slot.standing = self.policy.enter(slot.policy_hash(), &slot.asset());
        if let Some(reference) = &row.reference {
            self.blobs.recover(reference, row.payload_len);
        }
        self.count(None, Some(&slot));
        self.index.note_expiry(slot.expires_ms, slot.hash);
        self.index.shard(slot.hash).insert(slot);
    }

    /// Counts `new` in its space in place of `old`, which was under the same key.
    pub(crate) fn count(&self, old: Option<&Slot>, new: Option<&Slot>) {
        let counted = |slot: &Slot| {
            (slot.space, slot.logical_len, slot.stored_bytes(), slot.is_pinned, slot.group_number)
        };
        // Most puts replace an entry by one of its like: every core counts here.
        if old.map(counted) == new.map(counted) {
            return;
        }
        let tallies = self.tallies.read();
        let tally = |slot: &Slot| tallies.get(usize::from(slot.space));
        if let Some((slot, tally)) = new.and_then(|slot| Some((slot, tally(slot)?))) {
            tally.add(slot);
            if old.is_none() {
                tally.quota.note_new(slot.hash);
            }
        }
        if let Some((slot, tally)) = old.and_then(|slot| Some((slot, tally(slot)?))) {
            tally.subtract(slot);
        }
        drop(tallies);
        self.groups.note(old, new);
    }

    pub(crate) fn tally(&self, space: u16) -> Option<Arc<Tally>> {
        self.tallies.read().get(usize::from(space)).cloned()
    }

    /// Footprints of all that is pinned.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.tallies.read().iter().map(|tally| tally.pinned_bytes.load(Relaxed)).sum()
    }

    /// Entries in all spaces.
    pub(crate) fn entries(&self) -> u64 {
        self.tallies.read().iter().map(|tally| tally.entries.load(Relaxed)).sum()
    }

    /// The number of `space`, if any entry was ever put there.
    pub(crate) fn space_number(&self, space: &[u8]) -> Option<u16> {
        if space.is_empty() {
            return Some(0);
        }
        let number = self.spaces.read().iter().position(|name| name == space)?;
        u16::try_from(number).ok()
    }

    /// The number of `space`, given one if it has none.
    pub(crate) fn intern_space(&self, space: &[u8]) -> Result<u16, StoreError> {
        if let Some(number) = self.space_number(space) {
            return Ok(number);
        }
        let mut spaces = self.spaces.write();
        if spaces.len() >= SPACES_MAX {
            let (size_bytes, max_bytes) = (spaces.len() as u64 + 1, SPACES_MAX as u64);
            return Err(StoreError::TooLarge { what: "number of spaces", size_bytes, max_bytes });
        }
        let number = recovery::intern(&mut spaces, space);
        let mut tallies = self.tallies.write();
        while tallies.len() < spaces.len() {
            tallies.push(Arc::default());
        }
        Ok(number)
    }

    /// Makes everything put so far survive a power cut, and says up to which sequence number; payload files first, since
    /// records name them.
    pub(crate) fn sync_all(&self) -> io::Result<u64> {
        // What another sync took in hand is not down before that one is through.
        let _syncing = self.syncing.lock();
        // Asked first: payload files of later records may not be among those that are synced here.
        let seq = self.log.last_seq();
        // What could not be written was refused, and is nobody else's failure.
        let _ = self.flush();
        self.blobs.sync()?;
        self.log.sync()?;
        Ok(seq)
    }

    pub(crate) fn is_relaxed(&self) -> bool {
        self.options.durability == Durability::Relaxed
    }
}

/// A hundred and twenty-eighth of the bound, so that cleaning is fine-grained, within reason: a megabyte holds the largest
/// record many times, and 128 MiB is read and rewritten in a moment.
fn segment_bytes(max_bytes: u64) -> u64 {
    (max_bytes / 128).clamp(1 << 20, 128 << 20)
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("LOCK");
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(OpenError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { action: "lock", path, source }),
    }
}

/// Refuses a directory that holds something, and no store, before anything is written into it.
fn refuse_foreign(dir: &Path) -> Result<(), OpenError> {
    if dir.join("FORMAT").exists() {
        return Ok(());
    }
    let foreign = std::fs::read_dir(dir)
        .map_err(OpenError::io("list", dir))?
        .filter_map(Result::ok)
        .find(|entry| !["LOCK", "FORMAT.new", "lost+found"].contains(&&*entry.file_name().to_string_lossy()));
    match foreign {
        Some(entry) => {
            let found = format!("it holds `{}`", entry.file_name().to_string_lossy());
            Err(OpenError::NotAStore { dir: dir.to_owned(), found })
        }
        None => Ok(()),
    }
}

/// Reads the seed from FORMAT, or makes the file in a directory that holds no store yet.
fn open_format(dir: &Path) -> Result<u64, OpenError> {
    let path = dir.join("FORMAT");
    let not_a_store = |found: String| OpenError::NotAStore { dir: dir.to_owned(), found };
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let mut lines = text.lines();
            if lines.next() != Some("pilotlight-store") {
                return Err(not_a_store("FORMAT is another program's".to_owned()));
            }
            let field = |line: Option<&str>, name: &str| {
                line.and_then(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
            };
            let version: Option<u32> = field(lines.next(), "format").and_then(|version| version.parse().ok());
            let version = version.ok_or_else(|| not_a_store("FORMAT has no version".to_owned()))?;
            if version > FORMAT_VERSION {
                return Err(OpenError::TooNew {
                    dir: dir.to_owned(),
                    found: version,
                    expected: FORMAT_VERSION,
                });
            }
            field(lines.next(), "seed")
                .and_then(|seed| u64::from_str_radix(&seed, 16).ok())
                .ok_or_else(|| not_a_store("FORMAT has no seed".to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let seed = new_seed(dir);
            let text = format!("pilotlight-store\nformat {FORMAT_VERSION}\nseed {seed:016x}\n");
            let write = || -> io::Result<()> {
                let new = dir.join("FORMAT.new");
                let mut file = File::create(&new)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                std::fs::rename(new, &path)?;
                File::open(dir)?.sync_all()
            };
            write().map_err(OpenError::io("write", &path))?;
            Ok(seed)
        }
        Err(source) => Err(OpenError::Io { action: "read", path, source }),
    }
}

/// A number that clients cannot know. It keeps honest bytes apart, it is no cryptographic secret.
fn new_seed(dir: &Path) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // `RandomState` is seeded by the operating system.
    let random = RandomState::new().hash_one(time);
    xxh3_64(format!("{random:x}{time:?}{}{}", std::process::id(), dir.display()).as_bytes())
}
