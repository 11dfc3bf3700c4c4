use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_store::media::Media;
use pilotlight_store::{Condition, Durability, ManualClock, Options, PutRequest, Result, Store, StoreError};

use super::expected::{Evicted, Expected, Name, State, Value};
use crate::media::crash::Crash;
use crate::setup::{Dice, START_MS, noise, original, request, store_against, turn};

/// The least bound there is: its segments are a megabyte each, and the cleaner is soon at work.
pub(super) const BOUND: u64 = (8 << 20) + (64 << 10);
pub(super) const DIR: &str = "/store";
const SPACES: [&[u8]; 3] = [b"", b"db1", b"db2"];
/// Keys in each space; the last is cleared now and then.
const KEYS: [u16; 3] = [120, 40, 10];

pub(super) fn format_path() -> PathBuf {
    Path::new(DIR).join("FORMAT")
}

pub(super) fn space(name: Name) -> &'static [u8] {
    SPACES[usize::from(name.0)]
}

/// The name that a key in a space was given.
pub(super) fn name(space: &[u8], key: &[u8]) -> Option<Name> {
    let number = SPACES.iter().position(|other| *other == space)?;
    Some((number as u8, u16::from_le_bytes(key.try_into().ok()?)))
}

pub(super) fn spaces() -> [&'static [u8]; 3] {
    SPACES
}

pub(super) fn options(media: Arc<dyn Media>, durability: Durability, clock: Arc<ManualClock>) -> Options {
    // None while a test lasts: what happens must depend on the seed.
    let tick = Duration::from_secs(3600);
    Options { media, durability, clock, tick, ..Options::new(DIR, BOUND) }
}

/// A client: does one thing after the other, and knows what it may expect.
pub(super) struct Client {
    media: Arc<dyn Media>,
    clock: Arc<ManualClock>,
    dice: Dice,
    store: Option<Store>,
    expected: Expected,
    /// What whoever looks at the medium meanwhile may expect.
    told: Arc<Mutex<Arc<Expected>>>,
    /// What was evicted in the last step.
    evicted: Evicted,
    /// Entries gone since the open that nobody deleted.
    gone: u64,
    /// Steps that failed.
    failures: u64,
}

impl Client {
    pub(super) fn new(media: Arc<dyn Media>, durability: Durability, seed: u64) -> Self {
        let expected = Expected::nothing(durability, START_MS);
        let told = Arc::new(Mutex::new(Arc::new(expected.clone())));
        Self {
            media,
            clock: Arc::new(ManualClock::at(START_MS)),
            dice: Dice::new(seed),
            store: None,
            expected,
            told,
            evicted: Arc::default(),
            gone: 0,
            failures: 0,
        }
    }

    /// Goes on where another client stopped.
    pub(super) fn after(media: Arc<dyn Media>, expected: Expected, seed: u64) -> Self {
        let mut client = Self::new(media, expected.durability, seed);
        client.clock.advance_ms(expected.now_ms - START_MS);
        client.expected = expected;
        client
    }

    /// What may be expected, kept up to date.
    pub(super) fn told(&self) -> Arc<Mutex<Arc<Expected>>> {
        self.told.clone()
    }

    pub(super) fn expected(&self) -> &Expected {
        &self.expected
    }

    fn tell(&self) {
        *self.told.lock() = Arc::new(self.expected.clone());
    }

    /// Opens the store, and says whether it could be.
    pub(super) fn open(&mut self) -> bool {
        let options = options(self.media.clone(), self.expected.durability, self.clock.clone());
        self.store = Store::open(options).ok();
        self.store.is_some()
    }

    pub(super) fn close(&mut self) {
        self.store = None;
    }

    pub(super) fn is_open(&self) -> bool {
        self.store.is_some()
    }

    pub(super) fn store(&self) -> &Store {
        self.store.as_ref().expect("it was opened")
    }

    /// Does one of the things that clients do.
    pub(super) fn step(&mut self) {
        match self.dice.below(100) {
            0..42 => self.put_some(1),
            42..50 => self.rewrite(),
            50..62 => {
                let count = 2 + self.dice.below(4);
                self.put_some(count);
            }
            62..74 => self.delete(),
            74..80 => self.set_expiry(),
            80..85 => self.join(),
            85..90 => self.get(),
            90..94 => _ = self.sync(),
            94..96 => self.clear(),
            96..98 => self.clock_on(),
            _ => self.reopen(),
        }
    }

    fn name(&mut self) -> Name {
        let space = [0, 0, 0, 1, 1, 2][self.dice.below(6)];
        (space, self.dice.below(usize::from(KEYS[usize::from(space)])) as u16)
    }

    fn value(&mut self) -> Value {
        let (from, to) = [(0, 3000), (10_000, 32_768), (33_000, 150_000)][self.dice.below(3)];
        let len = from + self.dice.below(to - from);
        // Some are equal to others, and share a file then.
        let payload = match self.dice.below(10) {
            0 => noise(self.dice.draw() % 3, 50_000),
            _ => noise(self.dice.draw(), len),
        };
        let expires_ms = self.dice.percent(10).then(|| self.expected.now_ms + 1000);
        Value { payload: payload.into(), expires_ms }
    }

    fn put_some(&mut self, count: usize) {
        let puts: Vec<(Name, Value)> = (0..count).map(|_| (self.name(), self.value())).collect();
        let changes = puts.iter().map(|(name, value)| (*name, Some(value.clone()))).collect();
        let unconditional = |version: Option<u64>| version.expect("an unconditional put");
        self.change(changes, |store| {
            if let [(name, value)] = &puts[..] {
                let key = name.1.to_le_bytes();
                return store.put(&request_for(*name, &key, value), Condition::Always).map(|_| ());
            }
            let stage = |(name, value): &(Name, Value)| {
                let key = name.1.to_le_bytes();
                store.stage(&request_for(*name, &key, value), Condition::Always).map(unconditional)
            };
            let staged: Vec<_> = puts.iter().map(stage).collect();
            // Each is settled, whether another failed or not.
            staged.into_iter().map(|version| store.settle(version?)).fold(Ok(()), Result::and)
        });
    }

    /// As a put goes what is meant to change nothing.
    fn rewrite(&mut self) {
        let (name, base) = (self.name(), self.name());
        let (space, key) = (space(name), name.1.to_le_bytes());
        let is_delta = self.dice.percent(70);
        let base = base.1.to_le_bytes();
        self.change(Vec::new(), |store| {
            let rewritten =
                if is_delta { store_against(store, space, &key, &base) } else { turn(store, space, &key) };
            rewritten.map(|_| ())
        });
    }

    /// As a put goes what changes but the group. Whoever is in another one already is in none then.
    fn join(&mut self) {
        let leader = self.name();
        let names: Vec<Name> = (0..4).map(|_| self.name()).filter(|name| name.0 == leader.0).collect();
        let names: BTreeSet<Name> = names.into_iter().chain([leader]).collect();
        let changes =
            names.iter().filter_map(|name| Some((*name, Some(self.expected.last(*name)?)))).collect();
        self.change(changes, |store| {
            let keys: Vec<[u8; 2]> = names.iter().map(|name| name.1.to_le_bytes()).collect();
            let keys: Vec<&[u8]> = keys.iter().map(<[u8; 2]>::as_slice).collect();
            let number = NonZeroU32::MIN.saturating_add(leader.1.into());
            store.join(space(leader), &leader.1.to_le_bytes(), number, &keys).map(|_| ())
        });
    }

    fn get(&mut self) {
        let name = self.name();
        self.look(name);
    }

    fn look(&mut self, name: Name) {
        let found = match self.store().get(space(name), &name.1.to_le_bytes()) {
            Ok(found) => found.map(|stored| original(&stored)),
            Err(error) => return assert!(!matches!(error, StoreError::Corrupt { .. }), "{error}"),
        };
        let is_right = self.expected.allows(name, found.as_deref(), Crash::Kill);
        let found_len = found.as_ref().map(|found| found.len());
        let may_be_gone = self.failures > 0 && found.is_none();
        assert!(is_right || may_be_gone, "{name:?} holds {found_len:?} bytes, which it should not");
        if found.is_none() {
            self.expected.miss(name);
            self.tell();
        }
    }

    fn delete(&mut self) {
        let name = self.name();
        self.change(vec![(name, None)], |store| {
            store.delete(space(name), &name.1.to_le_bytes(), Condition::Always).map(|_| ())
        });
    }

    fn set_expiry(&mut self) {
        let name = self.name();
        let Some(value) = self.expected.last(name) else { return };
        let expires_ms = Some(self.expected.now_ms + 500);
        self.change(vec![(name, Some(Value { expires_ms, ..value }))], |store| {
            store.set_expiry(space(name), &name.1.to_le_bytes(), expires_ms, Condition::Always).map(|_| ())
        });
    }

    fn clear(&mut self) {
        let cleared = (KEYS.len() - 1) as u8;
        let gone: Vec<(Name, State)> = self
            .expected
            .names()
            .into_iter()
            .filter(|(space, _)| *space == cleared)
            .map(|name| (name, None))
            .collect();
        self.change(gone, |store| store.clear(space((cleared, 0))).map(|_| ()));
    }

    /// Says whether it was synced.
    pub(super) fn sync(&mut self) -> bool {
        let is_synced = self.store().sync().is_ok();
        if is_synced {
            self.expected.sync();
            self.tell();
        }
        is_synced
    }

    fn clock_on(&mut self) {
        self.clock.advance_ms(400);
        self.expected.now_ms += 400;
        self.tell();
    }

    fn reopen(&mut self) {
        self.change(Vec::new(), |_| Ok(()));
        self.close();
        // A close syncs, and says nothing if it cannot.
        self.expected.sync();
        self.tell();
        self.gone = 0;
        self.open();
    }

    /// Has the store make changes, and notes what came of them.
    fn change(&mut self, changes: Vec<(Name, State)>, make: impl FnOnce(&Store) -> Result<()>) {
        let names: Vec<Name> = changes.iter().map(|(name, _)| *name).collect();
        self.expected.begin(changes);
        self.tell();
        match make(self.store()) {
            Ok(()) => self.expected.acknowledge(),
            Err(error) => {
                assert!(!matches!(error, StoreError::Corrupt { .. }), "{error}");
                self.failures += 1;
                self.expected.fail();
                names.into_iter().for_each(|name| self.look(name));
            }
        }
        let is_gone =
            |(name, _): &(Name, &Value)| self.store().stat(space(*name), &name.1.to_le_bytes()).is_none();
        let gone: BTreeSet<Name> = self.expected.present().filter(is_gone).map(|(name, _)| name).collect();
        self.gone += gone.len() as u64;
        let usage = self.store().usage(None);
        let is_counted = self.gone <= usage.evicted || self.failures > 0;
        assert!(is_counted, "{} entries are gone, {gone:?} now: {usage:?}", self.gone);
        self.evicted = self.expected.note_evicted(&gone, &self.evicted.clone());
        self.tell();
    }
}

fn request_for<'a>(name: Name, key: &'a [u8], value: &'a Value) -> PutRequest<'a> {
    PutRequest { space: space(name), expires_ms: value.expires_ms, ..request(key, &value.payload) }
}
