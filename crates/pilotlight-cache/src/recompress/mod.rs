//! Entries that nobody uses, stored smaller: who is looked at, and against which sibling it is stored.
//!
//! The store keeps an entry in another form and knows nothing of compression; [`crate::envelope::squeeze`] makes the forms and
//! knows nothing of entries. Here is what lies between. An entry is compressed at a high level and becomes one that others
//! can be stored against; or it is stored against one of those, if that takes much less. So a base is never a delta, and to read
//! an entry takes two steps at most.
//!
//! What is absent here: when to do it, which is the server's affair, and any state that must survive: what was done stands in
//! the store, and the sketches of what can be a base are made again by the first run after an open.

mod siblings;
mod sketch;

use std::cell::Cell;
use std::ops::ControlFlow;

use bytes::Bytes;
use parking_lot::Mutex;
use pilotlight_store::{Base, Rewrite, Stat, Store};

use self::siblings::{Class, SIBLINGS_MAX, Sibling, Siblings};
use self::sketch::Sketch;
use crate::backends::disk::{envelopes, from_store, set_aside};
use crate::envelope::Sealed;
use crate::envelope::squeeze::{LEN_MAX, LEN_MIN, Squeezable};
use crate::{Error, Key, Namespace, RecompressReport, Result};

/// Keys looked up at a time.
const PAGE: usize = 64;
/// Siblings that an entry is tried against.
const TRIES: usize = 2;
/// A delta must take at most so many parts of a hundred of what the entry takes alone: it keeps its base's bytes from going.
const DELTA_PERCENT_MAX: usize = 67;
/// One that takes so many parts of a hundred of the payload there is needs no comparison.
const DELTA_PERCENT_CLEAR: usize = 33;
/// A payload that stands for itself must take at most so many of what it took.
const SQUEEZED_PERCENT_MAX: usize = 97;

/// Stores entries smaller, one run at a time.
#[derive(Debug, Default)]
pub(crate) struct Recompressor {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    siblings: Siblings,
    /// Whether a run went through since the open: from then on every base there is is known.
    is_complete: bool,
}

/// What became of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// There is nothing to gain.
    Left,
    /// It is another entry by now, or there is no room for both forms: another run looks again.
    Unchanged,
    Squeezed {
        saved: u64,
    },
    Delta {
        saved: u64,
    },
}

/// One entry under its key, while it is looked at.
struct Subject<'a> {
    store: &'a Store,
    space: &'a [u8],
    key: &'a Key,
    stat: Stat,
    squeezable: Squeezable,
    class: Class,
    sketch: Sketch,
}

impl Recompressor {
    /// See [`crate::Maintenance::recompress`].
    pub(crate) fn run(
        &self,
        store: &Store,
        idle_before_ms: u64,
        progress: &mut dyn FnMut(&RecompressReport) -> ControlFlow<()>,
    ) -> Result<RecompressReport> {
        let mut state = self.state.lock();
        let mut report = RecompressReport::default();
        // What was rewritten before the open may be a base.
        let unknown_left = Cell::new(if state.is_complete { 0 } else { SIBLINGS_MAX });
        let wanted = |stat: &Stat| {
            let is_new = !stat.is_rewritten && stat.accessed_ms < idle_before_ms;
            let is_unknown = stat.is_rewritten && unknown_left.get() > 0;
            let len = u64::from(stat.logical_len);
            (is_new || is_unknown) && !stat.is_based && (LEN_MIN..=LEN_MAX).contains(&len)
        };
        for space in store.spaces() {
            let namespace = Namespace::new(&String::from_utf8_lossy(&space))?;
            let mut cursor = 0;
            loop {
                let page = store.scan_for(&space, cursor, PAGE, wanted).map_err(from_store)?;
                for (key, stat) in page.keys {
                    // To compress it would be for nothing. Another run looks again.
                    if !stat.is_rewritten && !store.has_room_to_spare(stat.stored_bytes) {
                        continue;
                    }
                    let key = Key::in_namespace(namespace.clone(), key);
                    let fate = match state.look_at(store, &space, &key, &stat) {
                        // There is no room for another's new form either.
                        Err(error @ (Error::ReadOnly { .. } | Error::Full { .. })) => return Err(error),
                        // Others need not wait for one that cannot be read now; another run looks again.
                        Err(_) => Fate::Unchanged,
                        Ok(fate) => fate,
                    };
                    report.note(fate);
                    if stat.is_rewritten {
                        unknown_left.set(unknown_left.get().saturating_sub(1));
                    }
                    if progress(&report).is_break() {
                        return Ok(report);
                    }
                }
                cursor = page.next;
                if cursor == 0 {
                    break;
                }
            }
        }
        state.is_complete = true;
        // What is not needed any longer is free when this is down.
        if report.entries_rewritten > 0 {
            store.sync().map_err(from_store)?;
        }
        Ok(report)
    }
}

impl RecompressReport {
    fn note(&mut self, fate: Fate) {
        self.entries_read += 1;
        if let Fate::Squeezed { saved } | Fate::Delta { saved } = fate {
            self.entries_rewritten += 1;
            self.bytes_saved += saved;
        }
        self.deltas += u64::from(matches!(fate, Fate::Delta { .. }));
    }
}

impl State {
    fn look_at(&mut self, store: &Store, space: &[u8], key: &Key, stat: &Stat) -> Result<Fate> {
        match self.try_look_at(store, space, key, stat) {
            // The next get is a miss; the run goes on.
            Err(error @ Error::Corrupt { .. }) => {
                set_aside(store, key, &error, stat.version);
                Ok(Fate::Left)
            }
            fate => fate,
        }
    }

    fn try_look_at(&mut self, store: &Store, space: &[u8], key: &Key, stat: &Stat) -> Result<Fate> {
        let Some((sealed, stat)) = read(store, space, key.bytes(), stat.version)? else {
            return Ok(Fate::Left);
        };
        let squeezable = Squeezable::of(&sealed)?;
        let class = Class::of(space, key, &sealed)?;
        let sketch = Sketch::of(squeezable.artifact());
        let subject = Subject { store, space, key, stat, squeezable, class, sketch };
        let fate = if stat.is_rewritten || subject.squeezable.is_hopeless() {
            Fate::Left
        } else {
            self.smaller(&subject)?
        };
        let is_delta = matches!(fate, Fate::Delta { .. });
        if fate == Fate::Left {
            store.leave_as_is(space, key.bytes(), stat.version);
        }
        if !is_delta && !subject.squeezable.is_hopeless() {
            self.siblings.add(subject.class.clone(), subject.sibling());
        }
        Ok(fate)
    }

    /// Stores the entry against a sibling or compresses it better, whichever is worth it.
    fn smaller(&mut self, subject: &Subject<'_>) -> Result<Fate> {
        let payload_len = subject.squeezable.payload_len();
        let is_at_most =
            |sealed: &Sealed, percent: usize, of_len: usize| sealed.payload.len() * 100 <= of_len * percent;
        let best = self.best_sibling(subject)?;
        if let Some((opened, sibling)) = &best
            && let Some(delta) = subject.squeezable.against(opened.artifact())
            && is_at_most(&delta, DELTA_PERCENT_CLEAR, payload_len)
            && let Some(base) = subject.base(sibling)?
        {
            return subject.rewrite(&delta, Some(&base));
        }
        let squeezed = subject.squeezable.squeezed();
        let squeezed = squeezed.filter(|squeezed| is_at_most(squeezed, SQUEEZED_PERCENT_MAX, payload_len));
        let alone_len = squeezed.as_ref().map_or(payload_len, |squeezed| squeezed.payload.len());
        if let Some((opened, sibling)) = &best
            && let Some(delta) = subject.squeezable.squeezed_against(opened.artifact())
            && is_at_most(&delta, DELTA_PERCENT_MAX, alone_len)
            && let Some(base) = subject.base(sibling)?
        {
            return subject.rewrite(&delta, Some(&base));
        }
        squeezed.map_or(Ok(Fate::Left), |squeezed| subject.rewrite(&squeezed, None))
    }

    /// The sibling against which it would take least, of those that look most like it.
    fn best_sibling(&mut self, subject: &Subject<'_>) -> Result<Option<(Squeezable, Sibling)>> {
        let mut best: Option<(usize, Squeezable, Sibling)> = None;
        for sibling in self.siblings.like(&subject.class, &subject.sketch, subject.key.bytes(), TRIES) {
            let Some(opened) = subject.opened(&sibling)? else {
                self.siblings.remove(&subject.class, &sibling);
                continue;
            };
            let Some(len) = subject.squeezable.len_against(opened.artifact()) else { continue };
            if best.as_ref().is_none_or(|(best_len, ..)| len < *best_len) {
                best = Some((len, opened, sibling));
            }
        }
        Ok(best.map(|(_, opened, sibling)| (opened, sibling)))
    }
}

impl Subject<'_> {
    fn sibling(&self) -> Sibling {
        Sibling {
            key: self.key.bytes().clone(),
            version: self.stat.version,
            digest: *self.squeezable.digest(),
            sketch: self.sketch.clone(),
        }
    }

    /// A sibling out of its envelope, if it is still there, and not a delta by now.
    fn opened(&self, sibling: &Sibling) -> Result<Option<Squeezable>> {
        let found = match read(self.store, self.space, &sibling.key, sibling.version) {
            Err(Error::Corrupt { .. }) => None,
            found => found?,
        };
        let opened = found.and_then(|(sealed, _)| Squeezable::of(&sealed).ok());
        Ok(opened.filter(|opened| opened.digest() == &sibling.digest))
    }

    /// The sibling as a base. Its file may be shared with others, under whose head it lies: what is read there counts.
    fn base(&self, sibling: &Sibling) -> Result<Option<Base>> {
        let base = self.store.base(self.space, &sibling.key, sibling.version).map_err(from_store)?;
        let is_same = |base: &Base| {
            let (head, payload) = (base.head.clone(), base.payload.clone());
            let opened = Squeezable::of(&Sealed { head, payload, payload_digest: None });
            opened.is_ok_and(|opened| opened.digest() == &sibling.digest)
        };
        Ok(base.filter(is_same))
    }

    fn rewrite(&self, sealed: &Sealed, base: Option<&Base>) -> Result<Fate> {
        let rewrite = Rewrite {
            space: self.space,
            key: self.key.bytes(),
            version: self.stat.version,
            head: &sealed.head,
            payload: &sealed.payload,
            base,
        };
        if !self.store.rewrite(&rewrite).map_err(from_store)? {
            return Ok(Fate::Unchanged);
        }
        let now = self.store.stat(self.space, self.key.bytes());
        let stored_bytes = now.map_or(self.stat.stored_bytes, |now| now.stored_bytes);
        let saved = self.stat.stored_bytes.saturating_sub(stored_bytes);
        Ok(if base.is_some() { Fate::Delta { saved } } else { Fate::Squeezed { saved } })
    }
}

/// The envelope under a key, if it is still that of `version` and stands for itself.
fn read(store: &Store, space: &[u8], key: &Bytes, version: u64) -> Result<Option<(Sealed, Stat)>> {
    let Some(stored) = store.peek(space, key).map_err(from_store)? else { return Ok(None) };
    let (sealed, base, stat) = envelopes(stored);
    Ok((stat.version == version && base.is_none()).then_some((sealed, stat)))
}
