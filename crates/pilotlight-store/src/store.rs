//! The store's shared state, and how one is opened and closed.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};

use crate::blobs::{self, Blobs};
use crate::commit::Committer;
use crate::directory::{self, Access, Format};
use crate::evict::Candidate;
use crate::format::FORMAT_REWRITTEN;
use crate::groups::Groups;
use crate::holds::{Hold, Role};
use crate::index::{Index, Slot};
use crate::log::{self, Log};
use crate::media::{Lock, files};
use crate::newest::Named;
use crate::policy::{Candidates, Policy};
use crate::quarantine::Quarantine;
use crate::recovery::{self, Recovered};
use crate::space::Space;
use crate::sweep::Sweep;
use crate::usage::Tally;
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
    pub(crate) quarantine: Arc<Quarantine>,
    pub(crate) sweep: Sweep,
    pub(crate) index: Index,
    pub(crate) committer: Committer,
    pub(crate) counters: Counters,
    pub(crate) policy: Policy,
    /// Random draws so far.
    pub(crate) draws: AtomicU64,
    /// Settles that the disk had no room for, one after the other.
    pub(crate) disk_refusals: AtomicU32,
    /// One at a time makes room. It keeps whom it found to be worth little.
    pub(crate) room: Mutex<Candidates<Candidate>>,
    /// One at a time syncs.
    syncing: Mutex<()>,
    /// Whether what was there at the open is synced for sure.
    is_earlier_synced: Mutex<bool>,
    /// Payload files of entries that were replaced by ones that are not synced yet; in a `relaxed` store, of rewritten ones.
    pub(crate) replaced: Mutex<Vec<Hold>>,
    /// Payload files that nobody needs any longer, and that are not freed yet: see [`Inner::tidy`].
    pub(crate) untidied: Mutex<Vec<Hold>>,
    /// One at a time frees them.
    pub(crate) tidying: Mutex<()>,
    /// Whether FORMAT says that something was rewritten.
    pub(crate) is_rewritable: Mutex<bool>,
    pub(crate) is_closing: AtomicBool,
    /// Held for the life of the store: dropping it unlocks the directory. None on a read-only medium.
    lock: Option<Box<dyn Lock>>,
}

/// What happened since the store was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) evicted: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) quarantined: AtomicU64,
    pub(crate) deduplicated: AtomicU64,
    pub(crate) orphans: AtomicU64,
    pub(crate) rewritten: AtomicU64,
    /// Bytes that rewriting saved.
    pub(crate) rewritten_bytes: AtomicU64,
}

impl Store {
    /// Opens the store in `options.dir`, making it if it is not there. On a read-only medium it serves what is there: every
    /// write is refused with [`StoreError::ReadOnly`] then.
    ///
    /// # Errors
    /// [`OpenError`], each with a hint; nothing in the directory is changed then.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let segment_bytes = segment_bytes(&options);
        let bound_min = Space::bound_min(segment_bytes);
        if options.max_bytes < bound_min {
            return Err(OpenError::BoundTooSmall { bound_bytes: options.max_bytes, min_bytes: bound_min });
        }
        let (dir, media) = (&options.dir, &*options.media);
        media.create_dir(dir).map_err(OpenError::io("make", dir))?;
        directory::refuse_foreign(media, dir)?;
        let lock = directory::lock(media, dir)?;
        let format = directory::open_format(media, dir)?;
        let seed = format.seed;
        let log_dir = dir.join(log::DIR);
        media.create_dir(&log_dir).map_err(OpenError::io("make", &log_dir))?;
        let access = Access::under(lock.as_deref());
        let index = Index::new();
        let recovered = recovery::recover(&log_dir, media, seed, access, &index)
            .map_err(OpenError::io("read", &log_dir))?;
        if recovered.is_foreign {
            let found = "none of its segments fits the seed in FORMAT".to_owned();
            return Err(OpenError::NotAStore { dir: dir.clone(), found });
        }
        let inner = Arc::new(Inner::recovered(options, format, segment_bytes, recovered, index, lock));
        let threads = inner.begin(access).map_err(OpenError::io("prepare", &inner.options.dir))?;
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
        self.inner.end_sweep();
        if let Err(error) = self.inner.sync_all()
            && self.inner.check_writable().is_ok()
        {
            tracing::warn!(%error, "cannot sync the store at its end");
        }
    }
}

impl Inner {
    fn recovered(
        options: Options,
        format: Format,
        segment_bytes: u64,
        recovered: Recovered,
        index: Index,
        lock: Option<Box<dyn Lock>>,
    ) -> Self {
        let seed = format.seed;
        let space = Arc::new(Space::new(options.max_bytes, segment_bytes));
        let Recovered { segments, tail, spaces, named, is_foreign: _ } = recovered;
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
        let (dir, media) = (options.dir.clone(), options.media.clone());
        let quarantine = Arc::new(Quarantine::new(&dir, media.clone(), space.clone(), seed));
        let blobs = Blobs::new(dir, media, space.clone(), quarantine.clone());
        let inner = Self {
            seed,
            space,
            spaces,
            tallies: RwLock::new(tallies),
            has_quotas: AtomicBool::new(false),
            groups: Groups::default(),
            log,
            blobs,
            quarantine,
            sweep: Sweep::default(),
            index,
            committer: Committer::default(),
            counters: Counters::default(),
            policy: Policy::new(options.max_bytes),
            draws: AtomicU64::new(0),
            disk_refusals: AtomicU32::new(0),
            room: Mutex::default(),
            syncing: Mutex::default(),
            is_earlier_synced: Mutex::default(),
            replaced: Mutex::default(),
            untidied: Mutex::default(),
            tidying: Mutex::default(),
            is_rewritable: Mutex::new(format.version >= FORMAT_REWRITTEN),
            is_closing: AtomicBool::new(false),
            lock,
            options,
        };
        inner.admit_recovered(&named);
        inner
    }

    /// Puts the directory in order, and starts the work in the background; there is none on a read-only medium.
    fn begin(self: &Arc<Self>, access: Access) -> io::Result<Vec<JoinHandle<()>>> {
        if access == Access::ReadOnly {
            tracing::warn!(dir = %self.options.dir.display(), "the disk is read-only: every put will be refused");
            self.quarantine.recover()?;
            return Ok(Vec::new());
        }
        let made = self.blobs.make_dirs()?;
        if !made.is_empty() {
            // Syncs reach what is in a directory, not its name. Where all are there, this would wait for everything that was
            // written of late; what there was at the open is synced in the background.
            self.options.media.sync_dir(&self.options.dir)?;
        }
        self.blobs.clear_pool()?;
        self.quarantine.recover()?;
        if self.is_bounded() {
            self.begin_sweep(made.contains(&blobs::DIR));
        }
        // A lowered bound, or one that a crash left overrun, holds from the start.
        self.make_room(0);
        background::start(self)
    }

    /// # Errors
    /// On a medium that was read-only when the store was opened.
    pub(crate) fn check_writable(&self) -> Result<(), StoreError> {
        match Access::under(self.lock.as_deref()) {
            Access::Full => Ok(()),
            Access::ReadOnly => Err(StoreError::ReadOnly),
        }
    }

    /// Counts what the log says there is.
    fn admit_recovered(&self, named: &[Named]) {
        let file = |hold: &Hold| (hold.reference.digest, hold.reference.generation);
        let bases = named.iter().filter(|named| named.hold.role == Role::Base);
        let bases: HashSet<_> = bases.map(|named| file(&named.hold)).collect();
        for Named { hash, hold, payload_len, space, .. } in named {
            self.blobs.recover(hold, *payload_len, *space);
            if hold.role == Role::Payload
                && bases.contains(&file(hold))
                && let Some(slot) = self.index.shard(*hash).get_mut(*hash)
            {
                slot.is_base = true;
            }
        }
        for mut shard in self.index.shards_from(0) {
            for slot in shard.iter_mut() {
                slot.standing = self.policy.enter(slot.policy_hash(), &slot.asset());
                self.count(None, Some(slot));
                self.index.note_expiry(slot.expires_ms, slot.hash);
            }
        }
    }

    /// Counts `new` in its space in place of `old`, which was under the same key.
    pub(crate) fn count(&self, old: Option<&Slot>, new: Option<&Slot>) {
        let counted = |slot: &Slot| {
            let Slot { space, logical_len, base_len, is_pinned, group_number, .. } = *slot;
            (space, logical_len, slot.stored_bytes(), base_len, is_pinned, group_number)
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

    /// Makes what was there at the open survive a power cut: whoever put it may have been killed before it was synced, and
    /// nothing tells which of it was. Does so once, and may take long on a busy disk.
    pub(crate) fn sync_earlier(&self) -> io::Result<()> {
        let mut is_synced = self.is_earlier_synced.lock();
        if !*is_synced {
            self.options.media.sync_file_system(&self.options.dir)?;
            *is_synced = true;
        }
        Ok(())
    }

    /// Makes everything put since the open survive a power cut, and says up to which sequence number; payload files first,
    /// since records name them.
    pub(crate) fn sync_all(&self) -> io::Result<u64> {
        // What another sync took in hand is not down before that one is through.
        let _syncing = self.syncing.lock();
        // Asked first: payload files of later records may not be among those that are synced here.
        let seq = self.log.last_seq();
        // What could not be written was refused, and is nobody else's failure.
        let _ = self.flush();
        let replaced = std::mem::take(&mut *self.replaced.lock());
        if let Err(error) = self.blobs.sync().and_then(|()| self.log.sync()) {
            self.replaced.lock().extend(replaced);
            return Err(error);
        }
        replaced.iter().for_each(|file| self.blobs.release(file));
        self.quarantine.sync();
        Ok(seq)
    }

    /// Makes every payload file survive a power cut.
    pub(crate) fn sync_files(&self) -> io::Result<()> {
        self.sync_earlier()?;
        let _syncing = self.syncing.lock();
        self.blobs.sync()
    }

    /// Makes every record in its file survive a power cut, and with it the names of the files of the log. Payload files
    /// that `relaxed` puts named within the last second may not be down then.
    pub(crate) fn sync_log(&self) -> io::Result<()> {
        let _syncing = self.syncing.lock();
        self.log.sync()
    }

    /// Whether the store was opened to be used, and not to be looked into or mended.
    pub(crate) fn is_bounded(&self) -> bool {
        self.space.bound() < Options::UNBOUNDED
    }

    pub(crate) fn is_relaxed(&self) -> bool {
        self.options.durability == Durability::Relaxed
    }
}

/// A hundred and twenty-eighth of the bound, so that cleaning is fine-grained, within reason: a megabyte holds the largest
/// record many times, and 128 MiB is read and rewritten in a moment.
fn segment_bytes(options: &Options) -> u64 {
    let (least, most) = (1 << 20, 128 << 20);
    if options.max_bytes < Options::UNBOUNDED {
        return (options.max_bytes / 128).clamp(least, most);
    }
    // 8 MiB can be cleaned under any bound from 128 MiB on.
    let log_dir = options.dir.join(log::DIR);
    let longest =
        files(&*options.media, &log_dir).ok().and_then(|files| files.map(|(_, len)| len).max()).unwrap_or(0);
    if longest < least { 8 << 20 } else { longest.clamp(least, most) }
}
