//! For whoever writes a backend or a layer: the checks of the contract.
#![expect(clippy::expect_used, reason = "a failed check is a panic that says what failed")]

pub mod conformance;
#[cfg(feature = "origin")]
mod origin;

#[cfg(feature = "origin")]
pub use self::origin::{Asked, MemoryOrigin, Trouble};
