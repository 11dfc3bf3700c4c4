//! Who a client proved to be.
//!
//! By `x509-cert`: rustls-webpki gives the names that servers have, and neither the subject in words nor the dates.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::TlsError;

/// Names beyond this many, or longer ones, are left out: a connection keeps them for its life.
const NAMES_MAX: usize = 16;
const NAME_LEN_MAX: usize = 256;

/// Who a client proved to be: the names in its certificate, which an authority that we were told to believe has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    subject: String,
    common_name: Option<String>,
    alternative_names: Vec<String>,
}

impl PeerIdentity {
    /// The names in a certificate that was verified.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::from_der(certificate).ok()?;
        let certificate = certificate.tbs_certificate();
        let subject = certificate.subject();
        let common_name = subject.common_name().ok().flatten().map(|name| name.value().into_owned());
        let alternative = certificate.get_extension::<SubjectAltName>().ok().flatten();
        let alternative_names = alternative.map(|(_, names)| names.0).unwrap_or_default();
        Some(Self {
            subject: Some(subject.to_string()).filter(|name| name.len() <= NAME_LEN_MAX)?,
            common_name: common_name.filter(|name| name.len() <= NAME_LEN_MAX),
            alternative_names: alternative_names.iter().filter_map(tagged).take(NAMES_MAX).collect(),
        })
    }

    /// The subject's distinguished name as RFC 4514 writes it, its last part first: `CN=trainer,O=Example`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The common name alone: `trainer`.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// The alternative names, each with what it is: `DNS:host.example`, `URI:spiffe://example/trainer`, `email:me@example`.
    #[must_use]
    pub fn alternative_names(&self) -> &[String] {
        &self.alternative_names
    }

    /// Every name that a user can be found by, the most telling first: the distinguished name, the alternative names, the
    /// common name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let alternative = self.alternative_names.iter().map(String::as_str);
        let all = std::iter::once(self.subject()).chain(alternative).chain(self.common_name());
        all.filter(|name| !name.is_empty())
    }

    /// The first of them as one word for a line of `CLIENT LIST`, in which spaces part the fields.
    pub(crate) fn word(&self) -> String {
        let name = self.names().next().unwrap_or("?");
        let mut word = String::with_capacity(name.len());
        for byte in name.bytes() {
            match byte {
                b'!'..=b'~' => word.push(char::from(byte)),
                _ => word.push_str(&format!("\\{byte:02x}")),
            }
        }
        word
    }
}

fn tagged(name: &GeneralName) -> Option<String> {
    let name = match name {
        GeneralName::DnsName(name) => format!("DNS:{}", name.as_str()),
        GeneralName::UniformResourceIdentifier(name) => format!("URI:{}", name.as_str()),
        GeneralName::Rfc822Name(name) => format!("email:{}", name.as_str()),
        _ => return None,
    };
    (name.len() <= NAME_LEN_MAX).then_some(name)
}

/// Until when a certificate is valid, if it is now.
pub(super) fn check_dates(certificate: &CertificateDer<'_>) -> Result<SystemTime, TlsError> {
    let certificate =
        Certificate::from_der(certificate).map_err(|_| TlsError::BadCertificate { what: "certificate" })?;
    let validity = certificate.tbs_certificate().validity();
    let (not_before, not_after) = (validity.not_before.to_system_time(), validity.not_after.to_system_time());
    match TlsError::of_dates(SystemTime::now(), not_before, not_after) {
        Some(error) => Err(error),
        None => Ok(not_after),
    }
}
