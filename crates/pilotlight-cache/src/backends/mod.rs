//! What keeps entries.

mod carry;
pub(crate) mod disk;
mod maintained;
pub(crate) mod memory;

pub(crate) use disk::group;
