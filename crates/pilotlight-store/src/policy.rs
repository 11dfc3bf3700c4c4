//! Which entries are worth keeping: the rule alone, apart from where entries are kept. The store and the simulator
//! (`bench/simulator`) run this code. It is no promise to anybody else: it changes whenever the simulator shows better.
//!
//! It is GreedyDual-Size-Frequency (Cherkasova 1998), sampled, with a memory. An entry is worth `floor + uses * cost / size`,
//! the entry worth least leaves, and the floor follows what leaves, which ages all that are not used. It saves more compile
//! time than LRU at equal size because compile time is what it counts.
//!
//! What differs from the book, each because the simulator says so (points of seconds saved, at small caches):
//! - The least is looked for among [`SAMPLE`] entries drawn at random and the least of those drawn before ([`Candidates`]), so
//!   that a use moves nothing but a number, and an eviction costs the same at any size. Without the memory of earlier draws
//!   16 are 3 points worse than looking at all; with it, a third of a point.
//! - The floor follows slowly, not at once: some that leave were the least of their draw and far from the least of all. 1 to 2
//!   points.
//! - Who left is remembered with its uses for a while; who comes back has most of them again. Else what is used once a day
//!   could never be told from what is used once. 1 to 2 points.
//! - Uses count up to 32: what was popular for a month is not to stay for another when it is replaced. Half a point
//!   after a deploy.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// What an entry of unknown cost is taken to cost, in milliseconds: a small compile.
pub const COST_MS_UNKNOWN: u32 = 500;
/// Entries drawn at random for each that leaves.
pub const SAMPLE: usize = 16;
/// Candidates that are kept from one eviction to the next.
const CANDIDATES_MAX: usize = 32;
/// What an entry takes on top of its bytes. No entry takes less than a block or so, and a tiny one is not worth infinitely
/// much.
const OVERHEAD_BYTES: u64 = 4096;
/// More uses than this make no difference.
const USES_MAX: f32 = 32.0;
/// How far the floor goes towards the worth of an entry that leaves.
const FLOOR_STEP: f32 = 1.0 / 32.0;
/// What is left, as a power of two, of the uses of an entry that comes back when the floor has risen by all that its uses
/// were worth.
const FORGETTING: f32 = 0.4;
/// One entry that left is remembered for so many bytes of the bound: a few for each that is kept. Eight bytes of memory each.
const BYTES_A_GHOST: u64 = 8 << 10;
/// However small or large the bound; 64 MiB of memory at most.
const GHOSTS_MIN: u64 = 1 << 10;
const GHOSTS_MAX: u64 = 8 << 20;

/// What an entry takes, and what it costs to make again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// 0 when unknown.
    pub cost_ms: u32,
    /// What keeping it takes.
    pub stored_bytes: u64,
}

impl Asset {
    /// What a use of it saves for every byte, in milliseconds.
    fn value(&self) -> f32 {
        let cost_ms = if self.cost_ms == 0 { COST_MS_UNKNOWN } else { self.cost_ms };
        cost_ms as f32 / (self.stored_bytes + OVERHEAD_BYTES) as f32
    }
}

/// What the policy knows of a kept entry, kept with it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Standing {
    worth: f32,
    uses: f32,
}

impl Standing {
    /// How much keeping the entry is worth. Only comparisons mean anything.
    #[must_use]
    pub fn worth(&self) -> f32 {
        self.worth
    }
}

/// The state of the rule that is not an entry's.
#[derive(Debug)]
pub struct Policy {
    /// About what entries are worth that leave now, as `f32` bits. Never falls.
    floor: AtomicU32,
    /// Of entries that left, in places by their keys' hashes; a newer one takes an older one's. A power of two of places,
    /// made when the first one leaves.
    ghosts: OnceLock<Box<[AtomicU64]>>,
    places: u64,
}

/// An entry that left.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ghost {
    /// 24 bits of the key's hash; the place tells some more.
    tag: u32,
    uses: f32,
    /// When it left.
    floor: f32,
}

impl Ghost {
    /// Tag, whole uses, floor.
    fn pack(self) -> u64 {
        u64::from(self.tag) << 40 | (self.uses as u64 & 0xff) << 32 | u64::from(self.floor.to_bits())
    }

    fn unpack(bits: u64) -> Self {
        let uses = (bits >> 32 & 0xff) as u8;
        Self { tag: (bits >> 40) as u32, uses: f32::from(uses), floor: f32::from_bits(bits as u32) }
    }
}

impl Policy {
    /// For a cache of at most `bound_bytes`.
    #[must_use]
    pub fn new(bound_bytes: u64) -> Self {
        let places = (bound_bytes / BYTES_A_GHOST).clamp(GHOSTS_MIN, GHOSTS_MAX).next_power_of_two();
        Self { floor: AtomicU32::new(0), ghosts: OnceLock::new(), places }
    }

    /// An entry is put that was not there, under a key of this hash.
    #[must_use]
    pub fn enter(&self, key_hash: u64, asset: &Asset) -> Standing {
        self.standing(1.0 + self.remembered_uses(key_hash, asset), asset)
    }

    /// An entry is used, or put again.
    #[must_use]
    pub fn used(&self, standing: &Standing, asset: &Asset) -> Standing {
        self.standing(standing.uses + 1.0, asset)
    }

    /// An entry takes another number of bytes from now on. It is no use of it, and makes it no younger.
    #[must_use]
    pub fn resized(&self, standing: &Standing, old: &Asset, new: &Asset) -> Standing {
        let Standing { worth, uses } = *standing;
        Standing { worth: worth + uses * (new.value() - old.value()), uses }
    }

    /// An entry left for want of space.
    pub fn note_evicted(&self, key_hash: u64, standing: &Standing) {
        let floor = self.floor();
        // Two at a time may lose a step: so be it.
        self.floor.store((floor + (standing.worth - floor).max(0.0) * FLOOR_STEP).to_bits(), Relaxed);
        let ghosts = self.ghosts.get_or_init(|| (0..self.places).map(|_| AtomicU64::new(0)).collect());
        if let Some(place) = place(ghosts, key_hash) {
            place.store(Ghost { tag: tag(key_hash), uses: standing.uses, floor }.pack(), Relaxed);
        }
    }

    fn standing(&self, uses: f32, asset: &Asset) -> Standing {
        let uses = uses.min(USES_MAX);
        Standing { worth: self.floor() + uses * asset.value(), uses }
    }

    fn floor(&self) -> f32 {
        f32::from_bits(self.floor.load(Relaxed))
    }

    fn remembered_uses(&self, key_hash: u64, asset: &Asset) -> f32 {
        let Some(place) = self.ghosts.get().and_then(|ghosts| place(ghosts, key_hash)) else { return 0.0 };
        let ghost = Ghost::unpack(place.load(Relaxed));
        if ghost.tag != tag(key_hash) || ghost.uses == 0.0 {
            return 0.0;
        }
        let aged_by = (self.floor() - ghost.floor).max(0.0) / (ghost.uses * asset.value());
        ghost.uses * (-FORGETTING * aged_by).exp2()
    }
}

fn place(ghosts: &[AtomicU64], key_hash: u64) -> Option<&AtomicU64> {
    ghosts.get(key_hash as usize & (ghosts.len() - 1))
}

/// The upper bits: the lower ones choose the place.
fn tag(key_hash: u64) -> u32 {
    (key_hash >> 40) as u32
}

/// The entries worth least of all that were drawn lately.
#[derive(Debug)]
pub struct Candidates<T>(Vec<(f32, T)>);

impl<T> Default for Candidates<T> {
    fn default() -> Self {
        Self(Vec::with_capacity(CANDIDATES_MAX + 1))
    }
}

impl<T: PartialEq> Candidates<T> {
    /// Considers an entry that was drawn, and is worth so much.
    pub fn offer(&mut self, entry: T, worth: f32) {
        self.0.retain(|(_, other)| *other != entry);
        let place = self.0.partition_point(|(other, _)| *other > worth);
        self.0.insert(place, (worth, entry));
        if self.0.len() > CANDIDATES_MAX {
            self.0.remove(0);
        }
    }

    /// The one worth least, and how much that was when it was drawn: it is to leave if it still is.
    pub fn take_least(&mut self) -> Option<(T, f32)> {
        self.0.pop().map(|(worth, entry)| (entry, worth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASSET: Asset = Asset { cost_ms: 10_000, stored_bytes: 60_000 };

    /// What others leave by: evictions of entries that are worth a use more than the floor.
    fn age(policy: &Policy, evictions: u64) {
        for hash in 0..evictions {
            policy.note_evicted(hash << 50, &policy.enter(hash << 50, &ASSET));
        }
    }

    #[test]
    fn what_costs_more_or_takes_less_or_is_used_more_is_worth_more() {
        let policy = Policy::new(1 << 30);
        let one = policy.enter(1, &ASSET);
        assert!(policy.enter(2, &Asset { cost_ms: 20_000, ..ASSET }).worth() > one.worth());
        assert!(policy.enter(2, &Asset { stored_bytes: 30_000, ..ASSET }).worth() > one.worth());
        assert!(policy.used(&one, &ASSET).worth() > one.worth());
        let unknown = Asset { cost_ms: 0, ..ASSET };
        assert_eq!(policy.enter(2, &unknown), policy.enter(2, &Asset { cost_ms: COST_MS_UNKNOWN, ..ASSET }));
    }

    #[test]
    fn what_takes_less_than_before_is_worth_more_and_no_younger() {
        let policy = Policy::new(1 << 30);
        let old = policy.enter(1, &ASSET);
        age(&policy, 2000);
        let half = Asset { stored_bytes: 30_000, ..ASSET };
        let resized = policy.resized(&old, &ASSET, &half);
        assert!(old.worth() < resized.worth() && resized.worth() < policy.enter(2, &ASSET).worth());
        assert_eq!(policy.resized(&resized, &half, &ASSET).uses, old.uses);
    }

    #[test]
    fn what_is_not_used_ages_until_a_newcomer_is_worth_more() {
        let policy = Policy::new(1 << 30);
        let mut popular = policy.enter(1, &ASSET);
        for _ in 0..1_000_000 {
            popular = policy.used(&popular, &ASSET);
        }
        assert!(popular.worth() > policy.enter(2, &ASSET).worth());
        age(&policy, 2000);
        assert!(popular.worth() < policy.enter(2, &ASSET).worth());
    }

    #[test]
    fn who_comes_back_is_known_for_a_while() {
        let policy = Policy::new(1 << 30);
        let hash = 0x1234_5678_9abc_def0;
        let mut standing = policy.enter(hash, &ASSET);
        for _ in 0..9 {
            standing = policy.used(&standing, &ASSET);
        }
        policy.note_evicted(hash, &standing);
        let back = policy.enter(hash, &ASSET);
        assert!((10.5..=11.0).contains(&back.uses), "{back:?}");
        assert_eq!(policy.enter(hash ^ 1 << 60, &ASSET).uses, 1.0, "another key in its place");
        age(&policy, 1_000_000);
        assert!(policy.enter(hash, &ASSET).uses < 2.0, "{:?}", policy.enter(hash, &ASSET));
    }

    #[test]
    fn the_least_of_many_that_were_offered_is_taken_first() {
        let mut candidates = Candidates::default();
        for entry in 0..1000u32 {
            candidates.offer(entry, (entry * 7919 % 1000) as f32);
        }
        // One that is offered again counts once, with what it is worth now.
        candidates.offer(7, 0.5);
        candidates.offer(7, 1.5);
        let taken: Vec<f32> =
            std::iter::from_fn(|| candidates.take_least()).map(|(_, worth)| worth).take(4).collect();
        assert_eq!(taken, [0.0, 1.0, 1.5, 2.0]);
    }
}
