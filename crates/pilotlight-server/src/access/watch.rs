//! The thread that looks after the users file.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pilotlight_cache::Namespace;

use super::audit::{Deed, Event};
use super::force::Woken;
use crate::Server;

/// How often it looks whether the file was changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What a namespace may take whose quota was taken away, in bytes: more than there is.
const NO_QUOTA: u64 = u64::MAX / 4;

/// The thread; dropped, it ends.
pub(crate) struct Watch {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts the thread, where there is a users file.
    pub(crate) fn start(server: &Arc<Server>) -> io::Result<Self> {
        let thread = if server.access.has_file() {
            let watched = Arc::clone(server);
            Some(std::thread::Builder::new().name("users".to_owned()).spawn(move || watch(&watched))?)
        } else {
            None
        };
        Ok(Self { server: Arc::clone(server), thread })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.server.access.wake(Woken::ToEnd);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn watch(server: &Server) {
    let access = &server.access;
    let mut quotas = quotas(server);
    loop {
        let reloaded = match access.wait(LOOK_EVERY) {
            Woken::ToEnd => return,
            Woken::ToReload => Some(access.reload()),
            Woken::No => access.reload_if_changed(),
        };
        let Some(reloaded) = reloaded else { continue };
        let outcome = if reloaded.is_ok() { Deed::Ok } else { Deed::Failed };
        match reloaded {
            Ok(()) => {
                tracing::info!(users = access.users().iter().count(), "the users file is in force");
                apply_quotas(server, &mut quotas);
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, "the users stay as they were");
            }
        }
        access.audit.note(Event {
            time_ms: server.clock.now_ms(),
            user: "".into(),
            peer: "".into(),
            action: "reload".into(),
            namespace: None,
            key: None,
            outcome,
        });
    }
}

fn quotas(server: &Server) -> BTreeMap<Namespace, u64> {
    server.access.users().quotas().map(|(namespace, bytes)| (namespace.clone(), bytes)).collect()
}

/// Changes the quotas that are other ones than before.
fn apply_quotas(server: &Server, before: &mut BTreeMap<Namespace, u64>) {
    let Some(maintenance) = &server.maintenance else { return };
    let now = quotas(server);
    let taken_away = before.keys().filter(|namespace| !now.contains_key(*namespace));
    let changes = now
        .iter()
        .filter(|(namespace, bytes)| before.get(*namespace) != Some(*bytes))
        .map(|(namespace, bytes)| (namespace, *bytes))
        .chain(taken_away.map(|namespace| (namespace, NO_QUOTA)));
    for (namespace, bytes) in changes {
        if let Err(error) = maintenance.set_quota(namespace, bytes) {
            tracing::error!(%error, namespace = namespace.as_str(), "cannot set the quota");
        }
    }
    *before = now;
}
