use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use pilotlight_store::Durability;

use crate::media::crash::Crash;

/// A key: which space, and which key in it.
pub(super) type Name = (u8, u16);

/// What stands under a key; `None` when nothing does.
pub(super) type State = Option<Value>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) payload: Arc<[u8]>,
    pub(super) expires_ms: Option<u64>,
}

/// What a client of the store knows at one moment.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) durability: Durability,
    pub(super) now_ms: u64,
    keys: BTreeMap<Name, History>,
    /// What was asked for and not answered yet.
    under_way: Vec<(Name, State)>,
    /// What was evicted while it was under way, as was found out when it was answered.
    evicted: Evicted,
}

pub(super) type Evicted = Arc<Mutex<BTreeSet<Name>>>;

/// What was acknowledged under one key.
#[derive(Debug, Clone, Default)]
struct History {
    /// The last that was synced.
    synced: State,
    /// What came after it, in order.
    later: Vec<State>,
    /// What was refused since: a refusal may come after the deed, as when only the sync failed.
    doubtful: Vec<State>,
    /// The last of it was evicted.
    is_evicted: bool,
    /// And somebody asked for it since.
    is_missed: bool,
}

impl History {
    fn last(&self) -> &State {
        self.later.last().unwrap_or(&self.synced)
    }
}

impl Expected {
    pub(super) fn nothing(durability: Durability, now_ms: u64) -> Self {
        Self { durability, now_ms, keys: BTreeMap::new(), under_way: Vec::new(), evicted: Arc::default() }
    }

    /// What a store holds, all of it synced.
    pub(super) fn exactly(held: BTreeMap<Name, Value>, durability: Durability, now_ms: u64) -> Self {
        let history = |value| History { synced: Some(value), ..History::default() };
        let keys = held.into_iter().map(|(name, value)| (name, history(value))).collect();
        Self { keys, ..Self::nothing(durability, now_ms) }
    }

    /// Every key that something was ever put under, or is being.
    pub(super) fn names(&self) -> BTreeSet<Name> {
        self.keys.keys().copied().chain(self.under_way.iter().map(|(name, _)| *name)).collect()
    }

    /// The keys that hold something, as far as is known.
    pub(super) fn present(&self) -> impl Iterator<Item = (Name, &Value)> {
        self.keys.iter().filter_map(|(name, history)| {
            let value = history.last().as_ref()?;
            (!history.is_evicted && !self.is_expired(value)).then_some((*name, value))
        })
    }

    pub(super) fn last(&self, name: Name) -> State {
        self.present().find(|(other, _)| *other == name).map(|(_, value)| value.clone())
    }

    pub(super) fn begin(&mut self, changes: Vec<(Name, State)>) {
        self.under_way = changes;
        self.evicted = Arc::default();
    }

    /// What was under way was acknowledged.
    pub(super) fn acknowledge(&mut self) {
        for (name, state) in std::mem::take(&mut self.under_way) {
            let history = self.keys.entry(name).or_default();
            history.later.push(state);
            history.doubtful.clear();
            (history.is_evicted, history.is_missed) = (false, false);
        }
        if self.durability != Durability::Relaxed {
            self.sync();
        }
    }

    /// What was under way was refused.
    pub(super) fn fail(&mut self) {
        for (name, state) in std::mem::take(&mut self.under_way) {
            self.keys.entry(name).or_default().doubtful.push(state);
        }
    }

    /// All that was acknowledged is synced.
    pub(super) fn sync(&mut self) {
        for history in self.keys.values_mut() {
            history.synced = history.last().clone();
            history.later.clear();
        }
    }

    /// Takes note that the keys hold nothing any longer, and that they may have gone during the last two steps.
    pub(super) fn note_evicted(&mut self, names: &BTreeSet<Name>, before: &Evicted) -> Evicted {
        for name in names {
            self.keys.get_mut(name).expect("it held something").is_evicted = true;
        }
        before.lock().extend(names);
        self.evicted.lock().extend(names);
        self.evicted.clone()
    }

    /// Somebody asked for it, and was told that there is nothing.
    pub(super) fn miss(&mut self, name: Name) {
        if let Some(history) = self.keys.get_mut(&name) {
            history.is_missed = history.is_evicted;
        }
    }

    /// Whether the key may hold this after a `crash` now.
    pub(super) fn allows(&self, name: Name, found: Option<&[u8]>, crash: Crash) -> bool {
        let nothing = History::default();
        let history = self.keys.get(&name).unwrap_or(&nothing);
        // What a client was told is absent does not come back; a power cut may lose what took it.
        let is_gone = history.is_missed && crash == Crash::Kill;
        let mut allowed: Vec<&State> = vec![if is_gone { &None } else { history.last() }];
        let under_way = self.under_way.iter().filter(|(other, _)| *other == name);
        allowed.extend(under_way.clone().map(|(_, state)| state).chain(&history.doubtful));
        let mut may_be_gone = history.is_evicted || self.evicted.lock().contains(&name);
        if crash == Crash::PowerCut {
            allowed.push(&history.synced);
            allowed.extend(&history.later);
            // What replaced it may be lost with what it replaced.
            let is_changing =
                !history.later.is_empty() || !history.doubtful.is_empty() || under_way.count() > 0;
            may_be_gone |= is_changing && self.durability == Durability::Relaxed;
        }
        if may_be_gone {
            allowed.push(&None);
        }
        allowed.iter().any(|state| match state {
            Some(value) if !self.is_expired(value) => found == Some(&value.payload),
            _ => found.is_none(),
        })
    }

    fn is_expired(&self, value: &Value) -> bool {
        value.expires_ms.is_some_and(|expires_ms| expires_ms <= self.now_ms)
    }
}
