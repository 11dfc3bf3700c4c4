//! TLS, by rustls: with ring, which builds without cmake, and the system's certificates, to which a fleet adds its own.
//!
//! As everywhere, `SSL_CERT_FILE` and `SSL_CERT_DIR` name other certificates than the system's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::guarded::Guarded;
use super::socket::Socket;
use super::stream::unavailable;
use crate::Result;

/// A socket with TLS on it.
pub(super) type TlsStream = StreamOwned<ClientConnection, Socket>;

/// PEM files for TLS; all of them may be absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The client's own certificate, for servers that ask for one.
    pub certificate: Option<PathBuf>,
    /// The key of that certificate.
    pub key: Option<PathBuf>,
    /// Authorities to check the server's certificate with, instead of the system's.
    pub authorities: Option<PathBuf>,
}

/// Why files for TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    /// A file cannot be read, or holds nothing of the kind.
    #[error("cannot use the {what} in `{path}`: {reason}", path = path.display())]
    File {
        /// Certificate, key or authorities.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system or the parser said.
        reason: String,
    },
    /// A certificate without a key, or a key without a certificate.
    #[error("a client certificate needs its key as well, and a key its certificate")]
    Half,
    /// Neither the system nor `SSL_CERT_FILE` has certificates.
    #[error("the system has no certificates to check the server's with; set SSL_CERT_FILE")]
    NoAuthorities,
    /// The key belongs to another certificate, or rustls refuses one of them.
    #[error("cannot use the client certificate: {0}")]
    Refused(#[from] rustls::Error),
}

impl TlsFiles {
    /// What to begin TLS with, as a client. Reads the files, and where no authorities are named the system's.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub fn config(&self) -> std::result::Result<ClientConfig, TlsFilesError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.roots()?);
        if roots.is_empty() {
            return Err(TlsFilesError::NoAuthorities);
        }
        // Named, since the process' default depends on what else is linked into it.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        Ok(match self.identity()? {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        })
    }

    /// The authorities to check servers with.
    ///
    /// # Errors
    /// When the file that is named cannot be used.
    pub fn roots(&self) -> std::result::Result<Vec<CertificateDer<'static>>, TlsFilesError> {
        match &self.authorities {
            Some(path) => certificates("authorities", path),
            None => Ok(rustls_native_certs::load_native_certs().certs),
        }
    }

    /// The client's own certificate and its key.
    ///
    /// # Errors
    /// When there is one of the two, or a file cannot be used.
    pub fn identity(
        &self,
    ) -> std::result::Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, TlsFilesError>
    {
        match (&self.certificate, &self.key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                let chain = certificates("certificate", certificate)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsFilesError::File {
                    what: "key",
                    path: key.clone(),
                    reason: error.to_string(),
                })?;
                Ok(Some((chain, key)))
            }
            _ => Err(TlsFilesError::Half),
        }
    }
}

/// The certificates in the file at `path`, at least one.
fn certificates(
    what: &'static str,
    path: &Path,
) -> std::result::Result<Vec<CertificateDer<'static>>, TlsFilesError> {
    let file = |reason: String| TlsFilesError::File { what, path: path.to_owned(), reason };
    let found =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    match found {
        Ok(found) if found.is_empty() => Err(file("there is no certificate in it".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(file(error.to_string())),
    }
}

/// Reading the system's certificates takes milliseconds: it is done once, by the first connection. Not by a `OnceLock`, which
/// a fork could leave half done for ever; two threads at once do it twice.
#[derive(Debug, Default)]
pub(super) struct Tls {
    files: TlsFiles,
    config: Guarded<Option<Arc<ClientConfig>>>,
}

impl Tls {
    pub(super) fn new(files: TlsFiles) -> Self {
        Self { files, config: Guarded::default() }
    }

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
        let config = self.files.config().map_err(|error| unavailable(&error.to_string()))?;
        let config = Arc::new(config);
        if let Some(mut kept) = self.config.lock() {
            *kept = Some(config.clone());
        }
        Ok(config)
    }
}
