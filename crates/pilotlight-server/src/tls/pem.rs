//! Certificates and keys out of PEM.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;

/// All certificates in `pem`, at least one; `what` they are to be.
pub(super) fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|_| TlsError::BadCertificate { what })?;
    if found.is_empty() { Err(TlsError::NoCertificate { what }) } else { Ok(found) }
}

/// The private key in `pem`: PKCS #8, PKCS #1 or SEC1.
pub(super) fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        let is_encrypted = memchr::memmem::find(pem, b"ENCRYPTED").is_some();
        if is_encrypted { TlsError::EncryptedKey } else { TlsError::NoKey }
    })
}
