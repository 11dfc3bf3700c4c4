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

    /// One that is called so, and nothing else.
    #[cfg(test)]
    pub(crate) fn of_subject(subject: &str) -> Self {
        Self { subject: subject.to_owned(), common_name: None, alternative_names: Vec::new() }
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
        // One that looks like a name of another sort could be taken for it.
        let common = self.common_name().filter(|name| !name.contains(['=', ':']));
        let all = std::iter::once(self.subject()).chain(alternative).chain(common);
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

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn identity(change: impl FnOnce(&mut CertificateParams)) -> Option<PeerIdentity> {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        PeerIdentity::of(certificate.der())
    }

    #[test]
    fn every_name_is_told_with_what_it_is() {
        let found = identity(|params| {
            params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
            params.distinguished_name.push(DnType::CommonName, "trainer");
            params.subject_alt_names = vec![
                SanType::DnsName("host.example".try_into().unwrap()),
                SanType::URI("spiffe://example/trainer".try_into().unwrap()),
                SanType::Rfc822Name("me@example".try_into().unwrap()),
                SanType::IpAddress("127.0.0.1".parse().unwrap()),
            ];
        });
        let found = found.unwrap();
        let names: Vec<&str> = found.names().collect();
        let expected = [
            "CN=trainer,O=Example\\, Inc.",
            "DNS:host.example",
            "URI:spiffe://example/trainer",
            "email:me@example",
            "trainer",
        ];
        assert_eq!(names, expected);
        assert_eq!(found.word(), "CN=trainer,O=Example\\,\\20Inc.");
    }

    #[test]
    fn a_name_without_a_subject_is_its_alternative_one() {
        let found = identity(|params| {
            params.subject_alt_names = vec![SanType::URI("spiffe://example/x".try_into().unwrap())];
        });
        assert_eq!(found.unwrap().word(), "URI:spiffe://example/x");
    }

    #[test]
    fn names_are_bounded() {
        let of = |len: usize| {
            identity(|params| params.distinguished_name.push(DnType::CommonName, "x".repeat(len)))
        };
        assert_eq!(of(253).unwrap().subject().len(), 256);
        assert_eq!(of(254), None);
        let many = identity(|params| {
            params.distinguished_name.push(DnType::CommonName, "x");
            let name = |number| SanType::DnsName(format!("host{number}").try_into().unwrap());
            params.subject_alt_names = (0..100).map(name).collect();
        });
        assert_eq!(many.unwrap().alternative_names().len(), 16);
    }
}
