//! The log: numbered segments, of which the last is appended to.
//!
//! Invariant: a segment's written bytes never change, so a reader needs no lock, and a reader that holds a segment may
//! finish although the cleaner removed it meanwhile.

mod segments;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard, RwLock};

use self::segments::footer_len;
pub(crate) use self::segments::{Segment, segment_path};
use crate::format::{ALIGN, Header, RecordType, Ref, Row, encode_prefix};
use crate::index::Place;
use crate::media::{Media, MediaFile};
use crate::pending::{Change, Pending, Refused, Undo};
use crate::space::{Space, blocks};
use crate::{Result, StoreError};

/// Tries at a lock before a thread goes to sleep over it: about 5 us.
const SPINS: u32 = 200;
/// What a record ends in up to the next multiple of [`ALIGN`].
const PADDING: [u8; ALIGN as usize] = [0; ALIGN as usize];
/// The directory of segments, in the store's.
pub(crate) const DIR: &str = "log";

/// What to append. The sequence number is given at the append, but for a record that is moved.
#[derive(Debug)]
pub(crate) struct Append<'a> {
    pub(crate) header: Header,
    /// In parts, see [`encode_prefix`].
    pub(crate) key: &'a [&'a [u8]],
    pub(crate) head: &'a [u8],
    /// Empty if external.
    pub(crate) payload: &'a [u8],
    pub(crate) reference: Option<Ref>,
    pub(crate) hash: u128,
    pub(crate) space: u16,
    /// Keep the header's sequence number: the record is a copy of an older one.
    pub(crate) is_move: bool,
}

/// The log of one store.
#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    media: Arc<dyn Media>,
    seed: u64,
    segment_bytes: u64,
    space: Arc<Space>,
    /// The namespaces of the store by number: footers name them.
    spaces: Arc<RwLock<Vec<Vec<u8>>>>,
    segments: RwLock<BTreeMap<u32, Arc<Segment>>>,
    pub(crate) active: Mutex<Active>,
    /// One at a time writes what is pending.
    pub(crate) turn: Mutex<()>,
    /// Every record up to this number is in its file, or was refused.
    pub(crate) written_seq: AtomicU64,
    /// Bytes that are pending, about.
    pub(crate) pending_len: AtomicUsize,
    pub(crate) refused: Mutex<Refused>,
    pub(crate) failures: AtomicU64,
    /// Files written to since the last sync; the active segment comes on top.
    unsynced: Mutex<Vec<Arc<dyn MediaFile>>>,
}

#[derive(Debug)]
pub(crate) struct Active {
    segment: Option<Arc<Segment>>,
    rows: Vec<Row>,
    /// The spaces that the rows speak of, and what their names will take in the footer.
    spaces: HashSet<u16>,
    names_len: u64,
    /// Rows with a base, or more.
    based: usize,
    next_id: u32,
    pub(crate) next_seq: u64,
    /// Reused from append to append.
    buffer: Vec<u8>,
    pub(crate) pending: Pending,
}

impl Active {
    /// The rows so far of the segment that is appended to, if it is this one.
    pub(crate) fn rows_of(&self, segment: u32) -> Option<&[Row]> {
        self.segment.as_ref().is_some_and(|active| active.id == segment).then_some(&self.rows)
    }
}

/// What recovery found: where appending goes on.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// The last segment, if it was not sealed, and its rows.
    pub(crate) active: Option<(u32, Vec<Row>)>,
    pub(crate) next_id: u32,
    pub(crate) next_seq: u64,
}

impl Log {
    pub(crate) fn new(
        dir: PathBuf,
        media: Arc<dyn Media>,
        seed: u64,
        segment_bytes: u64,
        space: Arc<Space>,
        spaces: Arc<RwLock<Vec<Vec<u8>>>>,
    ) -> Self {
        let active = Active {
            segment: None,
            rows: Vec::new(),
            spaces: HashSet::new(),
            names_len: 0,
            based: 0,
            next_id: 0,
            next_seq: 1,
            buffer: Vec::new(),
            pending: Pending::default(),
        };
        Self {
            dir,
            media,
            seed,
            segment_bytes,
            space,
            spaces,
            segments: RwLock::default(),
            active: Mutex::new(active),
            turn: Mutex::default(),
            written_seq: AtomicU64::new(0),
            pending_len: AtomicUsize::new(0),
            refused: Mutex::default(),
            failures: AtomicU64::new(0),
            unsynced: Mutex::default(),
        }
    }

    /// Takes over what recovery found.
    pub(crate) fn recover(&self, segments: BTreeMap<u32, Arc<Segment>>, tail: Tail) {
        for segment in segments.values() {
            self.space.log.fetch_add(blocks(segment.len.load(Relaxed)), Relaxed);
        }
        let mut active = self.active.lock();
        if let Some((id, rows)) = tail.active {
            active.segment = segments.get(&id).cloned();
            rows.iter().for_each(|row| self.note_space(&mut active, row.space));
            active.based = rows.iter().filter(|row| row.base.is_some()).count();
            active.rows = rows;
        }
        active.next_id = tail.next_id;
        active.next_seq = tail.next_seq;
        self.written_seq.store(tail.next_seq.saturating_sub(1), Relaxed);
        *self.segments.write() = segments;
    }

    pub(crate) fn segment(&self, id: u32) -> Option<Arc<Segment>> {
        self.segments.read().get(&id).cloned()
    }

    /// Counts a record of `segment` as dead.
    pub(crate) fn note_dead(&self, place: &Place) {
        if let Some(segment) = self.segments.read().get(&place.segment) {
            segment.live.fetch_sub(u64::from(place.record_len), Relaxed);
        }
    }

    /// Counts a record of `segment` as alive again.
    pub(crate) fn note_alive(&self, place: &Place) {
        if let Some(segment) = self.segments.read().get(&place.segment) {
            segment.live.fetch_add(u64::from(place.record_len), Relaxed);
        }
    }

    /// Every segment but the one appended to, oldest first.
    pub(crate) fn sealed(&self) -> Vec<Arc<Segment>> {
        let active_id = self.active.lock().segment.as_ref().map(|segment| segment.id);
        self.segments.read().values().filter(|segment| Some(segment.id) != active_id).cloned().collect()
    }

    /// Every segment, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.segments.read().values().cloned().collect()
    }

    /// The sequence number of the last record.
    pub(crate) fn last_seq(&self) -> u64 {
        self.active.lock().next_seq - 1
    }

    /// Appends a record that changes the index so, and gives its sequence number and place. It is in memory then: see
    /// [`crate::pending`].
    pub(crate) fn append(&self, append: &Append<'_>, change: Option<Change>) -> Result<(u64, Place)> {
        let record_len = append.header.record_len();
        let mut guard = self.lock_active();
        let active = &mut *guard;
        active.pending.check_sound().map_err(StoreError::io("append to the log", record_len))?;
        let segment = self.segment_for(active, record_len)?;
        let mut header = append.header;
        if !append.is_move {
            header.seq = active.next_seq;
            active.next_seq += 1;
            active.pending.batch.note_seq(header.seq);
        }
        let offset = segment.end.load(Relaxed);
        let place = Place { segment: segment.id, offset, record_len: record_len as u32 };
        encode_prefix(
            &mut active.buffer,
            &header,
            append.key,
            append.head,
            append.reference.as_ref(),
            self.seed,
        );
        let padding_len = record_len as usize - active.buffer.len() - append.payload.len();
        let padding = PADDING.get(..padding_len).unwrap_or_default();
        let parts = [active.buffer.as_slice(), append.payload, padding];
        active.pending.batch.add_record(&segment, offset, active.rows.len(), &parts);
        if let Some(change) = change {
            active.pending.note_undo(Undo { hash: append.hash, seq: header.seq, place, change });
        }
        self.pending_len.fetch_add(record_len as usize, Relaxed);
        segment.end.store(offset + record_len, Relaxed);
        if header.record_type == RecordType::Put {
            segment.live.fetch_add(record_len, Relaxed);
        }
        let row = row(&header, append, place);
        self.note_space(active, row.space);
        active.based += usize::from(row.base.is_some());
        active.rows.push(row);
        self.note_active_len(active, &segment);
        Ok((header.seq, place))
    }

    /// Whoever holds the lock is through in a microsecond.
    pub(crate) fn lock_active(&self) -> MutexGuard<'_, Active> {
        lock_soon(&self.active)
    }

    /// Notes that segments were written to, of which those must be synced by name that are not appended to any longer.
    pub(crate) fn note_written<'a>(&self, active: &Active, segments: impl Iterator<Item = &'a Arc<Segment>>) {
        let active_id = active.segment.as_ref().map(|segment| segment.id);
        let sealed = segments.filter(|segment| Some(segment.id) != active_id);
        self.unsynced.lock().extend(sealed.map(|segment| segment.file.clone()));
    }

    /// Takes `segment` for ending where it says, behind `rows` rows if it is the active one: what was to come there was
    /// not written.
    pub(crate) fn cut(&self, active: &mut Active, segment: &Arc<Segment>, rows: usize) {
        if active.segment.as_ref().is_some_and(|current| current.id == segment.id) {
            active.rows.truncate(rows);
            self.note_active_len(active, segment);
        } else {
            self.note_len(segment, segment.end.load(Relaxed));
        }
    }

    /// Notes that the footer will name the space.
    fn note_space(&self, active: &mut Active, space: u16) {
        if active.spaces.insert(space) {
            active.names_len +=
                self.spaces.read().get(usize::from(space)).map_or(1, |name| 1 + name.len() as u64);
        }
    }

    /// The active segment counts with the footer it will get.
    fn note_active_len(&self, active: &Active, segment: &Segment) {
        let footer_len = footer_len(active.rows.len(), active.based) + active.names_len;
        self.note_len(segment, segment.end.load(Relaxed) + footer_len);
    }

    /// Counts the segment as `len` bytes long.
    fn note_len(&self, segment: &Segment, len: u64) {
        let old_len = segment.len.swap(len, Relaxed);
        // Most records end in the block they begin in; the count is everybody's.
        if blocks(len) != blocks(old_len) {
            self.space.log.fetch_add(blocks(len), Relaxed);
            self.space.log.fetch_sub(blocks(old_len), Relaxed);
        }
    }

    /// Makes every record that is in its file survive a power cut. One at a time: see [`crate::store::Inner::sync_all`].
    pub(crate) fn sync(&self) -> io::Result<()> {
        let file = self.active.lock().segment.as_ref().map(|segment| segment.file.clone());
        let unsynced = std::mem::take(&mut *self.unsynced.lock());
        for file in unsynced.iter().chain(&file) {
            if let Err(error) = file.sync_data() {
                self.unsynced.lock().extend(unsynced.iter().cloned());
                return Err(error);
            }
        }
        self.media.sync_dir(&self.dir)
    }
}

/// Tries for a while before it sleeps: whoever holds the lock is soon through, and putting a thread to sleep and waking it
/// costs more.
pub(crate) fn lock_soon<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    for _ in 0..SPINS {
        if let Some(guard) = mutex.try_lock() {
            return guard;
        }
        std::hint::spin_loop();
    }
    mutex.lock()
}

fn row(header: &Header, append: &Append<'_>, place: Place) -> Row {
    Row {
        record_type: header.record_type,
        hash: append.hash,
        seq: header.seq,
        expires_ms: header.expires_ms,
        offset: place.offset,
        record_len: place.record_len,
        payload_len: header.payload_len,
        logical_len: header.logical_len,
        cost_ms: header.cost_ms,
        created_ms: header.created_ms,
        // A tombstone speaks for a hash, whatever space that is from.
        space: if header.record_type == RecordType::Tombstone { 0 } else { append.space },
        is_pinned: header.is_pinned,
        group: header.group,
        reference: append.reference,
        base: header.base,
        is_rewritten: header.is_rewritten,
    }
}
