//! What the client counts, once for both the code that counts and the code that shows.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{Error, ErrorKind};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The counters of one client, since this process began.
        #[derive(Debug, Default)]
        pub(super) struct Counters { $($(#[$doc])* pub(super) $name: AtomicU64),* }

        impl Counters {
            /// Every counter with its name.
            pub(super) fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Relaxed))),*]
            }

            /// A forked child has done nothing yet.
            pub(super) fn clear(&self) {
                $(self.$name.store(0, Relaxed);)*
            }
        }
    };
}

counters! {
    /// Keys asked for; `candidates` asks for one. Hits, misses and what failed, by reason, add up to them.
    gets,
    hits,
    /// The cache answered that it has none, or none that fits.
    misses,
    /// Stored, and the cache said so.
    puts,
    /// Not stored, for whatever reason.
    dropped,
    /// Variants passed over for their fingerprint.
    misfit,
    /// Entries that failed their check.
    corrupt,
    quarantined,
    /// Nobody answered, or nobody was asked because nobody answered before.
    unavailable,
    timeout,
    /// Wrong password, no permission, read-only.
    denied,
    full,
    too_large,
    bytes_read,
    bytes_written,
    round_trips,
    connections,
    /// Microseconds that failures cost, refused puts, and the slow part of slow answers.
    trouble_us,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Relaxed);
    }

    /// Counts `count` failures for the reason of `error`.
    pub(super) fn add_failures(&self, error: &Error, count: u64) {
        let counter = match error.kind() {
            ErrorKind::Timeout => &self.timeout,
            ErrorKind::Full => &self.full,
            ErrorKind::TooLarge => &self.too_large,
            ErrorKind::Corrupt | ErrorKind::Unverified | ErrorKind::Unsupported => &self.corrupt,
            ErrorKind::Denied | ErrorKind::ReadOnly => &self.denied,
            ErrorKind::Unavailable | ErrorKind::Invalid | ErrorKind::Internal => &self.unavailable,
        };
        Self::add(counter, count);
    }
}
