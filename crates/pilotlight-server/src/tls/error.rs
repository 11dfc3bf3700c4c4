//! Why certificates or keys cannot be used.

use std::time::SystemTime;

use rustls::Error as RustlsError;

/// Why certificates or keys cannot be used. Quotes nothing of them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The bytes have no certificate in them.
    #[error("there is no {what} in it, expected PEM with `-----BEGIN CERTIFICATE-----`")]
    NoCertificate {
        /// Certificate or authority.
        what: &'static str,
    },
    /// A certificate that is none.
    #[error("the {what} in it is damaged or no X.509 certificate")]
    BadCertificate {
        /// Certificate or authority.
        what: &'static str,
    },
    /// The bytes have no private key in them.
    #[error("there is no private key in it, expected PEM with `-----BEGIN PRIVATE KEY-----`")]
    NoKey,
    /// The key is locked with a passphrase.
    #[error("the private key is encrypted")]
    EncryptedKey,
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The certificate's time is over.
    #[error("the certificate expired {}", days(*.days_ago, "ago"))]
    Expired {
        /// How long ago, in days.
        days_ago: u64,
    },
    /// The certificate's time has not come.
    #[error("the certificate is not valid yet, it will be {}", days(*.days_ahead, "from now"))]
    NotYetValid {
        /// How far ahead that is, in days.
        days_ahead: u64,
    },
    /// No authority in the file can sign client certificates.
    #[error("no authority in it can be used to check client certificates with")]
    NoAuthority,
    /// Whatever else rustls refuses.
    #[error("{0}")]
    Refused(RustlsError),
}

impl TlsError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoCertificate { .. } => {
                Some("is this the key's file, or one in DER? `openssl x509 -in FILE -noout -subject` tells")
            }
            Self::BadCertificate { .. } => Some("`openssl x509 -in FILE -noout -text` shows what is in it"),
            Self::NoKey => {
                Some("is this the certificate's file? The key is in a file of its own, often `*.key`")
            }
            Self::EncryptedKey => Some(
                "nobody is there to type a passphrase: `openssl pkey -in FILE -out NEW` writes it without one",
            ),
            Self::KeyMismatch => {
                Some("the first certificate in the chain must be the server's own, made for this key")
            }
            Self::Expired { .. } => {
                Some("renew it; the files are read again when they change, and at SIGHUP")
            }
            Self::NotYetValid { .. } => Some("is this machine's clock right?"),
            Self::NoAuthority => Some("give the certificates of the authorities that sign those of clients"),
            Self::Refused(_) => None,
        }
    }

    /// The error for a time that is not between these two.
    pub(super) fn of_dates(now: SystemTime, not_before: SystemTime, not_after: SystemTime) -> Option<Self> {
        const DAY_S: u64 = 86_400;
        if let Ok(ago) = now.duration_since(not_after) {
            return Some(Self::Expired { days_ago: ago.as_secs() / DAY_S });
        }
        let ahead = not_before.duration_since(now).ok().filter(|ahead| !ahead.is_zero())?;
        Some(Self::NotYetValid { days_ahead: ahead.as_secs() / DAY_S })
    }
}

impl From<RustlsError> for TlsError {
    fn from(error: RustlsError) -> Self {
        match error {
            RustlsError::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch) => Self::KeyMismatch,
            RustlsError::InvalidCertificate(_) => Self::BadCertificate { what: "certificate" },
            other => Self::Refused(other),
        }
    }
}

fn days(count: u64, direction: &str) -> String {
    match count {
        0 => format!("less than a day {direction}"),
        1 => format!("1 day {direction}"),
        _ => format!("{count} days {direction}"),
    }
}
