//! Pilotlight's embedded store: a bounded, crash-safe map from keys to entries in one directory.
//!
//! It is not a cache policy (see `pilotlight-cache`), knows no network and no async runtime, and does not look into what
//! it stores.
//!
//! # The model
//! A [`Store`] appends records to a log of segments and keeps one slot an entry in memory. Payloads over [`INLINE_MAX`]
//! lie in files of their own, shared by entries with equal payloads. When the bound is near, the entries least worth
//! keeping ([`policy`]) are evicted, and segments with much dead in them are cleaned. FORMAT.md draws every byte.
//!
//! Entries may be pinned, spaces may have quotas, and entries that are of use only together leave together.
//!
//! # Invariants
//! 1. An acknowledged put survives `kill -9`; what else it survives is [`Durability`].
//! 2. A get gives the whole entry, its check passed, or nothing. It may give one that is staged and not acknowledged yet.
//! 3. The directory never takes more than the bound, as `du` counts: every writer reserves before it writes, and little is
//!    granted before it is known what a crash left.
//! 4. A file's name is never used twice, and bytes below a segment's end never change.
//! 5. One process a directory: a second open is refused.
//!
//! # Limits
//! Entries: what an empty store could hold of its bound, at most 4 GiB. Heads: 256 KiB. Keys with their space: 32 KiB.
//! Spaces: 65,535. File systems that allocate ahead of need (XFS) can show more in `du` than the store counts, for a
//! moment.
//!
//! Where to look next: `write.rs`, `pending.rs` and `read.rs` for the life of a put and a get, `recovery.rs` and `sweep.rs` for what
//! a crash leaves.

mod aside;
mod background;
mod batch;
mod blobs;
mod checkup;
mod clock;
mod collect;
mod commit;
mod crowded;
mod directory;
mod error;
mod evict;
mod examine;
mod expiries;
mod format;
mod generations;
mod groups;
mod holding;
mod holds;
mod index;
mod log;
mod looking;
pub mod media;
mod newest;
mod notes;
mod ops;
mod options;
mod orphans;
mod pending;
mod pins;
pub mod policy;
mod quarantine;
mod quota;
mod read;
mod rebuild;
mod records;
mod recovery;
mod rewrite;
mod shard;
mod space;
mod store;
mod sweep;
mod usage;
mod write;

pub use crate::aside::{Purged, SetAside};
pub use crate::checkup::Checkup;
pub use crate::clock::{Clock, ManualClock, SystemClock};
pub use crate::collect::{Collect, Collected};
pub use crate::error::{OpenError, Result, StoreError};
pub use crate::examine::{Examination, examine};
pub use crate::groups::{GROUP_ENTRIES_MAX, SHARED};
pub use crate::looking::LookingOnly;
pub use crate::ops::{Condition, INLINE_MAX, PutRequest, ScanPage, Stat, Stored, TryGet};
pub use crate::options::{Durability, Options};
pub use crate::rebuild::Repaired;
pub use crate::rewrite::{Base, Rewrite};
pub use crate::store::Store;
pub use crate::usage::StoreUsage;
