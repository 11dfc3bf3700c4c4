//! Backends that wrap one.

pub(crate) mod hot;
pub(crate) mod recorder;
