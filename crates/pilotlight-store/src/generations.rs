//! Numbers that make the names of payload files, none of which is given twice.
//!
//! That must hold for files as well that a crash left and no record names, and an open does not look for those. So the upper bits
//! of a generation count, on from the highest that an entry's record names, and the lower ones are drawn at each open.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Lower bits, which leave enough to count a thousand files a second for thirty years. That an earlier process which left a file
/// drew the same, and the same payload comes at the same count, is as good as never.
const DRAWN_BITS: u32 = 24;
const STEP: u64 = 1 << DRAWN_BITS;

/// The generations of one session.
#[derive(Debug)]
pub(crate) struct Generations(AtomicU64);

impl Generations {
    pub(crate) fn drawn() -> Self {
        // It is seeded by the operating system.
        let drawn = RandomState::new().hash_one(0) % STEP;
        Self(AtomicU64::new(STEP | drawn))
    }

    /// At recovery: those to come are higher.
    pub(crate) fn note(&self, generation: u64) {
        let drawn = self.0.load(Relaxed) % STEP;
        self.0.fetch_max(((generation >> DRAWN_BITS) + 1) << DRAWN_BITS | drawn, Relaxed);
    }

    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(STEP, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_grow_over_what_was_noted_and_are_no_other_sessions() {
        let [one, other] = [Generations::drawn(), Generations::drawn()];
        for noted in [0, 7, STEP - 1, STEP, 5 * STEP + 3, 5 * STEP] {
            one.note(noted);
            other.note(noted);
            let [of_one, of_other] = [one.next(), other.next()];
            assert!(of_one > noted && of_other > noted);
            assert_ne!(of_one, of_other, "once in 16 million this fails");
            assert!(one.next() > of_one);
            other.next();
        }
    }
}
