//! Secrets, and what is kept of them.

use std::fmt;
use std::str::FromStr;

/// Makes the hash good for nothing else. A new one would lock everybody out.
const CONTEXT: &str = "pilotlight 2026-11-27 users file: the hash of a secret";
const PREFIX: &str = "pls_";
const BYTES: usize = 32;
/// 32 bytes in base64, without padding.
const TEXT_LEN: usize = PREFIX.len() + 43;
const HASH_PREFIX: &str = "blake3:";

/// A secret that was made here: 256 random bits as text that fits into a URL.
///
/// So nobody guesses it, and a fast hash of it is safe to keep: slow ones (scrypt, Argon2) are for what people think up. A
/// login stays cheap, which matters as stock PyTorch logs in for every compiled graph.
pub struct Secret(String);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> std::io::Result<Self> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(PREFIX.to_owned() + &base64_simd::URL_SAFE_NO_PAD.encode_to_string(bytes)))
    }

    /// As it is given to whoever logs in with it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.0.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Whether `text` has the form of a generated secret: then guessing it is hopeless, and need not be slowed down.
pub(super) fn is_generated(text: &[u8]) -> bool {
    let rest = text.strip_prefix(PREFIX.as_bytes()).filter(|_| text.len() == TEXT_LEN);
    rest.is_some_and(|rest| {
        rest.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    })
}

/// The hash of a secret, as the users file has it.
///
/// Compared like any value: how long that takes tells about the hash, from which nobody comes to the secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash of `secret`.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        Self(*blake3::Hasher::new_derive_key(CONTEXT).update(secret).finalize().as_bytes())
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HASH_PREFIX}{}", blake3::Hash::from_bytes(self.0))
    }
}

impl fmt::Debug for SecretHash {
    /// The beginning alone, to tell them apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, ..] = self.0;
        write!(f, "SecretHash({first:02x}{second:02x}...)")
    }
}

impl FromStr for SecretHash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.strip_prefix(HASH_PREFIX).ok_or("expected `blake3:` and 64 hexadecimal digits")?;
        let hash =
            blake3::Hash::from_hex(hex).map_err(|_| "expected 64 hexadecimal digits after `blake3:`")?;
        Ok(Self(*hash.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_have_a_form_and_are_shown_to_nobody() {
        let (one, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_ne!(one.as_str(), other.as_str());
        assert_eq!(one.as_str().len(), TEXT_LEN);
        assert!(is_generated(one.as_str().as_bytes()), "{}", one.as_str());
        assert!(!is_generated(b"pls_short") && !is_generated(&[b'x'; TEXT_LEN]));
        assert_eq!(format!("{one:?}"), "Secret(***)");
        assert!(!format!("{:?}", one.hash()).contains(&one.hash().to_string()[20..]));
    }

    #[test]
    fn a_hash_is_read_as_it_is_written_and_never_changes() {
        let hash = SecretHash::of(b"pls_x");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_ne!(hash, SecretHash::of(b"pls_y"));
        // What users files hold: to change it locks everybody out.
        assert_eq!(
            hash.to_string(),
            "blake3:78f94fced3670dfccd2a2a874e0b758a77c1fc17a80eef602c3a759129dbfd33"
        );
        assert!("pls_x".parse::<SecretHash>().is_err());
        assert!("blake3:12".parse::<SecretHash>().is_err());
    }
}
