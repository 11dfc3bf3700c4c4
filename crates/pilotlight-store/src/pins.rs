//! Entries that do not leave for want of space.
//!
//! A pin is a flag of the entry's record: to pin is to put the same entry again with the flag. A payload in a file is not
//! written again, since equal ones are shared.

use crate::format::key_hash;
use crate::index::Slot;
use crate::ops::{Condition, TryGet};
use crate::read::{Noted, Wait};
use crate::store::Inner;
use crate::write::Purpose;
use crate::{Result, StoreError};

/// What may be pinned of the bytes that puts may fill: one part of so many. The other is for what comes and goes, and for
/// the cleaner, which writes what is pinned in the log anew at each turn.
const SHARE: u64 = 2;

impl Inner {
    pub(crate) fn repin(&self, space: &[u8], key: &[u8], purpose: Purpose) -> Result<bool> {
        let mut tried = None;
        loop {
            let TryGet::Ready(Some(stored)) = self.get(space, key, Wait::Allowed, Noted::No)? else {
                return Ok(false);
            };
            if stored.stat.is_pinned == (purpose == Purpose::Pin) {
                return Ok(true);
            }
            if purpose == Purpose::Pin {
                self.check_pinned(None, stored.stat.stored_bytes)?;
            }
            stored.check_not_tried(&mut tried)?;
            let request = stored.again(space, key);
            // Another write may have come between: then the loop looks at what it wrote.
            let version = stored.stat.version;
            let hash = key_hash(space, key, self.seed);
            // From here on: the room for its new record shall not be its own.
            let is_marked = purpose == Purpose::Pin && self.mark_pinned(hash, version, true);
            let condition = Condition::Version(version);
            let put = self.put(&request, condition, purpose, stored.form(), Wait::Allowed);
            if is_marked && !matches!(put, Ok(Some(_))) {
                self.mark_pinned(hash, version, false);
            }
            if put?.is_some() {
                return Ok(true);
            }
        }
    }

    /// Notes in memory that the entry is pinned or not, if it still is the one that `version` made and is not noted so; says
    /// whether it was.
    fn mark_pinned(&self, hash: u128, version: u64, is_pinned: bool) -> bool {
        let mut shard = self.index.shard(hash);
        let is_it = |slot: &&mut Slot| slot.seq == version && slot.is_pinned != is_pinned;
        let Some(slot) = shard.get_mut(hash).filter(is_it) else { return false };
        let before = *slot;
        slot.is_pinned = is_pinned;
        self.count(Some(&before), Some(slot));
        true
    }

    /// Refuses a pinned put of these bytes in place of `old` if too much would be pinned. About: two at a time may both pass.
    pub(crate) fn check_pinned(&self, old: Option<&Slot>, footprint: u64) -> Result<()> {
        let replaced = old.filter(|old| old.is_pinned).map_or(0, Slot::footprint);
        let (pinned_bytes, max_bytes) =
            ((self.pinned_bytes() + footprint).saturating_sub(replaced), self.space.limit() / SHARE);
        // What takes no more than before is no worse than before.
        if pinned_bytes > max_bytes && footprint > replaced {
            return Err(StoreError::PinnedFull { pinned_bytes, max_bytes });
        }
        Ok(())
    }
}
