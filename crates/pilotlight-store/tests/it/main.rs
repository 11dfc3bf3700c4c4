//! What the store promises, by subject.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests say what they expect by panicking, and print their seeds; helpers of tests too"
)]

/// The byte bound, eviction and expiry.
mod bound;
/// Crashes and failures at every call of the medium.
mod campaign;
/// Collecting what nobody needs.
mod collect;
/// What the store says it holds is what it holds.
mod counts;
/// Disks that others fill.
mod crowded;
/// Damage on the disk: found, set aside, never served.
mod damage;
/// What is wrong with a store, and how it is mended.
mod doctor;
/// Format 1, as the first release wrote it, opened for ever.
mod fixture;
/// A flipped bit in each structure of the format.
mod flips;
/// Groups that entries join when they are there already.
mod joining;
/// Pins, quotas, groups: who does not leave, who leaves first, who leaves together.
mod keeping;
/// FORMAT.md, read by other eyes than the store's.
mod layout;
/// Media that are watched, broken, and crashed.
mod media;
/// Random operations against a map, with reopens between.
mod model;
/// One process a directory, refusals to open, durability.
mod open;
/// What a power cut takes, and what it must not.
mod power_cut;
/// What was set aside: noted, kept, listed, purged.
mod quarantine;
mod quotas;
/// Disks that nobody may write to.
mod read_only;
/// What goes wrong while the store repairs, cleans and removes, and what must not follow from it.
mod repair;
/// Entries kept in another form, and payloads stored against others.
mod rewrite;
/// What the tests share.
mod setup;
/// Puts staged together, settled with one write, and taken back together when that fails.
mod staging;
/// What else goes on while staged puts are written, refused and taken back.
mod staging_races;
/// What a crash left: found and removed while the store is in use.
mod sweep;
