//! What keeps entries.

mod carry;
pub(crate) mod disk;
mod groups;
mod maintained;
pub(crate) mod memory;

pub(crate) use groups::group;
