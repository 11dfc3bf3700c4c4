//! Whose entries are taken: signing keys, the signers that are trusted, and the check of an entry against both.
//!
//! Whoever can write to a cache can run code where its entries are read. A signature takes that from all but those who hold a
//! key: it is over the artifact's digest, everything that is said about it, the key it stands under and the signer's namespace
//! (see [`crate::envelope`]). It says who made an entry, not that it is harmless.
//!
//! # The model
//! A [`Signer`] signs with its [`SigningKey`]. A [`Verifier`] has a [`TrustFile`] and a [`Policy`]; it makes [`Vetted`] envelopes,
//! and only those can be opened by the client, so nothing that the policy refuses reaches a decoder: not pickle, not even zstd.
//!
//! # Rules
//! 1. What is revoked is refused, whatever else is said of it.
//! 2. A signer is trusted until it expires, and for the kinds that it is trusted with.
//! 3. An entry is signed for one namespace. It is taken in that one, and elsewhere only if the signer's entry in the trust file
//!    lists that namespace; a list is all that its signer may sign for.
//! 4. An entry is signed for one key. A variant of a key is signed for the key: torch's guards and the fingerprint, which are
//!    signed, say which of them is of use, and each of them may stand anywhere among them.
//! 5. Refusing changes nothing: who does not know a signer must not delete what others read.
//!
//! # Limits
//! An older entry of the same key, signed by a signer that is still trusted, is as good as a newer one. Keys name all that goes into
//! an artifact, so that costs no more than a compile; revoke a signer to be rid of what it signed.

mod day;
mod file;
mod key;
mod refusal;
mod signer;
mod signers;
mod verifier;

pub use self::day::{day_of, expiry_of};
pub use self::file::{Revoked, TrustFile, Trusted};
pub use self::key::{KeyId, NewKey, PublicKey, SigningKey};
pub use self::refusal::{Reason, Refusal};
pub use self::signer::Signer;
pub use self::signers::Signers;
pub use self::verifier::{Policy, Signed, Verifier, Vetted};

/// Why a file of keys or of trust is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The system refused.
    #[error("could not {action} `{path}`")]
    Io {
        /// Read or write.
        action: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{what}")]
    Malformed {
        /// What is wrong, and where. Never what it holds: that may be a key.
        what: String,
    },
}

impl TrustError {
    fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed { what: what.into() }
    }

    fn io(action: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.display().to_string(), source }
    }
}
