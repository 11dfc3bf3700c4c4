//! Backends that wrap one.

pub(crate) mod hot;
