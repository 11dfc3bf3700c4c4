//! Compile once per fleet: of those who miss the same key, one compiles and the others wait for what it puts.
//!
//! A lease is a courtesy. Nothing needs one: who has lost its lease, or never asked for one, puts all the same, and who does not
//! want to wait longer compiles. So no failure here costs more than a second compile.
//!
//! # The roles
//! [`Leases::ask`] makes a [`Leader`] or a [`Follower`]. Both are guards: a leader that is dropped passes its lease on to the
//! first follower, a follower that is dropped gives up its place, and passes on what it was given meanwhile. So whatever ends
//! whoever holds one (a failed compile, a lost connection, a cancelled future), nobody waits for it.
//!
//! # No wake-up is lost
//! An entry is first put and then told of ([`Leases::put`]), and who asks first has its role and then looks once more for the
//! entry. Either the put comes before the look, which finds it, or after the role was given, which is told of it.
//!
//! # Cancellation
//! [`Follower::turn`] may be dropped and called again; nothing is lost.

mod table;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use parking_lot::{Mutex, MutexGuard};

pub use self::table::{Asked, Loss, Table, Ticket, Token, Told, Verdict};
use crate::{Key, Kind};

/// How many of the latest compiles of a kind say what the next one is expected to take.
const REMEMBERED: usize = 32;

/// The leases of one server. Cheap to clone; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Leases {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Leases there are: a put looks here, so that it pays for a lock only if somebody may wait for it. A put writes the entry and
    /// reads this, an ask writes this and reads the entry: one of the two sees the other, since the backend's own locks order
    /// the entry's write and read.
    open: AtomicUsize,
    state: Mutex<State>,
    began: Instant,
    counts: Counts,
}

#[derive(Debug, Default)]
struct State {
    table: Table<Name>,
    waiting: BTreeMap<Ticket, oneshot::Sender<Verdict>>,
    /// By kind: how long leases were held that ended with a put, in milliseconds.
    held_ms: [VecDeque<u64>; Kind::ALL.len()],
}

/// A key in its namespace, ordered.
type Name = (crate::Namespace, bytes::Bytes);

#[derive(Debug, Default)]
struct Counts {
    granted: AtomicU64,
    followed: AtomicU64,
    looked: AtomicU64,
    alone: AtomicU64,
    timed_out: AtomicU64,
    given_up: AtomicU64,
    gone: AtomicU64,
    expired: AtomicU64,
    waited_ms: AtomicU64,
    saved_ms: AtomicU64,
}

/// What happened to leases since the server started, and how many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// Leases now.
    pub open: u64,
    /// Followers now.
    pub waiting: u64,
    /// Leases that began, those that were passed on included.
    pub granted: u64,
    /// Lookups that waited for another's compile.
    pub followed: u64,
    /// Followers that were told of the put.
    pub looked: u64,
    /// Followers that were told that the put was not kept.
    pub alone: u64,
    /// Followers that waited no longer.
    pub timed_out: u64,
    /// Leases that a follower took over because the leader gave up: its compile failed, or it looked up something else.
    pub given_up: u64,
    /// Leases that a follower took over because the leader's connection ended.
    pub gone: u64,
    /// Leases that a follower took over because the leader was not heard of for too long.
    pub expired: u64,
    /// What followers waited, in milliseconds.
    pub waited_ms: u64,
    /// What followers would have compiled, in milliseconds: the compile time of the entries they got.
    pub saved_ms: u64,
}

/// What asking came to.
#[derive(Debug)]
pub enum Role {
    /// The asker compiles.
    Leader(Leader),
    /// Somebody else does.
    Follower(Follower),
}

/// The one who compiles a key, until dropped.
#[derive(Debug)]
#[must_use = "a leader that is dropped passes its lease on"]
pub struct Leader {
    leases: Leases,
    name: Name,
    token: Token,
    /// How it is lost when it is dropped.
    loss: Loss,
}

/// One who waits for what another compiles, until dropped.
#[derive(Debug)]
#[must_use = "a follower that is dropped gives up its place"]
pub struct Follower {
    leases: Leases,
    name: Name,
    ticket: Ticket,
    /// `None` when its verdict was taken.
    verdict: Option<oneshot::Receiver<Verdict>>,
    began: Instant,
}

/// What a follower does next.
#[derive(Debug)]
pub enum Turn {
    /// Looks: the entry was put.
    Look,
    /// Compiles, as everybody else: the put was not kept.
    Alone,
    /// Compiles, for the others: the leader was lost, in this way.
    Lead(Leader, Loss),
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            open: AtomicUsize::new(0),
            state: Mutex::default(),
            began: Instant::now(),
            counts: Counts::default(),
        }
    }
}

impl Leases {
    /// Asks who compiles `key`. Whoever becomes its leader is so for `lasts` unless renewed.
    ///
    /// Then look for the entry once more: it may have been put between the lookup that missed and this. `is_again` says that the
    /// asker has waited before, and is counted.
    #[must_use]
    pub fn ask(&self, key: &Key, lasts: Duration, is_again: bool) -> Role {
        let name = name_of(key);
        let mut state = self.state();
        let (asked, told) = state.table.ask(&name, millis(lasts), self.now_ms());
        let role = match asked {
            Asked::Lead(token) => {
                add(&self.shared.counts.granted, 1);
                Role::Leader(Leader { leases: self.clone(), name, token, loss: Loss::Gone })
            }
            Asked::Follow(ticket) => {
                add(&self.shared.counts.followed, u64::from(!is_again));
                let (sender, verdict) = oneshot::channel();
                state.waiting.insert(ticket, sender);
                let (leases, began) = (self.clone(), Instant::now());
                Role::Follower(Follower { leases, name, ticket, verdict: Some(verdict), began })
            }
        };
        self.tell(state, told);
        role
    }

    /// Tells whoever waits that an entry was put under `key`. Costs a load where nobody leads.
    pub fn put(&self, key: &Key) {
        if !self.are_open() || !key.kind().is_leasable() {
            return;
        }
        let mut state = self.state();
        let (told, held_ms) = state.table.put(&name_of(key), self.now_ms());
        if let (Some(held_ms), Some(held)) = (held_ms, state.held_ms.get_mut(key.kind() as usize)) {
            if held.len() == REMEMBERED {
                held.pop_front();
            }
            held.push_back(held_ms);
        }
        self.tell(state, told);
    }

    /// Tells whoever waits that what was to be put under `key` was not kept.
    pub fn refused(&self, key: &Key) {
        if !self.are_open() || !key.kind().is_leasable() {
            return;
        }
        let mut state = self.state();
        let told = state.table.refused(&name_of(key));
        self.tell(state, told);
    }

    /// For how long somebody has led `key`, if anybody does.
    #[must_use]
    pub fn age(&self, key: &Key) -> Option<Duration> {
        if !self.are_open() {
            return None;
        }
        let (since_ms, _) = self.state().table.times_ms(&name_of(key))?;
        Some(Duration::from_millis(self.now_ms().saturating_sub(since_ms)))
    }

    /// What a compile of this kind takes, by the median of the latest that leaders did here; `None` before the first.
    #[must_use]
    pub fn expected(&self, kind: Kind) -> Option<Duration> {
        let mut held: Vec<u64> = self.state().held_ms.get(kind as usize)?.iter().copied().collect();
        held.sort_unstable();
        held.get(held.len() / 2).copied().map(Duration::from_millis)
    }

    /// Counts what a follower got: an entry that took this long to compile.
    pub fn count_saved(&self, compile_ms: u32) {
        add(&self.shared.counts.saved_ms, u64::from(compile_ms));
    }

    /// The counters.
    #[must_use]
    pub fn counts(&self) -> LeaseCounts {
        let of = |count: &AtomicU64| count.load(Relaxed);
        let Counts {
            granted,
            followed,
            looked,
            alone,
            timed_out,
            given_up,
            gone,
            expired,
            waited_ms,
            saved_ms,
        } = &self.shared.counts;
        let (open, waiting) = {
            let state = self.state();
            (state.table.len() as u64, state.waiting.len() as u64)
        };
        LeaseCounts {
            open,
            waiting,
            granted: of(granted),
            followed: of(followed),
            looked: of(looked),
            alone: of(alone),
            timed_out: of(timed_out),
            given_up: of(given_up),
            gone: of(gone),
            expired: of(expired),
            waited_ms: of(waited_ms),
            saved_ms: of(saved_ms),
        }
    }

    fn are_open(&self) -> bool {
        self.shared.open.load(SeqCst) > 0
    }

    fn now_ms(&self) -> u64 {
        millis(self.shared.began.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock()
    }

    /// Hands out verdicts. Every change of the table ends here.
    fn tell(&self, mut state: MutexGuard<'_, State>, told: Told) {
        let counts = &self.shared.counts;
        for (ticket, verdict) in told {
            match verdict {
                Verdict::Look => add(&counts.looked, 1),
                Verdict::Alone => add(&counts.alone, 1),
                Verdict::Lead(_, loss) => {
                    add(&counts.granted, 1);
                    add(counts.lost(loss), 1);
                }
            }
            // A follower that leaves takes its sender away under this lock, so that there is one, and somebody who listens.
            if let Some(sender) = state.waiting.remove(&ticket) {
                let _ = sender.send(verdict);
            }
        }
        self.shared.open.store(state.table.len(), SeqCst);
    }
}

impl Counts {
    fn lost(&self, loss: Loss) -> &AtomicU64 {
        match loss {
            Loss::GivenUp => &self.given_up,
            Loss::Gone => &self.gone,
            Loss::Expired => &self.expired,
        }
    }
}

impl Leader {
    /// The lease, for whoever holds it by name.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }

    /// Whether it still leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leases.state().table.leads(&self.name, self.token)
    }

    /// Says that this leader lives. Whether it still leads.
    pub fn renew(&self) -> bool {
        self.leases.state().table.renew(&self.name, self.token, self.leases.now_ms())
    }

    /// Passes the lease on, by the leader's own decision.
    pub fn give_up(mut self) {
        self.loss = Loss::GivenUp;
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let mut state = self.leases.state();
        let told = state.table.release(&self.name, self.token, self.loss, self.leases.now_ms());
        self.leases.tell(state, told);
    }
}

impl Follower {
    /// What to do next, as soon as that is known. To be asked no more afterwards.
    pub async fn turn(&mut self) -> Turn {
        let Some(verdict) = &mut self.verdict else { return Turn::Alone };
        // A sender goes away unused with the whole server only.
        let verdict = verdict.await.unwrap_or(Verdict::Alone);
        self.verdict = None;
        match verdict {
            Verdict::Look => Turn::Look,
            Verdict::Alone => Turn::Alone,
            Verdict::Lead(token, loss) => Turn::Lead(self.leader(token), loss),
        }
    }

    /// In how much time the lease is lost that this follower waits for, unless its leader is heard of; then ask again, after
    /// [`Follower::look_after_leader`].
    #[must_use]
    pub fn leader_lasts(&self) -> Duration {
        let times = self.leases.state().table.times_ms(&self.name);
        let until_ms = times.map_or(0, |(_, until_ms)| until_ms);
        Duration::from_millis(until_ms.saturating_sub(self.leases.now_ms()))
    }

    /// Takes the lease from a leader that was not heard of for too long: the first follower leads.
    pub fn look_after_leader(&self) {
        let mut state = self.leases.state();
        let told = state.table.expire(&self.name, self.leases.now_ms());
        self.leases.tell(state, told);
    }

    /// Waits no longer.
    pub fn give_up(self) {
        add(&self.leases.shared.counts.timed_out, 1);
    }

    fn leader(&self, token: Token) -> Leader {
        Leader { leases: self.leases.clone(), name: self.name.clone(), token, loss: Loss::Gone }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        add(&self.leases.shared.counts.waited_ms, millis(self.began.elapsed()));
        let Some(mut verdict) = self.verdict.take() else { return };
        let mut state = self.leases.state();
        state.table.leave(&self.name, self.ticket);
        state.waiting.remove(&self.ticket);
        drop(state);
        // Told meanwhile, and nobody took it.
        if let Ok(Some(Verdict::Lead(token, _))) = verdict.try_recv() {
            drop(self.leader(token));
        }
    }
}

fn name_of(key: &Key) -> Name {
    (key.namespace().clone(), key.bytes().clone())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn add(count: &AtomicU64, n: u64) {
    count.fetch_add(n, Relaxed);
}
