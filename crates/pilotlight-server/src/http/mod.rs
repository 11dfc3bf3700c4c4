//! The HTTP front-end: entries for ccache, Bazel and curl, and what operators and monitors ask.
//!
//! Not on the RESP cores: it has a thread and a runtime of its own, so a large upload or a scrape never delays a
//! compile. One thread is enough, since bodies move as shared [`bytes::Bytes`] and whatever blocks runs elsewhere.
//!
//! # Data path
//! `listen` accepts -> [`stall`] drops connections that stand still -> hyper (HTTP/1.1, or HTTP/2 with prior
//! knowledge, on one port) -> `router` -> [`rights`] (who asks, and may it) -> `entries` / `api` / `metrics` / `verify`
//! -> [`pilotlight_cache::Cache`].
//!
//! # Invariants
//! 1. Everything after the prefix `/cache/` is a key, opaque: no path is ever built from it.
//! 2. Errors keep their cause: [`status`] is the only place that chooses a status for one.
//! 3. Every wait on a client and on the cache has a limit.
//! 4. `/healthz` and `/readyz` touch neither the cache nor a lock.

mod api;
mod auth;
mod body;
mod carry;
mod conditions;
mod doctor;
mod entries;
mod jobs;
mod key;
mod listen;
mod maintain;
mod metrics;
mod pins;
mod problem;
mod quarantine;
mod range;
mod rights;
mod router;
mod stall;
mod status;
mod verify;

pub(crate) use listen::serve;
