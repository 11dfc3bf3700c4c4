//! What is still to be sent to the origin: by key, bounded, and the same after a restart.
//!
//! Of one key there is one thing to do, the latest that was asked for, and never two at a time: an older put that is slow must
//! not land after a newer one. A namespace that is to be cleared is cleared before anything newer of it is sent.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_channel::oneshot;
use parking_lot::Mutex;
use pilotlight_store::Clock;
use tokio::sync::Notify;

use super::counts::Counter;
use super::journal::{Journal, Record, Says, encode};
use super::{OriginCounts, OriginError};
use crate::{Key, Namespace, Version};

/// When the queue is empty, a longer journal is emptied.
const JOURNAL_EMPTIED_FROM: u64 = 1 << 20;
/// A longer one is written anew with what is left: that of some 600,000 operations during which the queue was never empty.
const JOURNAL_REWRITTEN_FROM: u64 = 64 << 20;

/// What is to be done with a key's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Put the entry that the disk has.
    Upload,
    /// The same where nothing is.
    UploadFirst,
    /// Delete it.
    Remove,
    /// Put it again if it has grown old. Not in the journal: the next use asks for it again.
    Keep,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Job {
    /// With one object.
    One(Key, Action),
    /// Delete all objects of the namespace.
    Clear(Namespace),
}

/// What became of a wish to send something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queued {
    Yes,
    /// Too much waits already.
    Full,
}

type Outcome = Result<(), OriginError>;

/// What is to be done with one key.
#[derive(Debug)]
struct Intent {
    action: Action,
    /// What was asked for since it began, if it is under way.
    next: Option<Action>,
    is_running: bool,
    /// Its place in the order.
    number: u64,
    since_ms: u64,
    versions: Vec<Version>,
    waiting: Vec<oneshot::Sender<Outcome>>,
}

/// How far the clearing of a namespace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clearing {
    Waits,
    IsRunning,
    /// Asked for once more meanwhile: what was put in between may have been passed over already.
    IsToRunAgain,
}

#[derive(Debug, Default)]
struct State {
    intents: HashMap<Key, Intent>,
    /// Those that are not under way.
    order: BTreeMap<u64, Key>,
    last_number: u64,
    clears: HashMap<Namespace, Clearing>,
    /// Keys by the puts that are to be sent, for who waits for them.
    by_version: HashMap<Version, Key>,
    /// Records that are not in the journal yet.
    unwritten: Vec<u8>,
}

/// What is still to be sent.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Locked before the state, if both are.
    journal: Option<Mutex<Journal>>,
    /// Of intents and clears, for who only wants to know that there are none.
    len: AtomicUsize,
    max: usize,
    is_unsynced: AtomicBool,
    clock: Arc<dyn Clock>,
    counts: Arc<OriginCounts>,
    /// Something is to be done.
    pub(crate) wake: Notify,
    /// Something was done.
    pub(crate) progress: Notify,
}

impl Queue {
    /// A queue of at most `max` puts, which is kept in `dir`; in memory alone where there is none.
    pub(crate) fn open(
        dir: Option<&Path>,
        max: usize,
        clock: Arc<dyn Clock>,
        counts: Arc<OriginCounts>,
    ) -> io::Result<Self> {
        let (journal, records) = match dir {
            Some(dir) => Journal::open(dir).map(|(journal, records)| (Some(Mutex::new(journal)), records))?,
            None => (None, Vec::new()),
        };
        let queue = Self {
            state: Mutex::default(),
            journal,
            len: AtomicUsize::new(0),
            max,
            is_unsynced: AtomicBool::new(false),
            clock,
            counts,
            wake: Notify::new(),
            progress: Notify::new(),
        };
        queue.replay(records);
        Ok(queue)
    }

    fn replay(&self, records: Vec<Record>) {
        let now_ms = self.clock.now_ms();
        let mut state = self.state.lock();
        for Record { says, key } in records {
            let action = match says {
                Says::Upload => Action::Upload,
                Says::UploadFirst => Action::UploadFirst,
                Says::Remove => Action::Remove,
                Says::Done => {
                    state.forget(&key);
                    continue;
                }
                Says::Clear => {
                    state.clear(key.namespace());
                    continue;
                }
                Says::Cleared => {
                    state.clears.remove(key.namespace());
                    continue;
                }
            };
            state.want(&key, action, None, now_ms);
        }
        self.len.store(state.len(), Ordering::Release);
    }

    /// Asks for `action` on `key`, in place of what was asked for before. In the journal after [`Queue::flush`].
    pub(crate) fn push(&self, key: &Key, action: Action, version: Option<Version>) -> Queued {
        let now_ms = self.clock.now_ms();
        let mut state = self.state.lock();
        let is_known = state.intents.contains_key(key);
        if action == Action::Keep && is_known {
            return Queued::Yes;
        }
        // What is deleted must not come back, so a deletion has room where a put has none.
        let max = if action == Action::Remove { self.max.saturating_mul(2) } else { self.max };
        if !is_known && state.intents.len() >= max {
            return Queued::Full;
        }
        if let Some(says) = state.want(key, action, version, now_ms)
            && self.journal.is_some()
        {
            encode(says, key, &mut state.unwritten);
        }
        self.len.store(state.len(), Ordering::Release);
        drop(state);
        self.wake.notify_one();
        Queued::Yes
    }

    /// Asks for a namespace to be cleared, which is all that is to be done with what it held so far.
    pub(crate) fn push_clear(&self, namespace: &Namespace) {
        let mut state = self.state.lock();
        state.clear(namespace);
        if self.journal.is_some() {
            let place = Key::in_namespace(namespace.clone(), "");
            encode(Says::Clear, &place, &mut state.unwritten);
        }
        self.len.store(state.len(), Ordering::Release);
        drop(state);
        self.wake.notify_one();
    }

    /// Whether the object of `key` is to be deleted: then there is nothing to be got.
    pub(crate) fn is_gone(&self, key: &Key) -> bool {
        if self.len.load(Ordering::Acquire) == 0 {
            return false;
        }
        let state = self.state.lock();
        match state.intents.get(key) {
            Some(intent) => intent.wanted() == Action::Remove,
            None => state.clears.contains_key(key.namespace()),
        }
    }

    /// Whether a put of `key` is still to be sent: then the entry here is the newer one.
    pub(crate) fn is_ahead(&self, key: &Key) -> bool {
        if self.len.load(Ordering::Acquire) == 0 {
            return false;
        }
        let is_put = |intent: &Intent| matches!(intent.wanted(), Action::Upload | Action::UploadFirst);
        self.state.lock().intents.get(key).is_some_and(is_put)
    }

    /// Tells what becomes of the put that was given `version`; nothing, if that is known already.
    pub(crate) fn outcome(&self, version: Version) -> Option<oneshot::Receiver<Outcome>> {
        let mut state = self.state.lock();
        let key = state.by_version.get(&version)?.clone();
        let (sender, receiver) = oneshot::channel();
        state.intents.get_mut(&key)?.waiting.push(sender);
        Some(receiver)
    }

    /// The next thing to do, which is under way then.
    pub(crate) fn take(&self) -> Option<Job> {
        let mut state = self.state.lock();
        let State { intents, order, clears, .. } = &mut *state;
        if clears.values().any(|clearing| *clearing == Clearing::Waits) {
            let running = intents.iter().filter(|(_, intent)| intent.is_running);
            let busy: HashSet<&Namespace> = running.map(|(key, _)| key.namespace()).collect();
            for (namespace, clearing) in clears.iter_mut() {
                if *clearing == Clearing::Waits && !busy.contains(namespace) {
                    *clearing = Clearing::IsRunning;
                    return Some(Job::Clear(namespace.clone()));
                }
            }
        }
        let number = *order.iter().find(|(_, key)| !clears.contains_key(key.namespace()))?.0;
        let key = order.remove(&number)?;
        let intent = intents.get_mut(&key)?;
        intent.is_running = true;
        Some(Job::One(key, intent.action))
    }

    /// What was under way has ended. What failed is tried again, behind all else.
    pub(crate) fn finish(&self, job: &Job, outcome: &Outcome) {
        let mut state = self.state.lock();
        let done = match job {
            Job::One(key, _) => state.finish(key, outcome).then(|| (Says::Done, key.clone())),
            Job::Clear(namespace) => {
                let is_done = outcome.is_ok() && state.clears.get(namespace) != Some(&Clearing::IsToRunAgain);
                if is_done {
                    state.clears.remove(namespace);
                } else {
                    state.clears.insert(namespace.clone(), Clearing::Waits);
                }
                is_done.then(|| (Says::Cleared, Key::in_namespace(namespace.clone(), "")))
            }
        };
        if let (Some((says, key)), true) = (done, self.journal.is_some()) {
            encode(says, &key, &mut state.unwritten);
        }
        self.len.store(state.len(), Ordering::Release);
        drop(state);
        self.progress.notify_waiters();
        self.wake.notify_one();
    }

    /// How much waits or is under way, and for how long the oldest of it.
    pub(crate) fn backlog(&self) -> (u64, u64) {
        let now_ms = self.clock.now_ms();
        let state = self.state.lock();
        let oldest_ms = state.intents.values().map(|intent| intent.since_ms).min();
        (state.len() as u64, oldest_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    /// Writes what was asked for since the last time: `kill -9` loses none of it then. A journal that cannot be written costs
    /// what a restart would have remembered, and is counted.
    pub(crate) fn flush(&self) {
        let Some(journal) = &self.journal else { return };
        if self.state.lock().unwritten.is_empty() {
            return;
        }
        let mut journal = journal.lock();
        let mut state = self.state.lock();
        let unwritten = std::mem::take(&mut state.unwritten);
        if unwritten.is_empty() {
            return;
        }
        let written = if state.is_empty() && journal.len() > JOURNAL_EMPTIED_FROM {
            journal.reset()
        } else if journal.len() > JOURNAL_REWRITTEN_FROM {
            let records = state.records();
            drop(state);
            journal.rewrite(&records)
        } else {
            drop(state);
            journal.append(&unwritten)
        };
        if written.is_err() {
            self.counts.count(Counter::JournalFailures);
        }
        self.is_unsynced.store(true, Ordering::Release);
    }

    /// Whether a power cut may forget something.
    pub(crate) fn is_unsynced(&self) -> bool {
        self.is_unsynced.load(Ordering::Acquire)
    }

    /// Makes what was flushed survive a power cut. May block.
    pub(crate) fn sync(&self) {
        let Some(journal) = &self.journal else { return };
        if !self.is_unsynced.swap(false, Ordering::AcqRel) {
            return;
        }
        let handle = journal.lock().handle();
        if handle.and_then(|file| file.sync_data()).is_err() {
            self.counts.count(Counter::JournalFailures);
        }
    }
}

impl Intent {
    /// What is to be so in the end.
    fn wanted(&self) -> Action {
        self.next.unwrap_or(self.action)
    }
}

impl State {
    fn len(&self) -> usize {
        self.intents.len() + self.clears.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes what is wanted, and says what the journal is to be told, if that is anything new.
    fn want(&mut self, key: &Key, action: Action, version: Option<Version>, now_ms: u64) -> Option<Says> {
        if let Some(version) = version {
            self.by_version.insert(version, key.clone());
        }
        let Some(intent) = self.intents.get_mut(key) else {
            self.last_number += 1;
            let number = self.last_number;
            self.order.insert(number, key.clone());
            let versions = Vec::from_iter(version);
            let intent = Intent {
                action,
                next: None,
                is_running: false,
                number,
                since_ms: now_ms,
                versions,
                waiting: Vec::new(),
            };
            self.intents.insert(key.clone(), intent);
            return says(action);
        };
        intent.versions.extend(version);
        let before = intent.wanted();
        // What is put where something is to be deleted takes its place.
        let wanted = match (before, action) {
            (Action::Remove | Action::Upload, Action::UploadFirst) => Action::Upload,
            (_, action) => action,
        };
        if intent.is_running {
            intent.next = Some(wanted);
        } else {
            intent.action = wanted;
        }
        if wanted == before { None } else { says(wanted) }
    }

    fn forget(&mut self, key: &Key) {
        let Some(intent) = self.intents.remove(key) else { return };
        self.order.remove(&intent.number);
        for version in intent.versions {
            self.by_version.remove(&version);
        }
        for sender in intent.waiting {
            // Who gave up meanwhile needs it no more.
            _ = sender.send(Ok(()));
        }
    }

    fn clear(&mut self, namespace: &Namespace) {
        let waiting: Vec<Key> = self
            .intents
            .iter()
            .filter(|(key, intent)| key.namespace() == namespace && !intent.is_running)
            .map(|(key, _)| key.clone())
            .collect();
        for key in waiting {
            self.forget(&key);
        }
        // What is under way ends first, and is all that becomes of it.
        for (_, intent) in self.intents.iter_mut().filter(|(key, _)| key.namespace() == namespace) {
            intent.next = None;
        }
        let clearing = match self.clears.get(namespace) {
            None | Some(Clearing::Waits) => Clearing::Waits,
            Some(Clearing::IsRunning | Clearing::IsToRunAgain) => Clearing::IsToRunAgain,
        };
        self.clears.insert(namespace.clone(), clearing);
    }

    /// Says whether nothing is to be done with `key` any more.
    fn finish(&mut self, key: &Key, outcome: &Outcome) -> bool {
        let is_cleared = self.clears.contains_key(key.namespace());
        let Some(intent) = self.intents.get_mut(key) else { return false };
        intent.is_running = false;
        let next = intent.next.take();
        if let (None, Ok(())) = (next, outcome) {
            self.forget(key);
            return true;
        }
        if let Err(error) = outcome {
            for sender in intent.waiting.drain(..) {
                _ = sender.send(Err(error.clone()));
            }
            // A namespace's clearing is all that is to be done with it, and using an object again asks for that again.
            if next.is_none() && (is_cleared || intent.action == Action::Keep) {
                self.forget(key);
                return true;
            }
        }
        if let Some(next) = next {
            intent.action = next;
        }
        self.last_number += 1;
        intent.number = self.last_number;
        self.order.insert(self.last_number, key.clone());
        false
    }

    /// What the journal has to say so that a restart knows all this.
    fn records(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for namespace in self.clears.keys() {
            encode(Says::Clear, &Key::in_namespace(namespace.clone(), ""), &mut bytes);
        }
        for (key, intent) in &self.intents {
            if let Some(says) = says(intent.wanted()) {
                encode(says, key, &mut bytes);
            }
        }
        bytes
    }
}

fn says(action: Action) -> Option<Says> {
    match action {
        Action::Upload => Some(Says::Upload),
        Action::UploadFirst => Some(Says::UploadFirst),
        Action::Remove => Some(Says::Remove),
        Action::Keep => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManualClock;

    fn queue(dir: Option<&Path>) -> Queue {
        Queue::open(dir, 4, Arc::new(ManualClock::at(1000)), Arc::default()).unwrap()
    }

    fn failed() -> Outcome {
        Err(OriginError::Failed { what: "test".to_owned() })
    }

    fn jobs(queue: &Queue) -> Vec<Job> {
        std::iter::from_fn(|| queue.take()).collect()
    }

    #[test]
    fn the_latest_wish_counts_and_a_key_is_never_under_way_twice() {
        let (queue, key) = (queue(None), Key::new("k"));
        queue.push(&key, Action::Upload, None);
        let job = queue.take().unwrap();
        assert_eq!(job, Job::One(key.clone(), Action::Upload));
        queue.push(&key, Action::Remove, None);
        assert!(queue.is_gone(&key), "from the moment of the wish");
        queue.push(&key, Action::UploadFirst, None);
        assert_eq!(queue.take(), None, "it is under way");
        queue.finish(&job, &Ok(()));
        assert_eq!(jobs(&queue), [Job::One(key.clone(), Action::Upload)], "over what is not deleted yet");
        queue.finish(&Job::One(key, Action::Upload), &Ok(()));
        assert!(queue.is_empty());
    }

    #[test]
    fn what_fails_is_tried_again_behind_all_else() {
        let queue = queue(None);
        for name in ["a", "b"] {
            queue.push(&Key::new(name), Action::Upload, None);
        }
        let first = queue.take().unwrap();
        queue.finish(&first, &failed());
        assert_eq!(jobs(&queue), [Job::One(Key::new("b"), Action::Upload), first]);
    }

    #[test]
    fn a_full_queue_refuses_puts_and_takes_deletions() {
        let queue = queue(None);
        let push = |number: u8, action| queue.push(&Key::new(vec![number]), action, None);
        assert!((0..4).all(|number| push(number, Action::Upload) == Queued::Yes));
        assert_eq!(push(4, Action::Upload), Queued::Full);
        assert_eq!(push(3, Action::UploadFirst), Queued::Yes, "it is there already");
        assert!((4..8).all(|number| push(number, Action::Remove) == Queued::Yes));
        assert_eq!(push(8, Action::Remove), Queued::Full);
    }

    #[test]
    fn a_namespace_is_cleared_after_what_is_under_way_and_before_what_is_newer() {
        let (queue, namespace) = (queue(None), Namespace::new("n").unwrap());
        let key = |name: &'static str| Key::in_namespace(namespace.clone(), name);
        queue.push(&key("running"), Action::Upload, None);
        let running = queue.take().unwrap();
        queue.push(&key("waiting"), Action::Upload, None);
        queue.push_clear(&namespace);
        assert!(queue.is_gone(&key("waiting")) && queue.is_gone(&key("never seen")));
        queue.push(&key("newer"), Action::Upload, None);
        assert!(!queue.is_gone(&key("newer")));
        assert_eq!(queue.take(), None, "what is under way ends first");
        queue.finish(&running, &failed());
        let clear = queue.take().unwrap();
        assert_eq!(clear, Job::Clear(namespace.clone()));
        assert_eq!(queue.take(), None);
        queue.finish(&clear, &failed());
        assert_eq!(queue.take(), Some(clear.clone()), "once more");
        queue.push_clear(&namespace);
        queue.push(&key("newer"), Action::Upload, None);
        assert_eq!(queue.take(), None, "it is under way");
        queue.finish(&clear, &Ok(()));
        assert_eq!(queue.take(), Some(clear.clone()), "as it was asked for meanwhile");
        queue.finish(&clear, &Ok(()));
        assert_eq!(jobs(&queue), [Job::One(key("newer"), Action::Upload)]);
    }

    #[test]
    fn who_waits_for_a_put_is_told_what_became_of_it() {
        let (queue, key) = (queue(None), Key::new("k"));
        queue.push(&key, Action::Upload, Some(Version(1)));
        let mut told = queue.outcome(Version(1)).unwrap();
        let job = queue.take().unwrap();
        queue.finish(&job, &failed());
        assert_eq!(told.try_recv().unwrap(), Some(failed()));
        let mut told = queue.outcome(Version(1)).unwrap();
        let job = queue.take().unwrap();
        assert_eq!(told.try_recv().unwrap(), None);
        queue.finish(&job, &Ok(()));
        assert_eq!(told.try_recv().unwrap(), Some(Ok(())));
        assert!(queue.outcome(Version(1)).is_none() && queue.state.lock().by_version.is_empty());
    }

    #[test]
    fn a_restart_forgets_nothing_that_was_flushed_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let (namespace, other) = (Namespace::new("n").unwrap(), Namespace::new("o").unwrap());
        let before = queue(Some(dir.path()));
        before.push(&Key::in_namespace(namespace.clone(), "cleared"), Action::Upload, None);
        before.push_clear(&namespace);
        before.push_clear(&other);
        before.push(&Key::new("done"), Action::Upload, None);
        before.push(&Key::new("removed"), Action::Upload, None);
        before.push(&Key::new("removed"), Action::Remove, None);
        before.push(&Key::new("used"), Action::Keep, None);
        before.finish(&Job::Clear(other), &Ok(()));
        before.finish(&Job::One(Key::new("done"), Action::Upload), &Ok(()));
        before.flush();
        before.sync();
        before.push(&Key::new("not flushed"), Action::UploadFirst, None);
        drop(before);
        let after = queue(Some(dir.path()));
        assert_eq!(jobs(&after), [Job::Clear(namespace), Job::One(Key::new("removed"), Action::Remove)]);
    }
}
