//! Who signs.

use super::{KeyId, SigningKey};
use crate::envelope::Sealed;
use crate::{Namespace, Result};

/// Ed25519's number in envelopes.
pub(super) const ED25519: u8 = 1;

/// Signs envelopes for one namespace.
#[derive(Debug)]
pub struct Signer {
    key: SigningKey,
    namespace: Namespace,
}

impl Signer {
    /// Signs with `key` what is put into `namespace`.
    #[must_use]
    pub fn new(key: SigningKey, namespace: Namespace) -> Self {
        Self { key, namespace }
    }

    /// What its signatures name it by.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.key.public().id()
    }

    /// `sealed`, signed for `key`; one that is signed already keeps its signature.
    ///
    /// # Errors
    /// `Corrupt` for what is no envelope.
    pub fn sign(&self, key: &[u8], sealed: Sealed) -> Result<Sealed> {
        sealed.signed(&self.namespace, key, ED25519, self.id().bytes(), |message| self.key.sign(message))
    }
}
