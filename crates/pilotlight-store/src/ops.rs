//! What callers do with a store.

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use crate::blobs::Pin;
use crate::format::{
    HEAD_LEN_MAX, HEADER_LEN, Header, KEY_LEN_MAX, ROW_LEN, Record, RecordType, Ref, decode_header,
    decode_record, encode_prefix, key_hash, payload_check,
};
use crate::index::{Place, Slot};
use crate::log::{Append, Segment};
use crate::media::MediaFile;
use crate::records::{space_len, split_key};
use crate::space::{BLOCK, file_bytes};
use crate::store::{Inner, Store};
use crate::{Result, StoreError};

/// Payloads up to this length lie in the log, larger ones in files of their own. A log append costs a fifth of a file, a
/// file can be shared by equal payloads and freed alone; 32 KiB is where the two cross on ext4.
pub const INLINE_MAX: usize = 32 << 10;

/// What to put.
#[derive(Debug, Clone)]
pub struct PutRequest<'a> {
    /// Isolates keys; at most 255 bytes.
    pub space: &'a [u8],
    /// The key.
    pub key: &'a [u8],
    /// Small bytes kept beside the payload, for the caller's use.
    pub head: &'a [u8],
    /// The payload. Equal payloads over [`INLINE_MAX`] are stored once.
    pub payload: &'a [u8],
    /// The payload's BLAKE3, if the caller has it already. Payloads of one digest are taken to be equal.
    pub digest: Option<[u8; 32]>,
    /// Length of what the payload stands for, in bytes, for accounting.
    pub logical_len: u32,
    /// What it costs to make the payload again, in milliseconds; 0 when unknown. Eviction weighs it.
    pub cost_ms: u32,
    /// When the entry was made, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it expires, milliseconds since the Unix epoch; never when `None`.
    pub expires_ms: Option<u64>,
}

/// What must hold for a write to take place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// In any case.
    Always,
    /// If the key is absent.
    Absent,
    /// If the key is present.
    Present,
    /// If the key still holds this put.
    Version(u64),
}

impl Condition {
    fn holds(self, current: Option<&Slot>) -> bool {
        match self {
            Self::Always => true,
            Self::Absent => current.is_none(),
            Self::Present => current.is_some(),
            Self::Version(version) => current.is_some_and(|slot| slot.seq == version),
        }
    }
}

/// What is known of an entry without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The put that made it; grows over all keys.
    pub version: u64,
    /// See [`PutRequest::logical_len`].
    pub logical_len: u32,
    /// Bytes it takes on disk, without rounding to blocks.
    pub stored_bytes: u64,
    /// See [`PutRequest::created_ms`].
    pub created_ms: u64,
    /// See [`PutRequest::expires_ms`].
    pub expires_ms: Option<u64>,
    /// See [`PutRequest::cost_ms`].
    pub cost_ms: u32,
    /// When it was last put or got, milliseconds since the Unix epoch, to the second.
    pub accessed_ms: u64,
    /// Gets since the put or the open, saturating.
    pub hits: u32,
}

/// An entry as it was put, its check passed.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The caller's head.
    pub head: Bytes,
    /// The payload.
    pub payload: Bytes,
    /// What else is known.
    pub stat: Stat,
}

/// What a read without waiting gave.
#[derive(Debug)]
pub enum TryGet {
    /// The entry, or that there is none.
    Ready(Option<Stored>),
    /// The medium must be waited for: call [`Store::get`] where blocking is allowed.
    WouldBlock,
}

/// A part of a scan.
#[derive(Debug, Default)]
pub struct ScanPage {
    /// Keys in the order of their hashes.
    pub keys: Vec<(Bytes, Stat)>,
    /// Where to go on; 0 at the end.
    pub next: u64,
}

/// How much is kept, and what happened since the open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreUsage {
    /// Entries.
    pub entries: u64,
    /// Sum of [`PutRequest::logical_len`].
    pub logical_bytes: u64,
    /// As `du` counts the directory; of a space: without rounding and overhead.
    pub stored_bytes: u64,
    /// The bound.
    pub bound_bytes: u64,
    /// Evicted for space.
    pub evicted: u64,
    /// Expired.
    pub expired: u64,
    /// Set aside because their check failed.
    pub quarantined: u64,
    /// Puts whose payload was there already.
    pub deduplicated: u64,
    /// Payload files.
    pub files: u64,
}

/// Whether a read may wait for the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Allowed,
    Never,
}

/// How one try at reading an entry ended.
enum Read {
    Found(Box<Stored>, Bytes),
    WouldBlock,
    /// The entry was moved or replaced between the look-up and the read: look again.
    Moved,
    Damaged(String),
}

impl Store {
    /// The entry under `key`, whole and checked.
    ///
    /// # Errors
    /// `Corrupt` once for a damaged entry, which is set aside: later gets are misses. `Io` when the medium fails.
    pub fn get(&self, space: &[u8], key: &[u8]) -> Result<Option<Stored>> {
        match self.inner.get(space, key, Wait::Allowed)? {
            TryGet::Ready(found) => Ok(found),
            TryGet::WouldBlock => Ok(None),
        }
    }

    /// The same, if it can be had without waiting for the medium.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn try_get(&self, space: &[u8], key: &[u8]) -> Result<TryGet> {
        self.inner.get(space, key, Wait::Never)
    }

    /// What is known of the entry under `key`: a look into memory.
    #[must_use]
    pub fn stat(&self, space: &[u8], key: &[u8]) -> Option<Stat> {
        let hash = key_hash(space, key, self.inner.seed);
        let now_ms = self.inner.options.clock.now_ms();
        self.inner.index.shard(hash).get(hash).filter(|slot| !slot.is_expired(now_ms)).map(stat)
    }

    /// Notes a hit that was served from elsewhere, so that eviction knows of it, and says what is known of the entry.
    #[must_use]
    pub fn touch(&self, space: &[u8], key: &[u8]) -> Option<Stat> {
        let hash = key_hash(space, key, self.inner.seed);
        self.inner.touch(hash, self.inner.options.clock.now_ms()).map(|slot| stat(&slot))
    }

    /// Stores an entry if `condition` holds; gives its version, or `None` if it did not.
    ///
    /// # Errors
    /// `Full`, `TooLarge`, `ReadOnly` or `Io`; the old entry stands then.
    pub fn put(&self, request: &PutRequest<'_>, condition: Condition) -> Result<Option<u64>> {
        self.inner.put(request, condition)
    }

    /// Changes when an entry expires if `condition` holds; gives its new version, or `None`.
    ///
    /// # Errors
    /// As [`Store::put`] and [`Store::get`].
    pub fn set_expiry(
        &self,
        space: &[u8],
        key: &[u8],
        expires_ms: Option<u64>,
        condition: Condition,
    ) -> Result<Option<u64>> {
        loop {
            let Some(stored) = self.get(space, key)? else { return Ok(None) };
            let is_met = match condition {
                Condition::Always | Condition::Present => true,
                Condition::Absent => false,
                Condition::Version(version) => version == stored.stat.version,
            };
            if !is_met {
                return Ok(None);
            }
            let request = PutRequest {
                space,
                key,
                head: &stored.head,
                payload: &stored.payload,
                digest: None,
                logical_len: stored.stat.logical_len,
                cost_ms: stored.stat.cost_ms,
                created_ms: stored.stat.created_ms,
                expires_ms,
            };
            // Another write may have come between: then the loop looks at what it wrote.
            if let Some(version) = self.put(&request, Condition::Version(stored.stat.version))? {
                return Ok(Some(version));
            }
        }
    }

    /// Deletes an entry if `condition` holds, and says whether one was deleted.
    ///
    /// # Errors
    /// `Io` when the deletion cannot be recorded; the entry stands then.
    pub fn delete(&self, space: &[u8], key: &[u8], condition: Condition) -> Result<bool> {
        let hash = key_hash(space, key, self.inner.seed);
        let now_ms = self.inner.options.clock.now_ms();
        let removed =
            self.inner.remove(hash, |slot| !slot.is_expired(now_ms) && condition.holds(Some(slot)))?;
        self.inner.wait_durable()?;
        Ok(removed)
    }

    /// Up to about `limit` keys of `space`, from `cursor` on; 0 starts.
    ///
    /// # Errors
    /// `Io` when the medium fails.
    pub fn scan(&self, space: &[u8], cursor: u64, limit: usize) -> Result<ScanPage> {
        self.inner.scan(space, cursor, limit)
    }

    /// Deletes every entry of `space`, and says how many there were.
    ///
    /// # Errors
    /// `Io` when the deletion cannot be recorded; the entries stand then.
    pub fn clear(&self, space: &[u8]) -> Result<u64> {
        self.inner.clear(space)
    }

    /// How much is kept of `space`, or of all.
    #[must_use]
    pub fn usage(&self, space: Option<&[u8]>) -> StoreUsage {
        self.inner.usage(space)
    }

    /// Makes every put so far survive a power cut.
    ///
    /// # Errors
    /// `Io` when the medium fails.
    pub fn sync(&self) -> Result<()> {
        self.inner.sync_all().map(|_| ()).map_err(StoreError::io("sync", 0))
    }

    /// The names of the spaces that hold, or held, entries.
    #[must_use]
    pub fn spaces(&self) -> Vec<Vec<u8>> {
        self.inner.spaces.read().clone()
    }
}

impl Inner {
    fn get(&self, space: &[u8], key: &[u8], wait: Wait) -> Result<TryGet> {
        let hash = key_hash(space, key, self.seed);
        let now_ms = self.options.clock.now_ms();
        let mut last_seq = None;
        loop {
            let Some(slot) = self.touch(hash, now_ms) else { return Ok(TryGet::Ready(None)) };
            let what = match self.read(&slot, wait)? {
                Read::Found(stored, joined) if split_key(&joined) == Some((space, key)) => {
                    return Ok(TryGet::Ready(Some(*stored)));
                }
                // Two keys of one 128-bit hash: the other one has the slot.
                Read::Found(..) => return Ok(TryGet::Ready(None)),
                Read::WouldBlock => return Ok(TryGet::WouldBlock),
                // Gone twice at the same put: nobody moved it, it is lost.
                Read::Moved if last_seq == Some((slot.seq, slot.place)) => "its bytes are gone".to_owned(),
                Read::Moved => {
                    last_seq = Some((slot.seq, slot.place));
                    continue;
                }
                Read::Damaged(what) => what,
            };
            self.set_aside(&slot)?;
            return Err(StoreError::Corrupt { what });
        }
    }

    /// The slot under `hash`, its hit noted; an expired one is left to the background.
    fn touch(&self, hash: u128, now_ms: u64) -> Option<Slot> {
        let mut shard = self.index.shard(hash);
        let slot = shard.get_mut(hash).filter(|slot| !slot.is_expired(now_ms))?;
        slot.hits = slot.hits.saturating_add(1);
        slot.accessed_s = (now_ms / 1000) as u32;
        slot.worth = self.worth(slot);
        Some(*slot)
    }

    fn read(&self, slot: &Slot, wait: Wait) -> Result<Read> {
        let Some(segment) = self.log.segment(slot.place.segment) else { return Ok(Read::Moved) };
        let bytes = match read_at(&*segment.file, slot.place.offset, slot.place.record_len as usize, wait) {
            Ok(Some(bytes)) => Bytes::from(bytes),
            Ok(None) => return Ok(Read::WouldBlock),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Read::Damaged("the log ends inside it".to_owned()));
            }
            Err(error) => return Err(StoreError::io("read the log", 0)(error)),
        };
        let Some(record) = decode_record(&bytes, self.seed).filter(|record| record.header.seq == slot.seq)
        else {
            return Ok(Read::Damaged("its record fails the check".to_owned()));
        };
        let payload = match &record.reference {
            None => {
                let from = record.header.body_offset();
                bytes.slice(from..from + record.header.payload_len as usize)
            }
            Some(reference) => match self.read_external(reference, &record, wait)? {
                Ok(payload) => payload,
                Err(read) => return Ok(read),
            },
        };
        if payload_check(&payload, self.seed) != record.header.payload_check {
            return Ok(Read::Damaged("its payload fails the check".to_owned()));
        }
        let head = bytes.slice_ref(record.head);
        let joined = bytes.slice_ref(record.key);
        Ok(Read::Found(Box::new(Stored { head, payload, stat: stat(slot) }), joined))
    }

    /// The payload in a file; the inner error is another way for the read to end.
    fn read_external(&self, reference: &Ref, record: &Record<'_>, wait: Wait) -> Result<Result<Bytes, Read>> {
        let Some(pin) = self.blobs.pin(reference) else { return Ok(Err(Read::Moved)) };
        let read = |pin: &Pin<'_>| -> io::Result<Option<Vec<u8>>> {
            let file = self.blobs.open(pin)?;
            read_at(&*file, u64::from(reference.payload_offset), record.header.payload_len as usize, wait)
        };
        match read(&pin) {
            Ok(Some(bytes)) => Ok(Ok(bytes.into())),
            Ok(None) => Ok(Err(Read::WouldBlock)),
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound) => {
                Ok(Err(Read::Damaged(format!("its payload file: {error}"))))
            }
            Err(error) => Err(StoreError::io("read a payload file", 0)(error)),
        }
    }

    fn put(&self, request: &PutRequest<'_>, condition: Condition) -> Result<Option<u64>> {
        self.check_sizes(request)?;
        let hash = key_hash(request.space, request.key, self.seed);
        let now_ms = self.options.clock.now_ms();
        let live = |slot: &&Slot| !slot.is_expired(now_ms);
        // Asked again under the lock; asked here so that an unmet put writes no payload file.
        if condition != Condition::Always && !condition.holds(self.index.shard(hash).get(hash).filter(live)) {
            return Ok(None);
        }
        let space_len = space_len(request.space);
        let key: [&[u8]; 3] = [&space_len, request.space, request.key];
        let header = header(request, self.seed);
        let file_len = header.body_offset() + request.payload.len();
        let file_need = if header.is_external { file_bytes(file_len as u64) } else { 0 };
        let _reservation = self.reserve(header.record_len() + ROW_LEN as u64 + BLOCK + file_need)?;
        let held = if header.is_external { Some(self.hold_payload(&header, request, &key)?) } else { None };
        let append = Append {
            header,
            key: &key,
            head: request.head,
            payload: if header.is_external { &[] } else { request.payload },
            reference: held.as_ref().map(|held| held.reference),
            hash,
            space: self.intern_space(request.space),
            is_move: false,
        };
        let mut shard = self.index.shard(hash);
        if !condition.holds(shard.get(hash).filter(live)) {
            return Ok(None);
        }
        let (seq, place) = self.log.append(&append)?;
        let slot = self.slot(&append, seq, place, now_ms);
        let old = shard.insert(slot);
        let released = old.as_ref().and_then(|old| self.bury(old));
        self.count(old.as_ref(), Some(&slot));
        drop(shard);
        if let Some(held) = held {
            held.keep();
        }
        self.index.note_expiry(slot.expires_ms, hash);
        self.release(released);
        self.wait_for(seq)?;
        Ok(Some(seq))
    }

    fn check_sizes(&self, request: &PutRequest<'_>) -> Result<()> {
        let check = |what, size: usize, max: u64| {
            if size as u64 > max {
                return Err(StoreError::TooLarge { what, size_bytes: size as u64, max_bytes: max });
            }
            Ok(())
        };
        check("space", request.space.len(), 255)?;
        check("key", request.key.len() + request.space.len() + 1, KEY_LEN_MAX as u64)?;
        check("head", request.head.len(), HEAD_LEN_MAX as u64)?;
        check("entry", request.payload.len(), self.space.entry_max().min(u64::from(u32::MAX)))
    }

    fn slot(&self, append: &Append<'_>, seq: u64, place: Place, now_ms: u64) -> Slot {
        let mut slot = Slot {
            hash: append.hash,
            seq,
            expires_ms: append.header.expires_ms,
            created_ms: append.header.created_ms,
            place,
            payload_len: append.header.payload_len,
            logical_len: append.header.logical_len,
            cost_ms: append.header.cost_ms,
            accessed_s: (now_ms / 1000) as u32,
            worth: 0.0,
            hits: 0,
            space: append.space,
            is_external: append.header.is_external,
        };
        slot.worth = self.worth(&slot);
        slot
    }

    /// A payload file with these bytes: one that is there already, or a new one.
    fn hold_payload(&self, header: &Header, request: &PutRequest<'_>, key: &[&[u8]]) -> Result<Held<'_>> {
        let digest = half(request.digest.unwrap_or_else(|| *blake3::hash(request.payload).as_bytes()));
        let reference = match self.blobs.hold(digest) {
            Some(reference) => {
                self.counters.deduplicated.fetch_add(1, Relaxed);
                reference
            }
            None => {
                let inline = Header { is_external: false, ..*header };
                let mut prefix = Vec::new();
                encode_prefix(&mut prefix, &inline, key, request.head, None, self.seed);
                self.blobs.write(digest, &prefix, request.payload, !self.is_relaxed())?
            }
        };
        Ok(Held { inner: self, reference, is_kept: false })
    }

    /// Removes the entry under `hash` if `wanted` says so of it, with a tombstone, so that no restart brings it back.
    pub(crate) fn remove(&self, hash: u128, wanted: impl Fn(&Slot) -> bool) -> Result<bool> {
        let mut shard = self.index.shard(hash);
        let Some(slot) = shard.get(hash).filter(|slot| wanted(slot)).copied() else { return Ok(false) };
        let key = hash.to_le_bytes();
        self.log.append(&self.removal(RecordType::Tombstone, &[&key], hash, slot.space))?;
        shard.remove(hash);
        let released = self.forget(&slot);
        drop(shard);
        self.release(released);
        Ok(true)
    }

    fn removal<'a>(
        &self,
        record_type: RecordType,
        key: &'a [&'a [u8]],
        hash: u128,
        space: u16,
    ) -> Append<'a> {
        let header = Header {
            record_type,
            is_external: false,
            key_len: key.iter().map(|part| part.len() as u16).sum(),
            head_len: 0,
            payload_len: 0,
            seq: 0,
            expires_ms: 0,
            logical_len: 0,
            cost_ms: 0,
            created_ms: self.options.clock.now_ms(),
            payload_check: payload_check(&[], self.seed),
        };
        Append { header, key, head: &[], payload: &[], reference: None, hash, space, is_move: false }
    }

    /// Takes an entry that was just removed from the index out of all counts, and says which payload file it held.
    ///
    /// Its shard must still be locked: the cleaner needs that lock to move the record, so the record is where the slot
    /// says.
    pub(crate) fn forget(&self, slot: &Slot) -> Option<Ref> {
        self.count(Some(slot), None);
        self.bury(slot)
    }

    /// The same, but for the counts of its space.
    fn bury(&self, slot: &Slot) -> Option<Ref> {
        self.log.note_dead(&slot.place);
        if !slot.is_external {
            return None;
        }
        self.reference(&*self.log.segment(slot.place.segment)?, slot)
    }

    fn release(&self, reference: Option<Ref>) {
        if let Some(reference) = reference {
            self.blobs.release(&reference);
        }
    }

    /// Which payload file an entry holds, by its record.
    fn reference(&self, segment: &Segment, slot: &Slot) -> Option<Ref> {
        let len = slot.place.record_len as usize;
        let bytes = read_at(&*segment.file, slot.place.offset, len, Wait::Allowed).ok()??;
        decode_record(&bytes, self.seed)?.reference
    }

    /// Sets a damaged entry aside: its next get is a miss.
    pub(crate) fn set_aside(&self, slot: &Slot) -> Result<()> {
        let reference = if slot.is_external {
            self.log.segment(slot.place.segment).and_then(|segment| self.reference(&segment, slot))
        } else {
            None
        };
        if let Some(reference) = reference {
            self.blobs.quarantine(&reference);
        }
        if self.remove(slot.hash, |current| current.seq == slot.seq)? {
            self.counters.quarantined.fetch_add(1, Relaxed);
            tracing::warn!(key_hash = format!("{:032x}", slot.hash), "a damaged entry was set aside");
        }
        Ok(())
    }

    fn scan(&self, space: &[u8], cursor: u64, limit: usize) -> Result<ScanPage> {
        let mut page = ScanPage::default();
        let Some(number) = self.space_number(space) else { return Ok(page) };
        let now_ms = self.options.clock.now_ms();
        let mut slots: Vec<Slot> = Vec::new();
        for shard in self.index.shards_from_hash(cursor) {
            slots.extend(shard.iter().filter(|slot| {
                slot.space == number && (slot.hash >> 64) as u64 >= cursor && !slot.is_expired(now_ms)
            }));
            if slots.len() > limit.max(1) {
                break;
            }
        }
        slots.sort_unstable_by_key(|slot| slot.hash);
        let mut last = None;
        for slot in slots {
            let place = (slot.hash >> 64) as u64;
            // Two hashes may start alike: a page ends between two cursors, never inside one.
            if page.keys.len() >= limit.max(1) && last != Some(place) {
                page.next = place;
                break;
            }
            last = Some(place);
            if let Some(key) = self.key_of(&slot)? {
                page.keys.push((key, stat(&slot)));
            }
        }
        Ok(page)
    }

    /// The key of a slot, from its record; `None` if the entry is gone meanwhile.
    pub(crate) fn key_of(&self, slot: &Slot) -> Result<Option<Bytes>> {
        let mut slot = *slot;
        for _ in 0..3 {
            if let Some(segment) = self.log.segment(slot.place.segment) {
                // Most keys are short: the header and 256 bytes hold the whole.
                let len = (slot.place.record_len as usize).min(HEADER_LEN + 256);
                let mut bytes = read_at(&*segment.file, slot.place.offset, len, Wait::Allowed)
                    .map_err(StoreError::io("read the log", 0))?
                    .unwrap_or_default();
                let Some(header) = decode_header(&bytes) else { return Ok(None) };
                let whole = HEADER_LEN + usize::from(header.key_len);
                if whole > bytes.len() {
                    bytes = read_at(&*segment.file, slot.place.offset, whole, Wait::Allowed)
                        .map_err(StoreError::io("read the log", 0))?
                        .unwrap_or_default();
                }
                let key = bytes.get(HEADER_LEN..whole).and_then(split_key);
                return Ok(key.map(|(_, key)| Bytes::copy_from_slice(key)));
            }
            match self.index.shard(slot.hash).get(slot.hash) {
                Some(current) => slot = *current,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    fn clear(&self, space: &[u8]) -> Result<u64> {
        let Some(number) = self.space_number(space) else { return Ok(0) };
        let now_ms = self.options.clock.now_ms();
        let (seq, _) = self.log.append(&self.removal(RecordType::Clear, &[space], 0, number))?;
        let mut cleared = 0;
        for mut shard in self.index.shards_from(0) {
            // What was put after the clear was recorded stays.
            let gone: Vec<Slot> =
                shard.iter().filter(|slot| slot.space == number && slot.seq < seq).copied().collect();
            let mut released = Vec::new();
            for slot in &gone {
                cleared += u64::from(!slot.is_expired(now_ms));
                shard.remove(slot.hash);
                released.push(self.forget(slot));
            }
            drop(shard);
            released.into_iter().for_each(|reference| self.release(reference));
        }
        self.wait_for(seq)?;
        Ok(cleared)
    }

    fn usage(&self, space: Option<&[u8]>) -> StoreUsage {
        let mut usage = StoreUsage {
            bound_bytes: self.space.bound(),
            evicted: self.counters.evicted.load(Relaxed),
            expired: self.counters.expired.load(Relaxed),
            quarantined: self.counters.quarantined.load(Relaxed),
            deduplicated: self.counters.deduplicated.load(Relaxed),
            files: self.blobs.len() as u64,
            ..StoreUsage::default()
        };
        let wanted = space.map(|space| self.space_number(space));
        for (number, tally) in self.tallies.read().iter().enumerate() {
            if wanted.is_none_or(|wanted| wanted.map(usize::from) == Some(number)) {
                usage.entries += tally.entries.load(Relaxed);
                usage.logical_bytes += tally.logical_bytes.load(Relaxed);
                usage.stored_bytes += tally.stored_bytes.load(Relaxed);
            }
        }
        if space.is_none() {
            usage.stored_bytes = self.space.used();
        }
        usage
    }

    fn wait_durable(&self) -> Result<()> {
        if self.is_relaxed() { Ok(()) } else { self.wait_for(self.log.last_seq()) }
    }

    fn wait_for(&self, seq: u64) -> Result<()> {
        if self.is_relaxed() {
            return Ok(());
        }
        self.committer.wait(seq).map_err(StoreError::io("sync", 0))
    }
}

/// A payload file held for an entry that is not in the index yet; let go if it never gets there.
struct Held<'a> {
    inner: &'a Inner,
    reference: Ref,
    is_kept: bool,
}

impl Held<'_> {
    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.inner.blobs.release(&self.reference);
        }
    }
}

fn header(request: &PutRequest<'_>, seed: u64) -> Header {
    Header {
        record_type: RecordType::Put,
        is_external: request.payload.len() > INLINE_MAX,
        key_len: (1 + request.space.len() + request.key.len()) as u16,
        head_len: request.head.len() as u32,
        payload_len: request.payload.len() as u32,
        seq: 0,
        expires_ms: request.expires_ms.unwrap_or(0),
        logical_len: request.logical_len,
        cost_ms: request.cost_ms,
        created_ms: request.created_ms,
        payload_check: payload_check(request.payload, seed),
    }
}

/// The first half of a payload's BLAKE3: what equal payloads are known by.
fn half(digest: [u8; 32]) -> u128 {
    let (half, _) = digest.split_at(16);
    half.try_into().map_or(0, u128::from_be_bytes)
}

fn read_at(file: &dyn MediaFile, offset: u64, len: usize, wait: Wait) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; len];
    match wait {
        Wait::Allowed => file.read_at(&mut bytes, offset).map(|()| Some(bytes)),
        Wait::Never => file.read_at_nowait(&mut bytes, offset).map(|is_read| is_read.then_some(bytes)),
    }
}

fn stat(slot: &Slot) -> Stat {
    Stat {
        version: slot.seq,
        logical_len: slot.logical_len,
        stored_bytes: slot.stored_bytes(),
        created_ms: slot.created_ms,
        expires_ms: (slot.expires_ms != 0).then_some(slot.expires_ms),
        cost_ms: slot.cost_ms,
        accessed_ms: u64::from(slot.accessed_s) * 1000,
        hits: u32::from(slot.hits),
    }
}
