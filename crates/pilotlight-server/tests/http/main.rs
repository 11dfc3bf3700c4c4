//! The HTTP front-end, in process, over real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it skips"
)]

mod entries;
mod harness;
mod hostile;
mod limits;
mod operators;
mod real_clients;
mod recompress;
mod signers;
mod users;
