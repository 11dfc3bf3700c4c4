//! What the client counts, once for both the code that counts and the code that shows.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::trust::Reason;
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
    /// Entries without a signature, where signatures are asked for. Under `warn` such an entry is a hit as well, and so are those
    /// of the next five.
    unsigned,
    /// Entries that nobody signed whom we trust.
    unknown_signer,
    /// Entries that are not what their signer signed.
    bad_signature,
    /// Entries whose signer is revoked.
    revoked,
    /// Entries whose signer has expired.
    expired,
    /// Entries that their signer may not sign, or not for here.
    out_of_scope,
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
    /// Compiles that others may have waited for.
    led,
    /// Lookups that waited for another's compile, and what it put.
    followed,
    /// Lookups that waited for another's compile, and then compiled.
    lease_timeouts,
    /// Milliseconds that those waited.
    waited_ms,
    /// Microseconds that failures cost, refused puts, and the slow part of slow answers.
    trouble_us,
}

thread_local! {
    /// What went without result in this thread, whichever client was asked. Threads that compile at the same time share a
    /// client, and each wants to know why its own lookup failed.
    static OF_THREAD: Counters = Counters::default();
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Relaxed);
    }

    /// Counts `count` failures for the reason of `error`.
    pub(super) fn add_failures(&self, error: &Error, count: u64) {
        if let Error::Unverified(refusal) = error {
            return self.add_reason(count, of_refusal(refusal.reason()));
        }
        self.add_reason(
            count,
            match error.kind() {
                ErrorKind::Timeout => |counters| &counters.timeout,
                ErrorKind::Full => |counters| &counters.full,
                ErrorKind::TooLarge => |counters| &counters.too_large,
                ErrorKind::Corrupt | ErrorKind::Unverified | ErrorKind::Unsupported => {
                    |counters| &counters.corrupt
                }
                ErrorKind::Denied | ErrorKind::ReadOnly => |counters| &counters.denied,
                ErrorKind::Unavailable | ErrorKind::Invalid | ErrorKind::Internal => {
                    |counters| &counters.unavailable
                }
            },
        );
    }

    /// Counts an entry that is used although nobody trusted signed it: why it would not be, if that were asked for.
    pub(super) fn add_doubt(&self, reason: Reason) {
        Self::add(of_refusal(reason)(self), 1);
    }

    /// Counts what was not asked for, since nobody answered before.
    pub(super) fn add_unasked(&self, count: u64) {
        self.add_reason(count, |counters| &counters.unavailable);
    }

    pub(super) fn add_misfits(&self, count: usize) {
        self.add_reason(count as u64, |counters| &counters.misfit);
    }

    /// Counts why something went without result, for the client and for the thread.
    fn add_reason(&self, count: u64, of: fn(&Self) -> &AtomicU64) {
        Self::add(of(self), count);
        OF_THREAD.with(|counters| Self::add(of(counters), count));
    }

    /// Failures and misfits of the calling thread, by name; every other counter is 0.
    pub(super) fn of_thread() -> Vec<(&'static str, u64)> {
        OF_THREAD.with(Self::all)
    }
}

fn of_refusal(reason: Reason) -> fn(&Counters) -> &AtomicU64 {
    match reason {
        Reason::Unsigned => |counters| &counters.unsigned,
        Reason::UnknownSigner => |counters| &counters.unknown_signer,
        Reason::BadSignature => |counters| &counters.bad_signature,
        Reason::Revoked => |counters| &counters.revoked,
        Reason::Expired => |counters| &counters.expired,
        Reason::OutOfScope => |counters| &counters.out_of_scope,
    }
}
