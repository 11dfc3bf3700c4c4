//! Who is trusted: a TOML file that people and `pilotlight keys` write, the same for readers and for servers.

use std::path::Path;

use serde::Deserialize;
use toml::value::Datetime;

use super::{KeyId, PublicKey, TrustError, expiry_of};
use crate::{Kind, Namespace};

/// Signers that are trusted, and those that are no more. An empty one trusts nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustFile {
    /// Who is trusted.
    pub signers: Vec<Trusted>,
    /// Who is not, whatever else is said.
    pub revoked: Vec<Revoked>,
}

/// A signer, and what it is trusted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// For people.
    pub name: String,
    /// Who it is.
    pub key: PublicKey,
    /// Until when, in milliseconds since the Unix epoch; for good if absent.
    pub expires_ms: Option<u64>,
    /// All namespaces that it may sign for, taken wherever this file is read; if absent, the reader's own alone.
    pub namespaces: Option<Vec<Namespace>>,
    /// All kinds that it may sign; if absent, any.
    pub kinds: Option<Vec<Kind>>,
}

/// A signer that is not trusted any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Who it was.
    pub id: KeyId,
    /// Why, for people.
    pub reason: String,
    /// When, for people.
    pub date: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    signer: Vec<WrittenSigner>,
    #[serde(default)]
    revoked: Vec<WrittenRevoked>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSigner {
    name: String,
    public_key: String,
    expires: Option<Datetime>,
    namespaces: Option<Vec<String>>,
    kinds: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRevoked {
    id: String,
    #[serde(default)]
    reason: String,
    date: Option<Datetime>,
}

impl TrustFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// For a file that cannot be read, or says something that is not understood: then nothing of it counts, since what was not
    /// understood may be a revocation.
    pub fn read(path: &Path) -> Result<Self, TrustError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| TrustError::io("read the trust file", path, error))?;
        Self::parse(&text)
            .map_err(|error| TrustError::malformed(format!("the trust file `{}`: {error}", path.display())))
    }

    /// What `text` says.
    ///
    /// # Errors
    /// As [`TrustFile::read`].
    pub fn parse(text: &str) -> Result<Self, TrustError> {
        let written: Written = toml::from_str(text).map_err(|error: toml::de::Error| {
            TrustError::malformed(error.to_string().trim_end().to_owned())
        })?;
        let mut file = Self::default();
        for signer in written.signer {
            let signer = signer.parse()?;
            if file.signers.iter().any(|other| other.key == signer.key) {
                return Err(TrustError::malformed(format!("signer {} is there twice", signer.key.id())));
            }
            file.signers.push(signer);
        }
        for WrittenRevoked { id, reason, date } in written.revoked {
            let date = date.map(|date| date.to_string());
            file.revoked.push(Revoked { id: id.parse()?, reason, date });
        }
        Ok(file)
    }

    /// The signers that may have this id; more than one only if somebody made it so.
    pub(super) fn named(&self, id: KeyId) -> impl Iterator<Item = &Trusted> {
        self.signers.iter().filter(move |signer| signer.key.id() == id)
    }

    /// Its revocation, if there is one.
    #[must_use]
    pub fn revocation(&self, id: KeyId) -> Option<&Revoked> {
        self.revoked.iter().find(|revoked| revoked.id == id)
    }
}

impl WrittenSigner {
    fn parse(self) -> Result<Trusted, TrustError> {
        let Self { name, public_key, expires, namespaces, kinds } = self;
        let of = |what: String| TrustError::malformed(format!("signer `{}`: {what}", name.escape_debug()));
        let key = public_key.parse().map_err(|error: TrustError| of(error.to_string()))?;
        let expires = expires.map(|expires| expires.to_string());
        let expires_ms = expires
            .map(|text| {
                expiry_of(&text).ok_or_else(|| of(format!("`expires` is {text}, expected {EXPIRES}")))
            })
            .transpose()?;
        let namespace = |name: &String| Namespace::new(name).map_err(|error| of(error.to_string()));
        let namespaces = namespaces.map(|names| names.iter().map(namespace).collect()).transpose()?;
        let kind = |text: &String| {
            let known = Kind::ALL.into_iter().find(|kind| kind.name() == text);
            known.ok_or_else(|| of(format!("no kind is called `{}`", text.escape_debug())))
        };
        let kinds = kinds.map(|kinds| kinds.iter().map(kind).collect()).transpose()?;
        Ok(Trusted { name, key, expires_ms, namespaces, kinds })
    }
}

const EXPIRES: &str = "a day (2027-01-31) or a moment (2027-01-31T12:00:00Z)";

#[cfg(test)]
mod tests {
    use super::super::NewKey;
    use super::*;

    #[test]
    fn a_file_says_who_is_trusted_with_what_and_until_when() {
        let key = NewKey::generate().unwrap().public();
        let text = format!(
            "# ours\n[[signer]]\nname = \"ci\"\npublic_key = \"{key}\"\nexpires = 1970-01-01\nnamespaces = [\"\", \"a\"]\n\
             kinds = [\"fx-graph\"]\n[[revoked]]\nid = \"0123456789abcdef\"\nreason = \"lost\"\ndate = 2026-01-02\n"
        );
        let file = TrustFile::parse(&text).unwrap();
        let signer = file.signers.first().unwrap();
        assert_eq!((signer.name.as_str(), signer.key), ("ci", key));
        assert_eq!(signer.expires_ms, Some(86_399_999));
        assert_eq!(signer.namespaces, Some(vec![Namespace::default(), Namespace::new("a").unwrap()]));
        assert_eq!(signer.kinds, Some(vec![Kind::FxGraph]));
        let revoked = file.revocation("0123456789abcdef".parse().unwrap()).unwrap();
        assert_eq!((revoked.reason.as_str(), revoked.date.as_deref()), ("lost", Some("2026-01-02")));
        assert_eq!(TrustFile::parse("").unwrap(), TrustFile::default());
    }

    #[test]
    fn a_file_that_says_something_unknown_counts_not_at_all() {
        let key = NewKey::generate().unwrap().public();
        let signer = format!("[[signer]]\nname = \"ci\"\npublic_key = \"{key}\"\n");
        for text in [
            "[[signers]]\n".to_owned(),
            format!("{signer}expire = 2027-01-01\n"),
            format!("{signer}expires = 12:00:00\n"),
            format!("{signer}expires = \"2027-01-01\"\n"),
            format!("{signer}kinds = [\"graphs\"]\n"),
            format!("{signer}{signer}"),
            "[[signer]]\nname = \"ci\"\npublic_key = \"x\"\n".to_owned(),
            "[[revoked]]\nid = \"x\"\n".to_owned(),
            "name".to_owned(),
        ] {
            assert!(TrustFile::parse(&text).is_err(), "{text}");
        }
        assert!(TrustFile::parse(&signer).is_ok());
    }
}
