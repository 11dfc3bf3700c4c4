//! Backends that wrap one.

pub(crate) mod flight;
pub(crate) mod hot;
pub(crate) mod recorder;
#[cfg(feature = "origin")]
pub(crate) mod tiered;
