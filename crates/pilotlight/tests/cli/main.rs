//! The command as a person meets it: what it prints, where, and with which exit code.

mod bad_input;
mod client;
mod configuration;
mod harness;
mod pages;
mod serve;
