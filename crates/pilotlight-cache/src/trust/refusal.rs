//! Why an entry is not taken.

use std::fmt;

use super::KeyId;

/// Why an entry is not taken, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It has no signature.
    Unsigned,
    /// Whoever signed it is not in the trust file.
    UnknownSigner,
    /// It is not what was signed, or stands under another key.
    BadSignature,
    /// Its signer is revoked.
    Revoked,
    /// Its signer has expired.
    Expired,
    /// Its signer is not trusted with entries of this kind, or of the namespace that it was signed for.
    OutOfScope,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Unsigned,
        Self::UnknownSigner,
        Self::BadSignature,
        Self::Revoked,
        Self::Expired,
        Self::OutOfScope,
    ];

    /// The name used in counters, reports and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::UnknownSigner => "unknown-signer",
            Self::BadSignature => "bad-signature",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::OutOfScope => "out-of-scope",
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Unsigned => {
                "have whoever put it sign: `pilotlight keys new` there, and set PILOTLIGHT_SIGNING_KEY"
            }
            Self::UnknownSigner => {
                "if the signer is yours, trust it: `pilotlight keys trust PUBLIC_KEY --name NAME`, with what `pilotlight keys \
                 show` prints where it signs"
            }
            Self::BadSignature => {
                "it was changed, or moved to this key, after it was signed: find out who can write to the cache"
            }
            Self::Revoked => {
                "have a key that is not revoked sign anew: `pilotlight keys rotate` at the signer"
            }
            Self::Expired => {
                "have the signer rotate its key, or trust it for longer; if it is in time, this host's clock is wrong"
            }
            Self::OutOfScope => {
                "set PILOTLIGHT_NAMESPACE alike where it is put and got, or list the namespace and the kind in the signer's entry \
                 of the trust file"
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why one entry is not taken, with what is known of its signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    reason: Reason,
    signer: Option<KeyId>,
    what: String,
}

impl Refusal {
    pub(super) fn new(reason: Reason, signer: Option<KeyId>, what: impl Into<String>) -> Self {
        Self { reason, signer, what: what.into() }
    }

    /// As it is counted.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Whom the entry names as its signer, rightly or not.
    #[must_use]
    pub fn signer(&self) -> Option<KeyId> {
        self.signer
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.what)
    }
}
