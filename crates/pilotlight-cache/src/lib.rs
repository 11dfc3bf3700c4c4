//! The model of Pilotlight, a remote compile cache for `torch.compile` and the compilers around it.
//!
//! It is not a server (see `pilotlight-server`), not the disk store (see `pilotlight-store`), and knows no HTTP, no
//! command line and no Python.
//!
//! # The model
//! A [`Key`] names an [`Entry`]: an artifact and its metadata. A [`Backend`] keeps entries; a layer is a backend that
//! wraps one. [`Cache`] is the controller: it counts every operation at two levels, samples it, and alone may turn an
//! error into a miss ([`FailurePolicy`]). [`RemoteCache`] adds a [`Serde`] and is PyTorch's class of that name.
//! [`envelope`] is the framing that an entry has on disk and on the wire, [`trust`] says whose entries are taken.
//!
//! # Invariants
//! 1. `Ok(None)` is a miss, `Err` an exception; no backend or layer turns one into the other.
//! 2. Nothing unverified reaches a decoder: it takes [`Verified`] bytes, and only a check or a producer makes those. Backends
//!    hand on [`Artifact`]s, which may be unchecked and give their bytes to nobody but as `Verified` ones.
//! 3. No runtime is started and no thread is spawned here. Backends that block are given a [`Blocking`] by their owner, the tiers
//!    with an origin a runtime.
//! 4. Nothing here reads the environment, prints, or logs a key or an artifact.
//!
//! # Limits
//! Keys: [`KEY_LEN_MAX`] bytes. Namespace names: [`NAMESPACE_LEN_MAX`] bytes. Artifacts: 4 GiB (the envelope), in
//! practice what the backend's bound leaves.
//!
//! # Example: a backend of one's own
//! ```
#![doc = include_str!("../examples/own_backend.rs")]
//! ```
//!
//! # Sources
//! `torch/_inductor/remote_cache.py` of torch 2.6 to 2.15 (controller, serde, samples, counters).
//! Where to look next: [`Backend`] for the contract, [`testing`] for its checks.

mod backend;
mod backends;
mod cache;
#[cfg(feature = "client")]
pub mod client;
mod entry;
pub mod envelope;
mod error;
mod key;
mod kind;
mod layers;
pub mod leases;
mod maintenance;
#[cfg(feature = "origin")]
pub mod origin;
pub mod portable;
mod reading;
mod recompress;
mod reused;
mod sample;
mod serde;
mod stats;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trust;

pub use pilotlight_store::media::room as disk_room;
pub use pilotlight_store::{Clock, Durability, ManualClock, OpenError, SystemClock};

pub use crate::backend::{Backend, BackendExt, Cursor, Page, SweepProgress, Usage};
pub use crate::backends::disk::{Blocking, DiskBackend, DiskOptions, Inline};
pub use crate::backends::memory::MemoryBackend;
pub use crate::cache::{Cache, FailurePolicy, PendingPut, PutOutcome, Refused, RemoteCache, Staged};
pub use crate::entry::{
    Artifact, Details, Digest, Entry, Found, Head, Metadata, Put, Verified, Version, When,
};
pub use crate::error::{Error, ErrorKind, Result};
pub use crate::key::{KEY_LEN_MAX, Key, NAMESPACE_LEN_MAX, Namespace};
pub use crate::kind::Kind;
pub use crate::layers::flight::Flight;
pub use crate::layers::hot::Hot;
pub use crate::layers::recorder::{Recorder, TraceSink, Use, Used};
#[cfg(feature = "origin")]
pub use crate::layers::tiered::{Peek, Tiered, TieredOptions};
pub use crate::maintenance::{
    Checkup, Collect, Collected, Conflict, Examination, Exported, GROUP_ENTRIES_MAX, Imported, Maintenance,
    Purged, RecompressReport, Repaired, SetAside, StoreAbout, VerifyReport,
};
pub use crate::reading::ReadThrough;
pub use crate::sample::{NoSamples, Operation, Outcome, Sample, SampleHooks};
pub use crate::serde::{JsonSerde, PassthroughSerde, Serde};
pub use crate::stats::{Family, Handed, Snapshot, Stats};
