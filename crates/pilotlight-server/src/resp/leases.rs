//! Compile once per fleet, on a connection: what it leads, and how long it waits.
//!
//! Stock clients take part without knowing: a `GET` of a leasable kind that misses makes their connection the leader, and one
//! of what somebody compiles right now waits for it, if that may be over in time. Our own client asks with `PILOTLIGHT.LEASE`.
//!
//! Nobody waits inside the gate, with a put that is not settled, or for longer than it said.

use std::time::Duration;

use pilotlight_cache::leases::{Follower, Leader, Loss, Role, Turn};
use pilotlight_cache::{Head, Key};
use tokio::time::{Instant, timeout, timeout_at};

use super::decode::Request;
use super::permits::Permit;
use super::reply::Reply;
use super::session::Session;
use crate::access::Right;

/// How long a stock client leads that neither puts, looks something else up nor leaves.
const STOCK_LASTS: Duration = Duration::from_secs(60);
/// What is left at least to read what was waited for.
const READ_MIN: Duration = Duration::from_millis(500);
/// The most that one connection leads at a time; who wants more compiles without.
const LED_MAX: usize = 64;

/// What a connection leads.
#[derive(Debug)]
pub(crate) struct Led {
    pub(crate) key: Key,
    pub(crate) leader: Leader,
    /// Made so by a `GET`: the next one of that kind ends it.
    is_stock: bool,
}

/// What a lookup that takes part in leases does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Compiles, and others wait for it.
    Lead,
    /// Looks: the entry was put.
    Look,
    /// Compiles, and nobody waits for it.
    Alone,
    /// May ask again: it was not over in time.
    Wait,
}

impl Session {
    /// Runs a `GET` that takes part in leases.
    pub(crate) async fn get_or_lead(&mut self, permit: Permit, request: Request) -> Reply {
        let Some(key) = request.args.get(1).map(|name| self.key(name)).filter(|key| self.takes_part(key))
        else {
            return self.run(permit, request).await;
        };
        let started = Instant::now();
        let is_ended = |led: &mut Led| led.is_stock && led.key.kind() == key.kind();
        self.led.extract_if(.., is_ended).for_each(|led| led.leader.give_up());
        // Before it looks, so that it is one lookup, and no miss where it comes to a hit.
        let is_led = self.server().cache.leases().age(&key).is_some();
        let mut part = if is_led { Some(self.stock_part(&key).await) } else { None };
        let again = Request { args: request.args.clone(), dropped: request.dropped };
        let mut reply = self.run_until(permit, request, self.deadline_of(started)).await;
        // One that was late is no miss: who has waited for the backend has waited enough.
        let is_late = started.elapsed() >= self.server().config.request_timeout;
        if reply == Reply::Nil && part.is_none() && !is_late {
            part = Some(self.stock_part(&key).await);
            let is_put = match part {
                Some(Part::Look) => true,
                // Between the lookup and the lease, that is.
                Some(Part::Lead) => self.is_stored(&key).await,
                _ => false,
            };
            if is_put {
                reply = self.run_until(permit, again, self.deadline_of(started)).await;
            }
        }
        if reply != Reply::Nil {
            self.found(&key);
        }
        reply
    }

    /// Until when a lookup is answered that began then. Waiting counts, but there is time to read what was waited for.
    fn deadline_of(&self, started: Instant) -> Instant {
        (started + self.server().config.request_timeout).max(Instant::now() + READ_MIN)
    }

    /// Who may not put what it compiles takes no part: others would wait for it in vain.
    fn takes_part(&self, key: &Key) -> bool {
        let may_put =
            || self.standing.is_unrestricted() || self.standing.place().may(Right::Write, key.kind());
        key.kind().is_leasable() && self.may_wait && !self.server().config.lease_wait.is_zero() && may_put()
    }

    async fn stock_part(&mut self, key: &Key) -> Part {
        let limit = self.server().config.lease_wait;
        let leases = self.server().cache.leases().clone();
        if let (Some(age), Some(expected)) = (leases.age(key), leases.expected(key.kind()))
            && (expected.saturating_sub(age) > limit || age > 2 * expected + limit)
        {
            // It will hardly be over in time, or never.
            return Part::Alone;
        }
        match self.part(key, STOCK_LASTS.max(limit), limit, Asks { is_stock: true, is_again: false }).await {
            Part::Wait => Part::Alone,
            part => part,
        }
    }

    /// Becomes the leader of `key`, or waits for what its leader does.
    pub(crate) async fn part(&mut self, key: &Key, lasts: Duration, limit: Duration, asks: Asks) -> Part {
        self.led.retain(|led| led.leader.leads());
        if self.led.len() >= LED_MAX {
            return Part::Alone;
        }
        let leases = self.server().cache.leases().clone();
        let follower = match leases.ask(key, lasts, asks.is_again) {
            Role::Leader(leader) => return self.lead(key, leader, asks),
            Role::Follower(follower) => follower,
        };
        if self.is_stored(key).await {
            return Part::Look;
        }
        match turn_of(follower, limit, asks.is_stock).await {
            Some(Turn::Look) => {
                if let Some(head) = self.head(key).await {
                    leases.count_saved(head.compile_ms);
                }
                Part::Look
            }
            Some(Turn::Alone) => Part::Alone,
            Some(Turn::Lead(leader, loss)) => {
                let how = match loss {
                    Loss::Gone => "is gone",
                    Loss::Expired => "was not heard of",
                };
                let (key_hash, address) = (key.log_hash(), self.client.address.as_str());
                tracing::info!(
                    key = format_args!("{key_hash:016x}"),
                    address,
                    "the leader {how}, this client compiles instead"
                );
                self.lead(key, leader, asks)
            }
            None => Part::Wait,
        }
    }

    fn lead(&mut self, key: &Key, leader: Leader, asks: Asks) -> Part {
        self.led.push(Led { key: key.clone(), leader, is_stock: asks.is_stock });
        Part::Lead
    }

    /// What this connection leads under `key`.
    pub(crate) fn led(&self, key: &Key) -> Option<&Leader> {
        self.led.iter().find(|led| led.key == *key).map(|led| &led.leader)
    }

    /// Gives the lease on `key` up, if this connection leads it; whether it did.
    pub(crate) fn give_up(&mut self, key: &Key) -> bool {
        self.unlead(key).map(Leader::give_up).is_some()
    }

    /// What stands under `key` was found, whoever leads it.
    pub(crate) fn found(&mut self, key: &Key) {
        if let Some(leader) = self.unlead(key) {
            leader.found();
        }
    }

    fn unlead(&mut self, key: &Key) -> Option<Leader> {
        let place = self.led.iter().position(|led| led.key == *key)?;
        Some(self.led.swap_remove(place).leader)
    }

    /// Whether something stands under `key`.
    pub(crate) async fn is_stored(&self, key: &Key) -> bool {
        self.head(key).await.is_some()
    }

    /// What stands under `key`, if that is said in time: no lookup, and not counted as one.
    async fn head(&self, key: &Key) -> Option<Head> {
        timeout(READ_MIN, self.server().cache.head(key)).await.ok()?.ok()?
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asks {
    pub(crate) is_stock: bool,
    /// It has waited before: it is counted already.
    pub(crate) is_again: bool,
}

/// What a follower does next, or `None` if that is not known in time. A leader that is not heard of meanwhile loses its lease.
async fn turn_of(mut follower: Follower, limit: Duration, is_final: bool) -> Option<Turn> {
    let deadline = Instant::now() + limit;
    loop {
        let leader_deadline = Instant::now() + follower.leader_lasts();
        match timeout_at(deadline.min(leader_deadline), follower.turn()).await {
            Ok(turn) => return Some(turn),
            Err(_) if Instant::now() < deadline => follower.look_after_leader(),
            Err(_) if is_final => {
                follower.give_up();
                return None;
            }
            Err(_) => return None,
        }
    }
}
