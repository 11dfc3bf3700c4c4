//! The commands, one file a family. The [table](super::table) says which there are.

pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod connection;
pub(crate) mod counters;
pub(crate) mod debug;
pub(crate) mod envelopes;
pub(crate) mod expiry;
pub(crate) mod info;
pub(crate) mod introspection;
pub(crate) mod keys;
pub(crate) mod leases;
pub(crate) mod object;
pub(crate) mod persistence;
pub(crate) mod scan;
pub(crate) mod set;
pub(crate) mod strings;
pub(crate) mod transaction;
mod update;
