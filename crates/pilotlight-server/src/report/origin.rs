use std::collections::BTreeMap;

use pilotlight_cache::Tiered;
use serde::{Deserialize, Serialize};

/// What became of what was asked of the origin, since the server started, and how it is now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OriginReport {
    /// Every counter of the origin's, by name.
    pub counts: BTreeMap<String, u64>,
    /// Operations that it did not do, by reason. Reasons never seen are left out.
    pub errors: BTreeMap<String, u64>,
    /// Puts and deletions that wait to be sent.
    pub queued: u64,
    /// How long the oldest of them waits.
    pub oldest_seconds: f64,
    /// Whether it is not asked for entries, as it failed just now.
    pub is_reading_paused: bool,
    /// Whether nothing is sent to it, as it failed just now.
    pub is_writing_paused: bool,
}

impl OriginReport {
    /// The report of an origin behind `tiers`.
    #[must_use]
    pub fn of(tiers: &Tiered) -> Self {
        let (counts, state) = (tiers.counts(), tiers.state());
        let errors = counts.faults().into_iter().filter(|(_, count)| *count > 0);
        Self {
            counts: counts.all().into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
            errors: errors.map(|(fault, count)| (fault.name().to_owned(), count)).collect(),
            queued: state.queued,
            oldest_seconds: state.oldest_ms as f64 / 1e3,
            is_reading_paused: state.is_reading_paused,
            is_writing_paused: state.is_writing_paused,
        }
    }
}
