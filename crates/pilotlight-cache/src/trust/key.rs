//! Ed25519 keys, and the files that they are in.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;

use base64_simd::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::TrustError;
use crate::Digest;
use crate::envelope::signature::{ID_LEN, SIGNATURE_LEN};

const PUBLIC_LEN: usize = 32;
const PREFIX: &str = "ed25519:";
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// As wide as PEM is.
const LINE_LEN: usize = 64;
/// No key file is longer, in bytes; whatever else was named is not read into memory.
const FILE_LEN_MAX: u64 = 16 << 10;

/// What a signer is called in envelopes: the first 8 bytes of the BLAKE3 of its public key, written as 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; ID_LEN]);

impl KeyId {
    pub(crate) fn from_bytes(bytes: [u8; ID_LEN]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(self) -> [u8; ID_LEN] {
        self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for KeyId {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        let is_hex = text.len() == 2 * ID_LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(number) if is_hex => Ok(Self(number.to_be_bytes())),
            Ok(_) | Err(_) => Err(TrustError::malformed("a signer's id has 16 hex digits")),
        }
    }
}

/// What others know a signer by. Its text is `ed25519:` and the base64 of 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; PUBLIC_LEN]);

impl PublicKey {
    /// Its short name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let digest = Digest::of(&self.0);
        KeyId(digest.as_bytes().first_chunk().copied().unwrap_or_default())
    }

    /// Whether the holder of the private key signed `message`.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD.encode_to_string(self.0))
    }
}

impl FromStr for PublicKey {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        let bytes = text.trim().strip_prefix(PREFIX).and_then(|text| STANDARD.decode_to_vec(text).ok());
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        let malformed = || {
            TrustError::malformed(
                "a public key is `ed25519:` and 44 characters, as `pilotlight keys show` prints",
            )
        };
        bytes.map(Self).ok_or_else(malformed)
    }
}

/// What a signer signs with. Never printed, and never in an error.
///
/// The text it came from is cleared from memory; the copy in use is ring's, which is not when it is dropped.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// The key in the file at `path`, as [`NewKey::write`] or `openssl genpkey -algorithm ed25519` made it.
    ///
    /// # Errors
    /// For a file that cannot be read or holds something else. Nothing of it is in the error.
    pub fn read(path: &Path) -> Result<Self, TrustError> {
        let read = || {
            let file = fs::File::open(path)?;
            let mut text = Zeroizing::new(String::with_capacity(FILE_LEN_MAX as usize));
            file.take(FILE_LEN_MAX).read_to_string(&mut text)?;
            Ok(text)
        };
        let text = read().map_err(|error| TrustError::io("read the signing key", path, error))?;
        let none = || TrustError::malformed(format!("`{}` holds no private key of Ed25519", path.display()));
        Self::from_pem(&text).ok_or_else(none)
    }

    fn from_pem(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once(BEGIN)?;
        let (lines, _) = rest.split_once(END)?;
        let base64 = Zeroizing::new(lines.split_whitespace().collect::<String>());
        let der = Zeroizing::new(STANDARD.decode_to_vec(base64.as_bytes()).ok()?);
        Self::from_der(&der)
    }

    fn from_der(der: &[u8]) -> Option<Self> {
        // Maybe without the public key, which openssl leaves out: it is made of the private one.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
        let public = PublicKey(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair, public })
    }

    /// What others know it by.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let mut signature = [0; SIGNATURE_LEN];
        // They are of one length: the algorithm's.
        for (to, from) in signature.iter_mut().zip(self.pair.sign(message).as_ref()) {
            *to = *from;
        }
        signature
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public.id())
    }
}

/// A pair that is in no file yet.
pub struct NewKey {
    pem: Zeroizing<String>,
    key: SigningKey,
}

impl NewKey {
    /// Made of the system's randomness.
    ///
    /// # Errors
    /// When the system has none.
    pub fn generate() -> Result<Self, TrustError> {
        let none = || TrustError::malformed("the system gives no randomness to make a key of");
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| none())?;
        let key = SigningKey::from_der(document.as_ref()).ok_or_else(none)?;
        let base64 = Zeroizing::new(STANDARD.encode_to_string(document.as_ref()));
        let mut pem = Zeroizing::new(String::with_capacity(2 * base64.len() + BEGIN.len() + END.len() + 8));
        pem.push_str(BEGIN);
        for (index, character) in base64.chars().enumerate() {
            if index % LINE_LEN == 0 {
                pem.push('\n');
            }
            pem.push(character);
        }
        pem.push('\n');
        pem.push_str(END);
        pem.push('\n');
        Ok(Self { pem, key })
    }

    /// Writes it to a new file that its owner alone may read.
    ///
    /// # Errors
    /// When there is a file of that name, or it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), TrustError> {
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(self.pem.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|error| TrustError::io("write the signing key", path, error))
    }

    /// The key, for use.
    #[must_use]
    pub fn into_key(self) -> SigningKey {
        self.key
    }

    /// What others know it by.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.key.public
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewKey({})", self.key.public.id())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_its_owner_alone_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ci.key");
        let new = NewKey::generate().unwrap();
        new.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(new.write(&path).is_err(), "a key is never written over");
        let read = SigningKey::read(&path).unwrap();
        assert_eq!(read.public(), new.public());
        assert!(new.public().has_signed(b"message", &read.sign(b"message")));
        assert!(!new.public().has_signed(b"another", &read.sign(b"message")));
        let shown = format!("{read:?} {new:?}");
        let pem = fs::read_to_string(&path).unwrap();
        assert!(pem.lines().all(|line| !shown.contains(line)), "{shown}");
    }

    #[test]
    fn a_key_that_openssl_made_is_one() {
        // RFC 8410, 10.3; the public key is that of 10.1.
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                   -----END PRIVATE KEY-----\n";
        let key = SigningKey::from_pem(pem).unwrap();
        assert_eq!(key.public().to_string(), "ed25519:Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
        assert!(key.public().has_signed(b"m", &key.sign(b"m")));
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        for text in
            ["", "hunter2", BEGIN, "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----"]
        {
            fs::write(&path, text).unwrap();
            let error = SigningKey::read(&path).unwrap_err().to_string();
            assert!(!error.contains("hunter2") && !error.contains("aHVu"), "{error}");
        }
        assert!(matches!(SigningKey::read(dir.path()), Err(TrustError::Io { .. })));
        assert!(matches!(SigningKey::read(&dir.path().join("absent")), Err(TrustError::Io { .. })));
    }

    #[test]
    fn public_keys_and_ids_are_read_as_they_are_shown() {
        let public = NewKey::generate().unwrap().public();
        assert_eq!(public.to_string().parse::<PublicKey>().unwrap(), public);
        assert_eq!(public.id().to_string().parse::<KeyId>().unwrap(), public.id());
        for text in ["", "ed25519:", "ed25519:AAAA", &public.to_string()[8..]] {
            assert!(text.parse::<PublicKey>().is_err(), "{text}");
        }
        for text in ["", "0123", "+123456789abcdef", "0123456789abcdef0"] {
            assert!(text.parse::<KeyId>().is_err(), "{text}");
        }
    }
}
