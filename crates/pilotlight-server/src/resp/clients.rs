//! Who is connected.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::tls::PeerIdentity;

/// Every open RESP connection, by id.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    open: Mutex<BTreeMap<u64, Arc<Client>>>,
    last_id: AtomicU64,
}

/// What others may know of a connection, and do to it.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) address: String,
    pub(crate) local_address: String,
    /// Who it proved to be with a TLS certificate.
    pub(crate) identity: Option<Arc<PeerIdentity>>,
    pub(crate) connected_ms: u64,
    pub(crate) active_ms: AtomicU64,
    pub(crate) database: AtomicU16,
    /// Whether it speaks RESP3.
    pub(crate) is_resp3: AtomicBool,
    /// Set by `CLIENT SETNAME` and `SETINFO`.
    pub(crate) names: Mutex<Names>,
    is_killed: AtomicBool,
    killed: Notify,
}

/// What a client says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) connection: Bytes,
    pub(crate) library: Bytes,
    pub(crate) library_version: Bytes,
    pub(crate) last_command: &'static str,
    pub(crate) user: Arc<str>,
}

impl Default for Names {
    fn default() -> Self {
        let none = Bytes::new;
        // As Redis calls who has not logged in.
        Self {
            connection: none(),
            library: none(),
            library_version: none(),
            last_command: "",
            user: "default".into(),
        }
    }
}

impl Clients {
    pub(crate) fn open(
        &self,
        (address, local_address): (String, String),
        identity: Option<Arc<PeerIdentity>>,
        now_ms: u64,
    ) -> Arc<Client> {
        let id = self.last_id.fetch_add(1, Relaxed) + 1;
        let client = Arc::new(Client {
            id,
            address,
            local_address,
            identity,
            connected_ms: now_ms,
            active_ms: AtomicU64::new(now_ms),
            database: AtomicU16::new(0),
            is_resp3: AtomicBool::new(false),
            names: Mutex::default(),
            is_killed: AtomicBool::new(false),
            killed: Notify::new(),
        });
        self.open.lock().insert(id, Arc::clone(&client));
        client
    }

    pub(crate) fn close(&self, id: u64) {
        self.open.lock().remove(&id);
    }

    /// All of them, oldest first. Not those that were killed: to who killed them they are gone, though their own core has
    /// yet to notice.
    pub(crate) fn all(&self) -> Vec<Arc<Client>> {
        self.open.lock().values().filter(|client| !client.is_killed()).cloned().collect()
    }

    /// How many `all` has.
    pub(crate) fn count(&self) -> usize {
        self.open.lock().values().filter(|client| !client.is_killed()).count()
    }
}

impl Client {
    /// Has the connection closed as soon as it is between two commands.
    pub(crate) fn kill(&self) {
        self.is_killed.store(true, Relaxed);
        self.killed.notify_one();
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.is_killed.load(Relaxed)
    }

    /// Ready once the connection is to be closed.
    pub(crate) async fn killed(&self) {
        self.killed.notified().await;
    }

    /// One line of `CLIENT LIST`.
    pub(crate) fn line(&self, now_ms: u64) -> Vec<u8> {
        let names = self.names.lock().clone();
        let seconds = |since_ms: u64| now_ms.saturating_sub(since_ms) / 1000;
        let mut line =
            format!("id={} addr={} laddr={} fd=0 name=", self.id, self.address, self.local_address)
                .into_bytes();
        line.extend_from_slice(&names.connection);
        line.extend_from_slice(
            format!(
                " age={} idle={} flags=N db={} sub=0 psub=0 ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 \
                 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={} user={} redir=-1 \
                 resp={} lib-name=",
                seconds(self.connected_ms),
                seconds(self.active_ms.load(Relaxed)),
                self.database.load(Relaxed),
                names.last_command,
                names.user,
                if self.is_resp3.load(Relaxed) { 3 } else { 2 },
            )
            .as_bytes(),
        );
        line.extend_from_slice(&names.library);
        line.extend_from_slice(b" lib-ver=");
        line.extend_from_slice(&names.library_version);
        if let Some(identity) = &self.identity {
            line.extend_from_slice(b" cert=");
            line.extend_from_slice(identity.word().as_bytes());
        }
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_longest_names_is_below_2_5_kib() {
        let longest = |len| Bytes::from("n".repeat(len));
        let addresses = ("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".to_owned(), "u".repeat(108));
        // Each byte of it is three in the line.
        let identity = PeerIdentity::of_subject(&"\u{e9}".repeat(128));
        let client = Clients::default().open(addresses, Some(Arc::new(identity)), u64::MAX / 2);
        *client.names.lock() = Names {
            connection: longest(256),
            library: longest(256),
            library_version: longest(256),
            last_command: "client|no-evict",
            user: "u".repeat(64).into(),
        };
        client.database.store(u16::MAX, Relaxed);
        let line = client.line(u64::MAX);
        assert!((2000..2560).contains(&line.len()), "{} bytes", line.len());
    }
}
