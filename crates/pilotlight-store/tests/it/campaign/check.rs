use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pilotlight_store::{ManualClock, Options, Store, StoreError};

use super::expected::{Expected, Name, Value};
use super::workload::{BOUND, Client, name, options, space, spaces};
use crate::media::crash::{Crash, Moment};
use crate::media::{FileSystem, Simulated};
use crate::setup::{Dice, get, original, put};

/// What is left of a store that crashed, and what was expected of it.
pub(super) struct Wreck<'a> {
    pub(super) files: FileSystem,
    pub(super) expected: &'a Expected,
    pub(super) crash: Crash,
    pub(super) what: String,
}

/// When what a crash left is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Swept {
    AtOnce,
    InTheEnd,
}

/// How an open went that kept every promise.
struct Opened {
    media: Arc<Simulated>,
    /// The moments of the open itself.
    moments: Vec<Moment>,
    found: BTreeMap<Name, Value>,
    /// Entries that were evicted, in opens before this one as well.
    evicted: u64,
}

impl Wreck<'_> {
    /// Opens it and checks every promise, opens it once more, and crashes it while it opens.
    pub(super) fn survives(&self, dice: &mut Dice) {
        let swept = if dice.percent(50) { Swept::AtOnce } else { Swept::InTheEnd };
        let opened = self.opens(0, swept);
        if dice.percent(20) {
            self.goes_on(opened.media, opened.found, dice);
            return;
        }
        self.stays(&opened);
        if opened.moments.is_empty() {
            return;
        }
        let at = dice.below(opened.moments.len());
        let crash = if dice.percent(50) { Crash::Kill } else { self.crash };
        let again = Wreck {
            files: opened.moments[at].after(crash, dice),
            expected: self.expected,
            crash: self.crash,
            what: format!("{}, and again by {crash:?} at call {at} of the open", self.what),
        };
        again.opens(opened.evicted, Swept::InTheEnd);
    }

    /// Opens it and checks every promise, once.
    pub(super) fn survives_once(&self) {
        self.opens(0, Swept::InTheEnd);
    }

    fn options(&self, media: Arc<Simulated>) -> Options {
        let clock = Arc::new(ManualClock::at(self.expected.now_ms));
        options(media, self.expected.durability, clock)
    }

    fn open(&self, media: &Arc<Simulated>) -> Store {
        Store::open(self.options(media.clone())).unwrap_or_else(|error| panic!("{}: {error}", self.what))
    }

    /// Opens it and checks every promise; `evicted` entries may be missing besides those that this open evicts.
    fn opens(&self, evicted: u64, swept: Swept) -> Opened {
        let media = Simulated::holding(self.files.clone());
        let moments = Arc::new(Mutex::new(Vec::new()));
        let recorded = moments.clone();
        media.record(move |files, change| {
            recorded.lock().push(Moment { files: files.clone(), change: change.clone() });
        });
        let store = self.open(&media);
        if swept == Swept::AtOnce {
            self.sweep(&store);
        }
        let moments = std::mem::take(&mut *moments.lock());
        media.record(|_, _| {});
        self.check_bound(&media);
        self.verify(&store);
        let found = self.check_entries(&store, evicted);
        // It still is a store.
        put(&store, b"new entry", b"payload").unwrap_or_else(|error| panic!("{}: {error}", self.what));
        assert_eq!(get(&store, b"new entry"), Some(b"payload".to_vec()), "{}", self.what);
        self.check_bound(&media);
        self.sweep(&store);
        let evicted = evicted + store.usage(None).evicted;
        drop(store);
        Opened { media, moments, found, evicted }
    }

    /// What one open found the next one finds.
    fn stays(&self, opened: &Opened) {
        let store = self.open(&opened.media);
        let kept = self.check_entries(&store, opened.evicted);
        let lost = opened.found.keys().filter(|name| !kept.contains_key(name)).count() as u64;
        let evicted = opened.evicted + store.usage(None).evicted;
        assert!(lost <= evicted, "{}: {lost} lost by a reopen, {evicted} evicted", self.what);
        assert!(kept.iter().all(|(name, payload)| opened.found.get(name) == Some(payload)), "{}", self.what);
    }

    /// A client goes on with what was left, and nothing of what was repaired comes to light later.
    fn goes_on(&self, media: Arc<Simulated>, found: BTreeMap<Name, Value>, dice: &mut Dice) {
        let expected = Expected::exactly(found, self.expected.durability, self.expected.now_ms);
        let mut client = Client::after(media.clone(), expected, dice.draw());
        assert!(client.open(), "{}", self.what);
        (0..60).for_each(|_| client.step());
        let files = media.files();
        let what = format!("{}, and a kill some time later", self.what);
        Wreck { files, expected: client.expected(), crash: Crash::Kill, what }.survives_once();
    }

    /// What the crash left goes, and nothing else.
    fn sweep(&self, store: &Store) {
        let before = store.checkup().unwrap();
        store.sweep().unwrap_or_else(|error| panic!("{}: {error}", self.what));
        let after = store.checkup().unwrap();
        assert_eq!((after.orphans, after.lost_files), (0, before.lost_files), "{}", self.what);
    }

    fn check_bound(&self, media: &Simulated) {
        let used = media.files().disk_use();
        assert!(used <= BOUND, "{}: {used} bytes under a bound of {BOUND}", self.what);
    }

    /// As `pilotlight verify` does it: what a power cut damaged is found and set aside once, and a kill damages nothing.
    fn verify(&self, store: &Store) {
        for round in 0..2 {
            for space in spaces() {
                let mut cursor = 0;
                loop {
                    let page = store.scan(space, cursor, 64).unwrap();
                    for (key, _) in &page.keys {
                        match store.peek(space, key) {
                            Ok(_) => {}
                            Err(StoreError::Corrupt { .. })
                                if round == 0 && self.crash == Crash::PowerCut => {}
                            Err(error) => panic!("{}: {:?}: {error}", self.what, name(space, key)),
                        }
                    }
                    cursor = page.next;
                    if cursor == 0 {
                        break;
                    }
                }
            }
        }
    }

    /// Every key holds something that it may hold. Gives what was found.
    fn check_entries(&self, store: &Store, evicted_before: u64) -> BTreeMap<Name, Value> {
        let mut found = BTreeMap::new();
        let mut missing = Vec::new();
        for name in self.expected.names() {
            let held = store.get(space(name), &name.1.to_le_bytes());
            let held = held.unwrap_or_else(|error| panic!("{}: {name:?}: {error}", self.what));
            let held = held.map(|stored| Value {
                payload: original(&stored).into(),
                expires_ms: stored.stat.expires_ms,
            });
            let payload = held.as_ref().map(|value| &value.payload[..]);
            if !self.expected.allows(name, payload, self.crash) {
                assert!(held.is_none(), "{}: {name:?} holds what it should not", self.what);
                missing.push(name);
            }
            held.map(|value| found.insert(name, value));
        }
        let evicted = evicted_before + store.usage(None).evicted;
        assert!(missing.len() as u64 <= evicted, "{}: {missing:?} are lost, {evicted} evicted", self.what);
        let known = found.len() as u64 + u64::from(store.stat(b"", b"new entry").is_some());
        let list = |space: &&[u8]| store.scan(space, 0, 10_000).unwrap().keys.len() as u64;
        assert_eq!(spaces().iter().map(list).sum::<u64>(), known, "{}", self.what);
        found
    }
}
