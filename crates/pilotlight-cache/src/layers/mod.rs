//! Backends that wrap one.

pub(crate) mod flight;
pub(crate) mod hot;
pub(crate) mod recorder;
