//! Who compiles a key and who waits for it, as a state machine: it knows no thread, no clock and no socket, so that a model
//! checker can walk through all of its states.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

/// Names a lease. Never used twice, so that a late one changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub(super) u64);

impl Token {
    /// The number that stands for it on the wire.
    #[must_use]
    pub fn number(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

/// Names a follower's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub(crate) u64);

/// What an ask came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asked {
    /// The asker compiles.
    Lead(Token),
    /// Somebody else does; the verdict comes under this ticket.
    Follow(Ticket),
}

/// What a follower is told, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The entry was put.
    Look,
    /// It was compiled and could not be kept: nothing will come, and to wait for one another would not change that.
    Alone,
    /// The leader is no more: this follower compiles.
    Lead(Token, Loss),
}

/// How a lease was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// Its leader said so: the compile failed, or something else was looked up.
    GivenUp,
    /// Its leader's connection ended.
    Gone,
    /// Its leader was not heard of for too long.
    Expired,
}

/// Verdicts, and whom to tell.
pub type Told = Vec<(Ticket, Verdict)>;

/// The leases and their followers. Times are milliseconds on a clock that does not jump.
///
/// # Rules
/// 1. A key has at most one lease, and a lease one token.
/// 2. A ticket is told one verdict, or leaves; a lease that ends takes none of its followers' places with it.
/// 3. A put ends its key's lease, whoever puts: who puts needs no lease, and a lost one does not keep anybody from putting.
/// 4. A lease whose deadline has passed is lost as soon as anybody asks or looks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Table<K: Ord> {
    leases: BTreeMap<K, Lease>,
    next: u64,
}

impl<K: Ord> Default for Table<K> {
    fn default() -> Self {
        Self { leases: BTreeMap::new(), next: 0 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Lease {
    token: Token,
    since_ms: u64,
    until_ms: u64,
    lasts_ms: u64,
    queue: VecDeque<Follower>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Follower {
    ticket: Ticket,
    /// What a lease of its own would last.
    lasts_ms: u64,
}

impl<K: Ord + Clone> Table<K> {
    /// Makes the asker the leader of `key`, for `lasts_ms` unless renewed, or else a follower.
    pub fn ask(&mut self, key: &K, lasts_ms: u64, now_ms: u64) -> (Asked, Told) {
        let told = self.expire(key, now_ms);
        let id = self.next;
        self.next += 1;
        let asked = match self.leases.get_mut(key) {
            Some(lease) => {
                lease.queue.push_back(Follower { ticket: Ticket(id), lasts_ms });
                Asked::Follow(Ticket(id))
            }
            None => {
                let lease = Lease {
                    token: Token(id),
                    since_ms: now_ms,
                    until_ms: now_ms.saturating_add(lasts_ms),
                    lasts_ms,
                    queue: VecDeque::new(),
                };
                self.leases.insert(key.clone(), lease);
                Asked::Lead(Token(id))
            }
        };
        (asked, told)
    }

    /// Whether `token` is the lease on `key`.
    pub fn leads(&self, key: &K, token: Token) -> bool {
        self.leases.get(key).is_some_and(|lease| lease.token == token)
    }

    /// The leader lives. Whether it still is one.
    pub fn renew(&mut self, key: &K, token: Token, now_ms: u64) -> bool {
        let Some(lease) = self.leases.get_mut(key).filter(|lease| lease.token == token) else { return false };
        lease.until_ms = now_ms.saturating_add(lease.lasts_ms);
        true
    }

    /// The leader is no more. Nothing happens to a lease that was lost before.
    pub fn release(&mut self, key: &K, token: Token, loss: Loss, now_ms: u64) -> Told {
        match self.leases.get(key) {
            Some(lease) if lease.token == token => self.pass_on(key, loss, now_ms),
            _ => Told::new(),
        }
    }

    /// An entry was put under `key`. Also says how long its leader had the lease.
    pub fn put(&mut self, key: &K, now_ms: u64) -> (Told, Option<u64>) {
        let held_ms = self.leases.get(key).map(|lease| now_ms.saturating_sub(lease.since_ms));
        (self.end(key, Verdict::Look), held_ms)
    }

    /// An entry was to be put under `key`, and was not kept.
    pub fn refused(&mut self, key: &K) -> Told {
        self.end(key, Verdict::Alone)
    }

    /// A follower waits no longer. Nothing happens if it was told a verdict before.
    pub fn leave(&mut self, key: &K, ticket: Ticket) {
        if let Some(lease) = self.leases.get_mut(key) {
            lease.queue.retain(|follower| follower.ticket != ticket);
        }
    }

    /// Takes the lease from a leader that was not heard of for too long.
    pub fn expire(&mut self, key: &K, now_ms: u64) -> Told {
        match self.leases.get(key) {
            Some(lease) if lease.until_ms <= now_ms => self.pass_on(key, Loss::Expired, now_ms),
            _ => Told::new(),
        }
    }

    /// When the lease on `key` began, and when it is lost unless its leader is heard of.
    pub fn times_ms(&self, key: &K) -> Option<(u64, u64)> {
        self.leases.get(key).map(|lease| (lease.since_ms, lease.until_ms))
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    fn end(&mut self, key: &K, verdict: Verdict) -> Told {
        let queue = self.leases.remove(key).map(|lease| lease.queue).unwrap_or_default();
        queue.into_iter().map(|follower| (follower.ticket, verdict)).collect()
    }

    fn pass_on(&mut self, key: &K, loss: Loss, now_ms: u64) -> Told {
        let Some(lease) = self.leases.get_mut(key) else { return Told::new() };
        let mut queue = mem::take(&mut lease.queue);
        let Some(Follower { ticket, lasts_ms }) = queue.pop_front() else {
            self.leases.remove(key);
            return Told::new();
        };
        let token = Token(self.next);
        self.next += 1;
        let until_ms = now_ms.saturating_add(lasts_ms);
        *lease = Lease { token, since_ms: now_ms, until_ms, lasts_ms, queue };
        vec![(ticket, Verdict::Lead(token, loss))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: char = 'k';

    fn lead(table: &mut Table<char>, now_ms: u64) -> Token {
        match table.ask(&KEY, 10, now_ms) {
            (Asked::Lead(token), told) if told.is_empty() => token,
            other => panic!("{other:?}"),
        }
    }

    fn follow(table: &mut Table<char>, now_ms: u64) -> Ticket {
        match table.ask(&KEY, 10, now_ms) {
            (Asked::Follow(ticket), told) if told.is_empty() => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_put_tells_every_follower_to_look() {
        let mut table = Table::default();
        lead(&mut table, 0);
        let (first, second) = (follow(&mut table, 1), follow(&mut table, 2));
        let (told, held_ms) = table.put(&KEY, 7);
        assert_eq!(told, [(first, Verdict::Look), (second, Verdict::Look)]);
        assert_eq!((held_ms, table.len()), (Some(7), 0));
        assert_eq!(table.put(&KEY, 8), (vec![], None));
    }

    #[test]
    fn a_put_that_is_not_kept_lets_every_follower_go_on() {
        let mut table = Table::default();
        lead(&mut table, 0);
        let follower = follow(&mut table, 1);
        assert_eq!(table.refused(&KEY), [(follower, Verdict::Alone)]);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn the_first_follower_leads_when_the_leader_is_lost() {
        let mut table = Table::default();
        let token = lead(&mut table, 0);
        let (first, second) = (follow(&mut table, 1), follow(&mut table, 2));
        let [(ticket, Verdict::Lead(next, Loss::Gone))] = table.release(&KEY, token, Loss::Gone, 5)[..]
        else {
            panic!("nobody leads")
        };
        assert_eq!(ticket, first);
        assert_eq!(table.times_ms(&KEY), Some((5, 15)));
        assert_eq!(table.release(&KEY, token, Loss::Gone, 6), [], "a lost lease is lost once");
        assert!(!table.renew(&KEY, token, 6));
        assert!(table.renew(&KEY, next, 6));
        assert_eq!(table.put(&KEY, 7).0, [(second, Verdict::Look)]);
    }

    #[test]
    fn a_lease_lasts_until_its_deadline_unless_it_is_renewed() {
        let mut table = Table::default();
        let token = lead(&mut table, 0);
        let follower = follow(&mut table, 1);
        assert_eq!(table.expire(&KEY, 9), []);
        assert!(table.renew(&KEY, token, 9));
        assert_eq!(table.expire(&KEY, 18), []);
        assert!(
            matches!(table.expire(&KEY, 19)[..], [(ticket, Verdict::Lead(_, Loss::Expired))] if ticket == follower)
        );
        assert_eq!(table.expire(&KEY, 29), [], "with nobody to lead it ends");
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn who_asks_after_the_deadline_leads_if_nobody_waits() {
        let mut table = Table::default();
        let first = lead(&mut table, 0);
        assert_ne!(lead(&mut table, 10), first);
    }

    #[test]
    fn who_left_is_not_told_and_does_not_lead() {
        let mut table = Table::default();
        let token = lead(&mut table, 0);
        let (first, second) = (follow(&mut table, 1), follow(&mut table, 1));
        table.leave(&KEY, first);
        assert!(
            matches!(table.release(&KEY, token, Loss::GivenUp, 2)[..], [(ticket, _)] if ticket == second)
        );
    }
}
