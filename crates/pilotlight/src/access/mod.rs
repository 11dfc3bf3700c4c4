//! Where the client commands find entries: at a server, or in the directory of a stopped one.

mod directory;
mod server;

use std::time::Duration;

use pilotlight_cache::{Key, Namespace};
use pilotlight_server::report::{CheckedReport, EntriesReport, StatsReport};

use crate::cli::Target;
use crate::environment;
use crate::failure::Failure;
use crate::settings;

const SERVER_DEFAULT: &str = "http://127.0.0.1:6380";

/// What the client commands need. Blocking: a command does one thing at a time.
pub(crate) trait Access {
    fn stats(&self) -> Result<StatsReport, Failure>;
    fn entries(&self, namespace: &Namespace, cursor: u64, limit: usize) -> Result<EntriesReport, Failure>;
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, Failure>;
    fn put(&self, key: &Key, artifact: Vec<u8>, ttl: Option<Duration>) -> Result<(), Failure>;
    /// Whether there was one.
    fn delete(&self, key: &Key) -> Result<bool, Failure>;
    /// Whether there is one.
    fn pin(&self, key: &Key) -> Result<bool, Failure>;
    /// Whether there is one.
    fn unpin(&self, key: &Key) -> Result<bool, Failure>;
    /// How many there were.
    fn clear(&self, namespace: &Namespace) -> Result<u64, Failure>;
    fn verify(&self, progress: &mut dyn FnMut(&CheckedReport)) -> Result<CheckedReport, Failure>;
}

/// What `target` names.
pub(crate) fn open(target: &Target) -> Result<Box<dyn Access>, Failure> {
    if let Some(directory) = &target.data_dir {
        return Ok(Box::new(directory::Directory::open(directory)?));
    }
    let password = match &target.password_file {
        Some(path) => Some(settings::password_in(path)?),
        None => environment::variable("PILOTLIGHT_PASSWORD"),
    };
    let url = target.server.clone().or_else(|| environment::variable("PILOTLIGHT_HTTP_URL"));
    Ok(Box::new(server::Server::new(url.as_deref().unwrap_or(SERVER_DEFAULT), password)?))
}
