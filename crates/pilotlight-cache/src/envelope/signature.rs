//! A signature on an envelope: what it is over, and where it stands. Who may have made it is [`crate::trust`]'s matter.

use super::{Sealed, head};
use crate::key::VARIANTS_SUFFIX;
use crate::{Error, Namespace, Result};

/// How long a signer's id is, in bytes.
pub(crate) const ID_LEN: usize = 8;
/// How long a signature is, in bytes.
pub(crate) const SIGNATURE_LEN: usize = 64;
/// In front of whatever is signed: a key that signs other things as well signs none of ours with them.
const MAGIC: &[u8] = b"PLsg\x01";
/// What a variant's key has behind the suffix.
const VARIANT_DIGITS: usize = 16;

/// A signed head, taken apart. Nothing here says that the signature is right.
#[derive(Debug)]
pub(crate) struct SignedHead {
    pub(crate) namespace: Namespace,
    pub(crate) algorithm: u8,
    pub(crate) key_id: [u8; ID_LEN],
    pub(crate) signature: [u8; SIGNATURE_LEN],
    /// The head up to the signature, without what may change.
    pub(super) signed: Vec<u8>,
}

impl SignedHead {
    /// The signature on `head`; `None` if it has none.
    ///
    /// # Errors
    /// As [`super::read`], for a head that is damaged.
    pub(crate) fn of(head: &[u8]) -> Result<Option<Self>> {
        head::signature(head)
    }

    /// What was signed, if it was signed for `key`.
    pub(crate) fn message(&self, key: &[u8]) -> Vec<u8> {
        message(key, &self.signed)
    }
}

impl Sealed {
    /// The same envelope, signed for `key`. One that is signed already keeps its signature.
    ///
    /// # Errors
    /// `Corrupt` for a head that is none.
    pub(crate) fn signed(
        self,
        namespace: &Namespace,
        key: &[u8],
        algorithm: u8,
        key_id: [u8; ID_LEN],
        sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_LEN],
    ) -> Result<Self> {
        if SignedHead::of(&self.head)?.is_some() {
            return Ok(self);
        }
        let sign = |signed: &[u8]| sign(&message(key, signed));
        let head = head::signed(&self.head, namespace, algorithm, key_id, sign);
        let head = head.ok_or_else(|| Error::Corrupt { what: "envelope: no head to sign".to_owned() })?;
        Ok(Self { head: head.into(), ..self })
    }
}

fn message(key: &[u8], signed: &[u8]) -> Vec<u8> {
    let key = signed_key(key);
    [MAGIC, &(key.len() as u32).to_le_bytes(), key, signed].concat()
}

/// What is signed of a key: of a variant's, the key that it is a variant of.
fn signed_key(key: &[u8]) -> &[u8] {
    let Some((base, digits)) = key.split_at_checked(key.len().saturating_sub(VARIANT_DIGITS)) else {
        return key;
    };
    let is_number = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    match base.strip_suffix(VARIANTS_SUFFIX) {
        Some(base) if is_number && digits.len() == VARIANT_DIGITS => base,
        Some(_) | None => key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_signed_for_its_base_and_a_list_of_variants_for_itself() {
        for (key, expected) in [
            ("pt2:fx-graph-v1::f:c1#v0123456789abcdef", "pt2:fx-graph-v1::f:c1"),
            ("#v0123456789abcdef", ""),
            ("k#v", "k#v"),
            ("k", "k"),
            ("", ""),
            ("k#v0123456789ABCDEF", "k#v0123456789ABCDEF"),
            ("k#v0123456789abcde", "k#v0123456789abcde"),
            ("k#v0123456789abcdef0", "k#v0123456789abcdef0"),
            // No more than one is taken off: a key of that look is its own.
            ("k#v0123456789abcdef#v0123456789abcdef", "k#v0123456789abcdef"),
        ] {
            assert_eq!(signed_key(key.as_bytes()), expected.as_bytes(), "{key}");
        }
    }
}
