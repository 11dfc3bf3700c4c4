//! What many nodes share: a slow place that keeps entries as objects, behind the disk of each.
//!
//! It is not a [`crate::Backend`]: it knows names and bytes, and neither versions, nor expiry, nor conditions but one.
//! [`crate::Tiered`] makes one backend of a fast one and an origin.
//!
//! [`Origin`] is what an implementor writes. `guard` stands in front of it: one budget an operation, retries within it, a
//! breaker, a bound on what is under way, counters. `layout` says what objects are called and what is in them. `queue` holds
//! what is still to be sent, `journal` makes that survive a restart, `backfill` sends it.

pub(crate) mod backfill;
mod breaker;
mod counts;
mod error;
pub(crate) mod guard;
mod journal;
pub mod layout;
#[cfg(feature = "origin-object")]
mod object;
pub(crate) mod queue;

use std::fmt::{Debug, Display};

use async_trait::async_trait;
use bytes::Bytes;

pub(crate) use self::counts::Counter;
pub use self::counts::{OriginCounts, OriginState};
pub use self::error::{OriginError, OriginFault};
pub use self::layout::ObjectName;
#[cfg(feature = "origin-object")]
pub use self::object::{ObjectOrigin, ObjectSettings};

/// Objects by name, shared with other nodes. No method has a default body.
///
/// An object is replaced as a whole or not at all. What was put may be seen by others late, and what was deleted may be seen
/// for a while: nothing here depends on more than that.
///
/// `Display` names it as a person would, without secrets.
///
/// # Errors
/// [`OriginError`] by cause. An object that is not there is no error.
///
/// # Cancellation
/// Every future may be dropped at any time: that is how the caller's budget ends. No time limit and no retry of their own is
/// asked of implementors.
#[async_trait]
pub trait Origin: Send + Sync + Debug + Display {
    /// The object called `name`, if it is there, of at most `max_bytes`, and not the one tagged `unless`.
    async fn get(
        &self,
        name: &ObjectName,
        max_bytes: u64,
        unless: Option<&Tag>,
    ) -> Result<Fetched, OriginError>;

    /// What is known of the object called `name`, if it is there.
    async fn head(&self, name: &ObjectName) -> Result<Option<About>, OriginError>;

    /// Puts these bytes, one after the other, as the object called `name`, over what was there.
    async fn put(&self, name: &ObjectName, object: Vec<Bytes>) -> Result<Option<Tag>, OriginError>;

    /// The same where nothing was there; `Unsupported` where that cannot be told in the same step.
    async fn put_if_absent(&self, name: &ObjectName, object: Vec<Bytes>) -> Result<FirstPut, OriginError>;

    /// Deletes the object called `name`, if it is there.
    async fn delete(&self, name: &ObjectName) -> Result<(), OriginError>;

    /// About `limit` objects whose names begin with `prefix`, in the order of their names, from behind `after` on.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectName>,
        limit: usize,
    ) -> Result<Listing, OriginError>;
}

/// What tells one object under a name from the next one: opaque, and only good for the origin that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(pub String);

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Its length in bytes.
    pub size_bytes: u64,
    /// When it was put, by the origin's clock, in milliseconds since the Unix epoch.
    pub modified_ms: u64,
    /// Which object it is.
    pub tag: Option<Tag>,
}

/// What a get brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The object, whole.
    Object {
        /// Its bytes.
        bytes: Bytes,
        /// What is known of it.
        about: About,
    },
    /// It is not there.
    Absent,
    /// It is the one that the caller knows.
    Unchanged,
}

/// What a put where nothing was did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstPut {
    /// Put.
    Stored(Option<Tag>),
    /// Something was there.
    Taken,
}

/// A part of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The objects, in the order of their names.
    pub objects: Vec<(ObjectName, About)>,
    /// Whether there may be more behind the last.
    pub is_truncated: bool,
}

/// How puts reach the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// A put is done when the disk has it; the origin has it some moments later.
    Behind,
    /// A put waits for the origin, within the budget: then another node finds it at once.
    Through,
}

/// When a put fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// When no tier takes it.
    Ignore,
    /// When the disk does not take it.
    FailTier,
    /// When the disk or the origin does not take it.
    All,
}

impl Write {
    /// As in settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Through => "through",
        }
    }
}

impl OnError {
    /// As in settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::FailTier => "fail-tier",
            Self::All => "all",
        }
    }
}
