//! Pilotlight's front-ends: RESP and HTTP over one [`Cache`].
//!
//! It is not the cache (see `pilotlight-cache`) and not a program: it never prints, exits or reads the environment.
//! [`run()`] takes a configuration, listeners that are already bound, and a future that ends it.

pub mod access;
mod config;
mod cores;
mod http;
mod memory;
mod peers;
mod pool;
pub mod quantity;
mod recompress;
pub mod report;
mod resp;
mod run;
mod selection;
mod state;
mod tls;

#[cfg(fuzzing)]
pub use crate::resp::fuzzing;

pub use crate::config::Config;
pub use crate::pool::ThreadPool;
pub use crate::run::{Listeners, SecureListeners, run};
pub use crate::selection::Selection;
pub use crate::state::{Server, ServerStats};
pub use crate::tls::{ClientCertificates, PeerIdentity, Tls, TlsError, TlsFiles};
pub use pilotlight_cache::Cache;
