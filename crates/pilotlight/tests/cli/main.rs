//! The command as a person meets it: what it prints, where, and with which exit code.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking and says what it skips"
)]

mod address;
mod bad_input;
mod carry;
mod client;
mod configuration;
mod doctor;
mod harness;
mod keys;
mod pages;
mod pins;
mod run;
mod serve;
mod users;
