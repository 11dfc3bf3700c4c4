//! How an entry is read, and how keys are listed.

use std::io;

use bytes::Bytes;

use crate::blobs::Pin;
use crate::format::{
    BaseRef, HEADER_LEN, Header, Record, Ref, Row, decode_header, decode_record, key_hash, payload_check,
};
use crate::holds::{Hold, Role};
use crate::index::Slot;
use crate::log::Segment;
use crate::media::MediaFile;
use crate::ops::{ScanPage, Stat, Stored, TryGet, stat};
use crate::records::split_key;
use crate::rewrite::Base;
use crate::store::Inner;
use crate::{Result, StoreError, recovery};

/// Whether a read counts as a use, which eviction weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    AsUse,
    No,
}

/// Whether a read may wait for the medium, or a put for a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
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

impl Inner {
    pub(crate) fn get(&self, space: &[u8], key: &[u8], wait: Wait, noted: Noted) -> Result<TryGet> {
        let hash = key_hash(space, key, self.seed);
        let now_ms = self.options.clock.now_ms();
        let mut last_seq = None;
        loop {
            let slot = match noted {
                Noted::AsUse => self.touch(hash, now_ms),
                Noted::No => {
                    self.index.shard(hash).get(hash).filter(|slot| !slot.is_expired(now_ms)).copied()
                }
            };
            let Some(slot) = slot else { return Ok(TryGet::Ready(None)) };
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
                // It was replaced meanwhile, or taken back: see `crate::pending`.
                Read::Damaged(_) if !self.is_current(&slot) => continue,
                Read::Damaged(what) => what,
            };
            self.set_aside(&slot, Some((space, key)), &what)?;
            return Err(StoreError::Corrupt { what });
        }
    }

    fn is_current(&self, slot: &Slot) -> bool {
        self.current(slot).is_some_and(|current| (current.seq, current.place) == (slot.seq, slot.place))
    }

    /// What stands under the slot's hash by now.
    fn current(&self, slot: &Slot) -> Option<Slot> {
        self.index.shard(slot.hash).get(slot.hash).copied()
    }

    /// The slot under `hash`, its hit noted; an expired one is left to the background.
    pub(crate) fn touch(&self, hash: u128, now_ms: u64) -> Option<Slot> {
        let mut shard = self.index.shard(hash);
        let slot = shard.get_mut(hash).filter(|slot| !slot.is_expired(now_ms))?;
        slot.hits = slot.hits.saturating_add(1);
        slot.accessed_s = (now_ms / 1000) as u32;
        slot.standing = self.policy.used(&slot.standing, &slot.asset());
        Some(*slot)
    }

    fn read(&self, slot: &Slot, wait: Wait) -> Result<Read> {
        let Some(segment) = self.log.segment(slot.place.segment) else { return Ok(Read::Moved) };
        let (offset, len) = (slot.place.offset, slot.place.record_len as usize);
        let bytes = match self.log.read(&segment, offset, len, || read_at(&*segment.file, offset, len, wait))
        {
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
                let to = from + record.header.payload_len as usize;
                if to > bytes.len() {
                    return Ok(Read::Damaged("its payload is longer than its record".to_owned()));
                }
                bytes.slice(from..to)
            }
            Some(reference) => match self.read_external(reference, &record, wait)? {
                Ok(payload) => payload,
                Err(read) => return Ok(read),
            },
        };
        if payload_check(&payload, self.seed) != record.header.payload_check {
            return Ok(Read::Damaged("its payload fails the check".to_owned()));
        }
        let base = match record.header.base.map(|base| self.read_base(&base, wait)).transpose()? {
            None => None,
            Some(Ok(base)) => Some(Box::new(base)),
            Some(Err(read)) => return Ok(read),
        };
        let head = bytes.slice_ref(record.head);
        let joined = bytes.slice_ref(record.key);
        let Header { is_external, is_rewritten, .. } = record.header;
        let stored = Stored { head, payload, base, stat: stat(slot), is_external, is_rewritten };
        Ok(Read::Found(Box::new(stored), joined))
    }

    /// The payload that another is stored against, and the head it came with; the inner error is another way for the read to
    /// end. A damaged file is left where it is: whoever holds it as its payload may be whole, and finds out by itself.
    fn read_base(&self, base: &BaseRef, wait: Wait) -> Result<Result<Base, Read>> {
        let Some(pin) = self.blobs.pin(&base.reference) else { return Ok(Err(Read::Moved)) };
        let len = base.reference.payload_offset as usize + base.payload_len as usize;
        let read = || read_at(&*self.blobs.open(&pin)?, 0, len, wait);
        let bytes = match read() {
            Ok(Some(bytes)) => Bytes::from(bytes),
            Ok(None) => return Ok(Err(Read::WouldBlock)),
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound) => {
                Bytes::new()
            }
            Err(error) => return Err(StoreError::io("read a payload file", 0)(error)),
        };
        let whole = decode_record(&bytes, self.seed).and_then(|record| {
            let payload = bytes.get(record.header.body_offset()..)?;
            let is_whole = payload.len() == base.payload_len as usize
                && payload_check(payload, self.seed) == record.header.payload_check;
            is_whole.then(|| (bytes.slice_ref(record.head), bytes.slice_ref(payload)))
        });
        let Some((head, payload)) = whole else {
            return Ok(Err(Read::Damaged("its base fails the check".to_owned())));
        };
        Ok(Ok(Base { head, payload, reference: *base, owner: None }))
    }

    /// What an entry of the index can be as a base; `None` if it has a base of its own, or no file, or is not what it was.
    pub(crate) fn as_base(&self, slot: &Slot) -> Result<Option<Base>> {
        let Some(segment) = self.log.segment(slot.place.segment) else { return Ok(None) };
        let bytes = self.read_log(&segment, slot.place.offset, slot.place.record_len as usize)?;
        let record = decode_record(&bytes, self.seed).filter(|record| record.header.seq == slot.seq);
        let reference = record.as_ref().and_then(|record| {
            let payload_len = record.header.payload_len;
            let reference = record.reference.filter(|_| record.header.base.is_none())?;
            Some(BaseRef { reference, payload_len })
        });
        let Some(reference) = reference else { return Ok(None) };
        let base = self.read_base(&reference, Wait::Allowed)?.ok();
        Ok(base.map(|base| Base { owner: Some((slot.hash, slot.seq)), ..base }))
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

    /// Bytes of a segment, waited for; none where it ends before.
    pub(crate) fn read_log(&self, segment: &Segment, offset: u64, len: usize) -> Result<Vec<u8>> {
        match self.log.read(segment, offset, len, || read_at(&*segment.file, offset, len, Wait::Allowed)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
            bytes => bytes.map(Option::unwrap_or_default).map_err(StoreError::io("read the log", 0)),
        }
    }

    /// Which payload files an entry holds, by its record; by its row, where that cannot be read.
    pub(crate) fn holds(&self, segment: &Segment, slot: &Slot) -> Vec<Hold> {
        if let Some(recorded) = self.recorded_holds(segment, slot) {
            return recorded;
        }
        let row = self.row(segment, slot).unwrap_or_else(|error| {
            tracing::warn!(%error, "what an entry holds cannot be read: it is free at the next open");
            None
        });
        row.map_or_else(Vec::new, |row| holds(row.reference, row.base))
    }

    /// The same by its record alone, if that is whole.
    pub(crate) fn recorded_holds(&self, segment: &Segment, slot: &Slot) -> Option<Vec<Hold>> {
        let bytes = self.read_log(segment, slot.place.offset, slot.place.record_len as usize).ok()?;
        let record = decode_record(&bytes, self.seed).filter(|record| record.header.seq == slot.seq)?;
        Some(holds(record.reference, record.header.base))
    }

    /// What the footer of its segment says of an entry's record, or will.
    fn row(&self, segment: &Segment, slot: &Slot) -> io::Result<Option<Row>> {
        let is_it = |row: &Row| row.offset == slot.place.offset && row.seq == slot.seq;
        if let Some(rows) = self.log.active.lock().rows_of(segment.id) {
            return Ok(rows.iter().find(|row| is_it(row)).cloned());
        }
        let footer =
            recovery::read_footer(&segment.file, segment.file.length()?, self.seed, &mut Vec::new())?;
        Ok(footer.and_then(|(rows, _)| rows.into_iter().find(is_it)))
    }

    pub(crate) fn scan(
        &self,
        space: &[u8],
        cursor: u64,
        limit: usize,
        wanted: impl Fn(&Stat) -> bool,
    ) -> Result<ScanPage> {
        let mut page = ScanPage::default();
        let Some(number) = self.space_number(space) else { return Ok(page) };
        let now_ms = self.options.clock.now_ms();
        let mut slots: Vec<Slot> = Vec::new();
        for (from, shard) in self.index.shards_from_hash(cursor) {
            // Where to go on if all that was collected so far turns out to be gone.
            page.next = from;
            if slots.len() > limit.max(1) {
                break;
            }
            page.next = 0;
            slots.extend(shard.iter().filter(|slot| {
                slot.space == number
                    && (slot.hash >> 64) as u64 >= cursor
                    && !slot.is_expired(now_ms)
                    && wanted(&stat(slot))
            }));
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
            match self.key_of(&slot)? {
                Some(key) => page.keys.push((key, stat(&slot))),
                // Nobody moved or replaced it, so its record is damaged. No key leads to it: who else should find it?
                None if self.is_current(&slot) => {
                    let why = "its record is damaged, and its key with it";
                    if let Err(error) = self.set_aside(&slot, None, why) {
                        tracing::warn!(%error, "cannot set a damaged entry aside");
                    }
                }
                None => {}
            }
        }
        Ok(page)
    }

    /// The key of a slot, from its record; `None` if the entry is gone meanwhile, or damaged.
    pub(crate) fn key_of(&self, slot: &Slot) -> Result<Option<Bytes>> {
        let mut slot = *slot;
        for _ in 0..3 {
            if let Some(segment) = self.log.segment(slot.place.segment) {
                // Most keys are short: the header and 256 bytes hold the whole.
                let len = (slot.place.record_len as usize).min(HEADER_LEN + 256);
                let mut bytes = self.read_log(&segment, slot.place.offset, len)?;
                // What was staged there may have been taken back, and something else stand there by now.
                let header = decode_header(&bytes).filter(|header| header.seq == slot.seq);
                let Some(header) = header else {
                    match self.current(&slot) {
                        Some(current) => slot = current,
                        None => return Ok(None),
                    }
                    continue;
                };
                let whole = HEADER_LEN + usize::from(header.key_len);
                if whole > bytes.len() {
                    bytes = self.read_log(&segment, slot.place.offset, whole)?;
                }
                let key = bytes.get(HEADER_LEN..whole).and_then(split_key);
                // The hash stands for the record's check, which would take reading all of its head.
                let key = key.filter(|(space, key)| key_hash(space, key, self.seed) == slot.hash);
                return Ok(key.map(|(_, key)| Bytes::copy_from_slice(key)));
            }
            match self.current(&slot) {
                Some(current) => slot = current,
                None => return Ok(None),
            }
        }
        Ok(None)
    }
}

fn holds(reference: Option<Ref>, base: Option<BaseRef>) -> Vec<Hold> {
    let payload = reference.map(|reference| Hold { reference, role: Role::Payload });
    let base = base.map(|base| Hold { reference: base.reference, role: Role::Base });
    payload.into_iter().chain(base).collect()
}

fn read_at(file: &dyn MediaFile, offset: u64, len: usize, wait: Wait) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; len];
    match wait {
        Wait::Allowed => file.read_at(&mut bytes, offset).map(|()| Some(bytes)),
        Wait::Never => file.read_at_nowait(&mut bytes, offset).map(|is_read| is_read.then_some(bytes)),
    }
}
