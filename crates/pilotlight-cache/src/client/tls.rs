//! TLS, by rustls: with ring, which builds without cmake, and the system's certificates, to which a fleet adds its own.
//!
//! As everywhere, `SSL_CERT_FILE` and `SSL_CERT_DIR` name other certificates than the system's.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::guarded::Guarded;
use super::socket::Socket;
use super::stream::unavailable;
use crate::Result;

/// A socket with TLS on it.
pub(super) type TlsStream = StreamOwned<ClientConnection, Socket>;

/// Reading the system's certificates takes milliseconds: it is done once, by the first connection. Not by a `OnceLock`, which
/// a fork could leave half done for ever; two threads at once do it twice.
#[derive(Debug, Default)]
pub(super) struct Tls {
    config: Guarded<Option<Arc<ClientConfig>>>,
}

impl Tls {
    /// Shakes hands with `host` over `socket`, within the socket's deadline.
    pub(super) fn connect(&self, host: &str, mut socket: Socket) -> Result<TlsStream> {
        let refused = |what: &str, why: &dyn std::fmt::Display| unavailable(&format!("{what}: {why}"));
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| refused("the host's name cannot be in a certificate", &error))?;
        let mut session = ClientConnection::new(self.config()?, name)
            .map_err(|error| refused("cannot begin TLS", &error))?;
        while session.is_handshaking() {
            if let Err(error) = session.complete_io(&mut socket) {
                return Err(socket.explain("cannot agree on TLS", error));
            }
        }
        Ok(StreamOwned::new(session, socket))
    }

    fn config(&self) -> Result<Arc<ClientConfig>> {
        if let Some(config) = self.config.lock().and_then(|config| config.clone()) {
            return Ok(config);
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(unavailable(
                "the system has no certificates to check the server's with; set SSL_CERT_FILE",
            ));
        }
        // Named, since the process' default depends on what else is linked into it.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unavailable(&format!("cannot begin TLS: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let config = Arc::new(config);
        if let Some(mut kept) = self.config.lock() {
            *kept = Some(config.clone());
        }
        Ok(config)
    }
}
