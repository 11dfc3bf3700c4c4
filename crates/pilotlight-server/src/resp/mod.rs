//! The RESP front-end: RESP2 and RESP3 for clients of Redis.
//!
//! A command's way: [`cores`](crate::cores) accepts -> [`connection`] reads -> [`decode`] -> [`session`] looks it up in
//! the [`table`], [`permits`] it or not, passes the [`gate`] -> [`commands`] ask the cache -> [`reply`] -> [`output`] writes.

mod audit;
mod clients;
mod command;
mod commands;
pub(crate) mod connection;
mod decode;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gate;
pub(crate) mod glob;
mod inline;
mod leases;
mod number;
mod output;
mod parameters;
mod permits;
mod puts;
mod reply;
mod session;
mod settings;
mod shared;
mod socket;
mod standing;
mod table;

pub(crate) use connection::SCRATCH_LEN;
pub(crate) use session::Core;
pub(crate) use shared::Shared;
pub(crate) use socket::Accepted;
