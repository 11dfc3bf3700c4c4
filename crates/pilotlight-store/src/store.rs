//! The store's shared state, and how one is opened and closed.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};

use crate::blobs::Blobs;
use crate::commit::Committer;
use crate::directory::{self, Access, Format};
use crate::evict::Candidate;
use crate::format::{FORMAT_REWRITTEN, Row};
use crate::groups::Groups;
use crate::holds::{Hold, Role};
use crate::index::{Index, Place, Slot};
use crate::log::{self, Log};
use crate::media::Lock;
use crate::policy::{Candidates, Policy, Standing};
use crate::recovery::{self, Recovered};
use crate::space::Space;
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
        let segment_bytes = segment_bytes(options.max_bytes);
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
        let recovered =
            recovery::recover(&log_dir, media, seed, access).map_err(OpenError::io("read", &log_dir))?;
        if recovered.is_foreign {
            let found = "none of its segments fits the seed in FORMAT".to_owned();
            return Err(OpenError::NotAStore { dir: dir.clone(), found });
        }
        let inner = Arc::new(Inner::recovered(options, format, segment_bytes, recovered, lock));
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
        lock: Option<Box<dyn Lock>>,
    ) -> Self {
        let seed = format.seed;
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
            disk_refusals: AtomicU32::new(0),
            room: Mutex::default(),
            syncing: Mutex::default(),
            is_earlier_synced: Mutex::default(),
            replaced: Mutex::default(),
            is_rewritable: Mutex::new(format.version >= FORMAT_REWRITTEN),
            is_closing: AtomicBool::new(false),
            lock,
            options,
        };
        let bases = live.iter().filter_map(|(_, row)| Some(row.base?.reference));
        let bases: HashSet<(u128, u64)> = bases.map(|base| (base.digest, base.generation)).collect();
        for (segment, row) in live {
            inner.recover_entry(segment, &row, &bases);
        }
        inner
    }

    /// Puts the directory in order, and starts the work in the background; there is none on a read-only medium.
    fn begin(self: &Arc<Self>, access: Access) -> io::Result<Vec<JoinHandle<()>>> {
        if access == Access::ReadOnly {
            tracing::warn!(dir = %self.options.dir.display(), "the disk is read-only: every put will be refused");
            self.blobs.sweep(access)?;
            return Ok(Vec::new());
        }
        self.blobs.make_dirs()?;
        // Syncs reach what is in a directory, not its name.
        self.options.media.sync_dir(&self.options.dir)?;
        self.blobs.sweep(access)?;
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

    /// `bases` are the payload files that anybody holds as a base, by digest and generation.
    fn recover_entry(&self, segment: u32, row: &Row, bases: &HashSet<(u128, u64)>) {
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
            is_base: row.reference.is_some_and(|file| bases.contains(&(file.digest, file.generation))),
            is_rewritten: row.is_rewritten,
            base_len: row.base.map_or(0, |base| base.payload_len),
        };
        slot.standing = self.policy.enter(slot.policy_hash(), &slot.asset());
        if let Some(reference) = row.reference {
            let hold = Hold { reference, role: Role::Payload };
            self.blobs.recover(&hold, row.payload_len, row.space);
        }
        if let Some(base) = row.base {
            let hold = Hold { reference: base.reference, role: Role::Base };
            self.blobs.recover(&hold, base.payload_len, row.space);
        }
        self.count(None, Some(&slot));
        self.index.note_expiry(slot.expires_ms, slot.hash);
        self.index.shard(slot.hash).insert(slot);
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

    pub(crate) fn is_relaxed(&self) -> bool {
        self.options.durability == Durability::Relaxed
    }
}

/// A hundred and twenty-eighth of the bound, so that cleaning is fine-grained, within reason: a megabyte holds the largest
/// record many times, and 128 MiB is read and rewritten in a moment.
fn segment_bytes(max_bytes: u64) -> u64 {
    (max_bytes / 128).clamp(1 << 20, 128 << 20)
}
