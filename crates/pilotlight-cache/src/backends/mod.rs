//! What keeps entries.

pub(crate) mod disk;
pub(crate) mod memory;

pub(crate) use disk::group;
