//! What the crate promises, by subject.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests say what they expect by panicking, helpers of tests too"
)]

/// Requests that were given up.
mod abandoned;
/// The backend contract, on every backend and every layer.
mod contract;
/// The behaviours PyTorch's `test_remote_cache.py` demands of the controller.
mod controller;
/// Damage that only the envelope's checks find.
mod damage;
/// One fetch for all who ask at the same time.
mod flight;
/// Entries that leave together.
mod groups;
/// Lookups that go on in other namespaces.
mod reading;
/// Entries stored smaller while nobody uses them.
mod recompress;
/// Who signed what, and what becomes of it.
mod signatures;
/// A disk in front of an origin.
mod tiers;
