//! The check of an entry against who is trusted.

use super::signer::ED25519;
use super::{KeyId, Reason, Refusal, TrustFile, Trusted, day_of};
use crate::envelope::signature::SignedHead;
use crate::envelope::{self, Bare, Sealed};
use crate::{Error, Kind, Namespace, Result};

/// What becomes of an entry that is not signed by a trusted signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// It is taken; nothing is checked.
    #[default]
    Off,
    /// It is taken, and counted and said.
    Warn,
    /// It is as absent, and counted and said.
    Require,
}

impl Policy {
    /// The policy called so: `off`, `warn`, `require`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "off" => Some(Self::Off),
            "warn" => Some(Self::Warn),
            "require" => Some(Self::Require),
            _ => None,
        }
    }
}

/// An entry whose signature is right and whose signer is trusted with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Its signer's name in the trust file.
    pub name: String,
    /// Its signer.
    pub signer: KeyId,
    /// What its signer calls its namespace.
    pub namespace: Namespace,
}

/// An envelope that a policy lets pass. Only a [`Verifier`] makes one, and the client's decoders take nothing else.
#[derive(Debug)]
#[must_use = "what was vetted is to be opened"]
pub struct Vetted {
    sealed: Sealed,
    doubt: Option<Refusal>,
}

impl Vetted {
    /// Why a stricter policy would not let it pass.
    #[must_use]
    pub fn doubt(&self) -> Option<&Refusal> {
        self.doubt.as_ref()
    }

    /// The envelope, as it came.
    #[must_use]
    pub fn sealed(&self) -> &Sealed {
        &self.sealed
    }

    /// What is in it, its lengths and its digest checked.
    ///
    /// # Errors
    /// As [`envelope::open_bare`].
    pub fn open(&self, artifact_len_max: u64) -> Result<Bare> {
        envelope::open_bare(&self.sealed, artifact_len_max)
    }

    /// The envelope, as it came.
    #[must_use]
    pub fn into_sealed(self) -> Sealed {
        self.sealed
    }
}

/// Checks entries for readers in one namespace.
#[derive(Debug, Clone, Default)]
pub struct Verifier {
    policy: Policy,
    namespace: Namespace,
    trusted: TrustFile,
}

impl Verifier {
    /// Checks what is read in `namespace` by who is `trusted`.
    #[must_use]
    pub fn new(policy: Policy, namespace: Namespace, trusted: TrustFile) -> Self {
        Self { policy, namespace, trusted }
    }

    /// What becomes of entries that fail.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The reader's namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Who signed `sealed`, which came for `key`, whatever the policy is: for whoever explains.
    ///
    /// # Errors
    /// As [`Verifier::vet`] under [`Policy::Require`].
    pub fn signer_of(&self, key: &[u8], sealed: &Sealed, now_ms: u64) -> Result<Signed> {
        check(&self.trusted, &self.namespace, key, &sealed.head, now_ms)
    }

    /// What may be opened of what came for `key`.
    ///
    /// # Errors
    /// `Unverified` for what the policy refuses, `Corrupt` or `Unsupported` for what is no envelope of ours.
    pub fn vet(&self, key: &[u8], sealed: Sealed, now_ms: u64) -> Result<Vetted> {
        if self.policy == Policy::Off {
            return Ok(Vetted { sealed, doubt: None });
        }
        match check(&self.trusted, &self.namespace, key, &sealed.head, now_ms) {
            Ok(_) => Ok(Vetted { sealed, doubt: None }),
            Err(Error::Unverified(doubt)) if self.policy == Policy::Warn => {
                Ok(Vetted { sealed, doubt: Some(doubt) })
            }
            Err(error) => Err(error),
        }
    }
}

/// Who signed what stands under `key`, if that is somebody who is trusted with it. `namespace` is the reader's.
///
/// # Errors
/// `Unverified`, by reason, for what nobody trusted signed; `Corrupt` or `Unsupported` for what is no envelope of ours.
pub(super) fn check(
    trusted: &TrustFile,
    namespace: &Namespace,
    key: &[u8],
    head: &[u8],
    now_ms: u64,
) -> Result<Signed> {
    let Some(head) = SignedHead::of(head)? else { return Err(unsigned()) };
    let id = KeyId::from_bytes(head.key_id);
    if let Some(revoked) = trusted.revocation(id) {
        let because = if revoked.reason.is_empty() { "" } else { ": " };
        return Err(refusal(
            Reason::Revoked,
            Some(id),
            format!("signer {id} is revoked{because}{}", revoked.reason.escape_debug()),
        ));
    }
    if trusted.named(id).next().is_none() {
        return Err(refusal(Reason::UnknownSigner, Some(id), format!("nobody trusted has the id {id}")));
    }
    let message = head.message(key);
    let has_signed =
        |signer: &&Trusted| head.algorithm == ED25519 && signer.key.has_signed(&message, &head.signature);
    let Some(signer) = trusted.named(id).find(has_signed) else {
        let what = format!("signer {id} did not sign this for this key");
        return Err(refusal(Reason::BadSignature, Some(id), what));
    };
    let name = signer.name.escape_debug();
    if let Some(expires_ms) = signer.expires_ms.filter(|expires_ms| now_ms > *expires_ms) {
        let what = format!("signer `{name}` ({id}) has expired on {}", day_of(expires_ms));
        return Err(refusal(Reason::Expired, Some(id), what));
    }
    check_scope(signer, namespace, key, &head.namespace)?;
    Ok(Signed { name: signer.name.clone(), signer: id, namespace: head.namespace })
}

fn check_scope(signer: &Trusted, here: &Namespace, key: &[u8], signed_for: &Namespace) -> Result<()> {
    let (name, id) = (signer.name.escape_debug(), signer.key.id());
    let is_in_scope = match &signer.namespaces {
        None => signed_for == here,
        Some(namespaces) => namespaces.contains(signed_for),
    };
    if !is_in_scope {
        let (signed_for, here) = (signed_for.as_str().escape_debug(), here.as_str().escape_debug());
        let what = format!("signer `{name}` ({id}) signed it for namespace `{signed_for}`, read in `{here}`");
        return Err(refusal(Reason::OutOfScope, Some(id), what));
    }
    let kind = Kind::of_key(key);
    if signer.kinds.as_ref().is_some_and(|kinds| !kinds.contains(&kind)) {
        let what = format!("signer `{name}` ({id}) is not trusted with entries of kind {kind}");
        return Err(refusal(Reason::OutOfScope, Some(id), what));
    }
    Ok(())
}

/// For what has no head that could be signed.
pub(super) fn unsigned() -> Error {
    refusal(Reason::Unsigned, None, "it has no signature")
}

fn refusal(reason: Reason, signer: Option<KeyId>, what: impl Into<String>) -> Error {
    Error::Unverified(Refusal::new(reason, signer, what))
}
