//! TLS for the commands: over HTTP, and for the one question that they ask over RESP.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use pilotlight_cache::client::TlsFilesError;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::environment;
use crate::failure::Failure;

const HINT: &str = "PILOTLIGHT_CLIENT_CERT and PILOTLIGHT_CLIENT_KEY name the client's certificate and key, PILOTLIGHT_SERVER_CA or \
                    SSL_CERT_FILE the authorities that sign the server's, all of them PEM";

/// What HTTP over TLS begins with.
pub(super) fn for_http() -> Result<TlsConfig, Failure> {
    let files = environment::tls_files();
    let roots: Vec<_> = files.roots().map_err(|error| unusable(&error))?;
    let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    // The key is read as text once more: this client takes none that was read.
    let own = files.identity().map_err(|error| unusable(&error))?.zip(files.key.as_ref());
    let identity = match own {
        None => None,
        Some(((chain, _), path)) => {
            let refused = |error: &dyn std::error::Error| {
                Failure::new(format!("cannot use the key in `{}`", path.display())).because(error)
            };
            let pem = std::fs::read(path).map_err(|error| refused(&error))?;
            let key = PrivateKey::from_pem(&pem).map_err(|error| refused(&error))?;
            let chain: Vec<_> = chain.iter().map(|link| Certificate::from_der(link).to_owned()).collect();
            Some(ClientCert::new_with_certs(&chain, key))
        }
    };
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(identity)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
}

/// Shakes hands with `host` over `stream`, whose limits hold for that too.
pub(super) fn over(host: &str, stream: TcpStream) -> io::Result<impl Read + Write> {
    let config = environment::tls_files().config().map_err(io::Error::other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(session, stream))
}

fn unusable(error: &TlsFilesError) -> Failure {
    Failure::new("cannot begin TLS").because(error).with_hint(HINT)
}
