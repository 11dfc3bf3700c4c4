//! What is counted of an origin. Each counter is declared once, in [`counters`]: metrics, `stats` and the reference page
//! iterate over them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::OriginFault;
use crate::Family;

macro_rules! counters {
    ($($id:ident $name:literal $family:literal $help:literal;)*) => {
        /// One counter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Counter { $($id),* }

        /// Name in `stats`, family in metrics, help.
        const COUNTERS: &[(Counter, &str, &str, &str)] = &[$((Counter::$id, $name, $family, $help)),*];
    };
}

counters! {
    Gets "gets" "pilotlight_origin_gets_total" "Entries that the origin was asked for";
    Hits "hits" "pilotlight_origin_hits_total" "Entries that the origin had";
    Misses "misses" "pilotlight_origin_misses_total" "Entries that the origin had not";
    Unchanged "unchanged" "pilotlight_origin_unchanged_total"
        "Entries that were looked up again and were here as the origin has them";
    Spared "spared" "pilotlight_origin_spared_total" "Lookups that the origin was spared, as it had the key not just before";
    Stale "stale" "pilotlight_origin_stale_total" "Entries served as they are here, as the origin could not be asked for newer ones";
    Quarantined "quarantined" "pilotlight_origin_quarantined_total" "Objects that failed their check";
    Untrusted "untrusted" "pilotlight_origin_untrusted_total" "Entries of the origin that the disk refused, by their signature";
    Unpromoted "unpromoted" "pilotlight_origin_unpromoted_total" "Entries of the origin that the disk could not take";
    Puts "puts" "pilotlight_origin_puts_total" "Objects put";
    Kept "kept" "pilotlight_origin_kept_total" "Objects put again as they are in use and grow old";
    Deletes "deletes" "pilotlight_origin_deletes_total" "Objects deleted";
    Taken "taken" "pilotlight_origin_taken_total" "Puts that were to be the first and were not";
    Dropped "dropped" "pilotlight_origin_dropped_total" "Puts that the origin never got, as the queue was full";
    Vanished "vanished" "pilotlight_origin_vanished_total"
        "Puts that the origin never got, as the entry had left the disk by then";
    Retries "retries" "pilotlight_origin_retries_total" "Requests that were made once more";
    ReceivedBytes "received_bytes" "pilotlight_origin_received_bytes_total" "Bytes of objects got";
    SentBytes "sent_bytes" "pilotlight_origin_sent_bytes_total" "Bytes of objects put";
    JournalFailures "journal_failures" "pilotlight_origin_journal_failures_total"
        "Times that the queue could not be written to the disk";
}

/// The counters of one origin.
#[derive(Debug, Default)]
pub struct OriginCounts {
    counters: [AtomicU64; COUNTERS.len()],
    faults: [AtomicU64; OriginFault::ALL.len()],
}

/// What is so now, and not since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OriginState {
    /// What waits to be sent.
    pub queued: u64,
    /// How long the oldest of that waits, in milliseconds.
    pub oldest_ms: u64,
    /// Whether it is not asked for entries, as it failed just now.
    pub is_reading_paused: bool,
    /// Whether nothing is sent to it, as it failed just now.
    pub is_writing_paused: bool,
}

#[expect(clippy::indexing_slicing, reason = "indices are enum numbers, arrays are sized by the enum")]
impl OriginCounts {
    pub(crate) fn add(&self, counter: Counter, count: u64) {
        self.counters[counter as usize].fetch_add(count, Relaxed);
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    pub(crate) fn count_fault(&self, fault: OriginFault) {
        self.faults[fault as usize].fetch_add(1, Relaxed);
    }

    /// Every counter: its name, and what it has counted.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        COUNTERS.iter().map(|(id, name, ..)| (*name, self.counters[*id as usize].load(Relaxed))).collect()
    }

    /// Operations that failed, by cause.
    #[must_use]
    pub fn faults(&self) -> [(OriginFault, u64); OriginFault::ALL.len()] {
        OriginFault::ALL.map(|fault| (fault, self.faults[fault as usize].load(Relaxed)))
    }

    /// Every counter as metrics have it.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let plain = COUNTERS.iter().map(|(id, _, name, help)| {
            let value = self.counters[*id as usize].load(Relaxed);
            Family { name, help, samples: vec![(Vec::new(), value as f64)] }
        });
        let faults = self.faults().map(|(fault, count)| (vec![("reason", fault.name())], count as f64));
        let faults = Family {
            name: "pilotlight_origin_errors_total",
            help: "Operations that the origin did not do, by reason",
            samples: faults.into(),
        };
        plain.chain([faults]).collect()
    }
}
