//! Changes to a trust file. People write it too, so all that they wrote stays, comments included; and what comes of a change is
//! read again before it is kept.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use pilotlight_cache::trust::{KeyId, PublicKey, Revoked, TrustFile, Trusted};
use toml::Value;

use crate::failure::Failure;

/// A trust file's text, and what it says.
#[derive(Debug)]
pub(super) struct Text {
    text: String,
    pub(super) parsed: TrustFile,
}

const TITLE: &str = "# Whose entries are taken. Kept by `pilotlight keys`; docs/signing.md describes it.\n";

/// The file at `path`; an empty one if it is not there.
pub(super) fn read(path: &Path) -> Result<Text, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => TITLE.to_owned(),
        Err(error) => {
            return Err(Failure::new(format!("could not read `{}`", path.display())).because(&error));
        }
    };
    let parsed = TrustFile::parse(&text).map_err(|error| {
        Failure::new(format!("could not understand `{}`", path.display())).because(&error)
    })?;
    Ok(Text { text, parsed })
}

/// Puts it in the place of the file at `path`, whole or not at all.
pub(super) fn write(path: &Path, text: &Text) -> Result<(), Failure> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let write = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
        file.write_all(text.text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&new);
        Failure::new(format!("could not write `{}`", path.display())).because(&error)
    })
}

impl Text {
    /// The same with one more signer, who expires as written.
    pub(super) fn with_signer(&self, signer: &Trusted, expires: Option<&str>) -> Result<Self, Failure> {
        let quoted = |text: &str| Value::String(text.to_owned()).to_string();
        let listed = |names: Vec<String>| format!("[{}]", names.join(", "));
        let mut text = self.ended();
        text += &format!("\n[[signer]]\nname = {}\npublic_key = \"{}\"\n", quoted(&signer.name), signer.key);
        if let Some(expires) = expires {
            text += &format!("expires = {expires}\n");
        }
        if let Some(namespaces) = &signer.namespaces {
            let names = namespaces.iter().map(|namespace| quoted(namespace.as_str())).collect();
            text += &format!("namespaces = {}\n", listed(names));
        }
        if let Some(kinds) = &signer.kinds {
            text += &format!("kinds = {}\n", listed(kinds.iter().map(|kind| quoted(kind.name())).collect()));
        }
        let mut expected = self.parsed.clone();
        expected.signers.push(signer.clone());
        checked(text, &expected)
    }

    /// The same with one more signer revoked.
    pub(super) fn with_revoked(&self, id: KeyId, reason: &str, today: &str) -> Result<Self, Failure> {
        let mut text = self.ended();
        let quoted = Value::String(reason.to_owned());
        text += &format!("\n[[revoked]]\nid = \"{id}\"\nreason = {quoted}\ndate = {today}\n");
        let mut expected = self.parsed.clone();
        expected.revoked.push(Revoked { id, reason: reason.to_owned(), date: Some(today.to_owned()) });
        checked(text, &expected)
    }

    /// The same with the signer of `key` expiring on `day`.
    pub(super) fn with_expiry(&self, key: PublicKey, day: &str) -> Result<Self, Failure> {
        let mut expected = self.parsed.clone();
        for signer in expected.signers.iter_mut().filter(|signer| signer.key == key) {
            signer.expires_ms = pilotlight_cache::trust::expiry_of(day);
        }
        let public = key.to_string();
        let lines: Vec<&str> = self.text.lines().collect();
        let is_title = |line: &&str| line.trim_start().starts_with('[');
        let of_key = lines.iter().position(|line| line.contains(&public)).unwrap_or(lines.len());
        let (before, rest) = lines.split_at(of_key);
        let from = before.iter().rposition(is_title).map_or(0, |at| at + 1);
        let to = of_key + rest.iter().position(is_title).unwrap_or(rest.len());
        let says_expiry = |line: &str| line.trim_start().starts_with("expires");
        let mut text = String::new();
        for (at, line) in lines.iter().enumerate() {
            if !((from..to).contains(&at) && says_expiry(line)) {
                text += line;
                text += "\n";
            }
            if at == of_key {
                text += &format!("expires = {day}\n");
            }
        }
        checked(text, &expected)
    }

    fn ended(&self) -> String {
        let end = if self.text.is_empty() || self.text.ends_with('\n') { "" } else { "\n" };
        format!("{}{end}", self.text)
    }
}

/// What was written, if it says what it should: a person may have written the file in ways that we do not change rightly.
fn checked(text: String, expected: &TrustFile) -> Result<Text, Failure> {
    match TrustFile::parse(&text) {
        Ok(parsed) if parsed == *expected => Ok(Text { text, parsed }),
        Ok(_) | Err(_) => Err(Failure::new("the trust file is written in a way that cannot be changed here")
            .with_hint("change it by hand; docs/signing.md describes it")),
    }
}

#[cfg(test)]
mod tests {
    use pilotlight_cache::trust::NewKey;

    use super::*;

    fn text(text: &str) -> Text {
        Text { text: text.to_owned(), parsed: TrustFile::parse(text).unwrap() }
    }

    #[test]
    fn a_change_keeps_what_people_wrote() {
        let keys = [(); 3].map(|()| NewKey::generate().unwrap().public());
        let signer = |key: &PublicKey| format!("[[signer]]\nname = \"a\"\npublic_key = \"{key}\"\n");
        let before = format!(
            "# ours\n{}expires = 2030-01-01 # soon\n# theirs\n{}",
            signer(&keys[0]),
            signer(&keys[1]).trim_end()
        );
        let before = text(&before);
        let expiring = before.with_expiry(keys[0], "2029-01-01").unwrap();
        assert!(expiring.text.contains("# ours") && expiring.text.contains("# theirs"), "{}", expiring.text);
        assert!(!expiring.text.contains("2030"), "{}", expiring.text);
        let both = expiring.with_expiry(keys[1], "2029-02-01").unwrap();
        let new = Trusted {
            name: "a \"b\"\n[[revoked]]".to_owned(),
            key: keys[2],
            expires_ms: None,
            namespaces: Some(vec!["".parse_namespace(), "x\"y".parse_namespace()]),
            kinds: Some(vec![pilotlight_cache::Kind::Pgo]),
        };
        let more = both.with_signer(&new, None).unwrap();
        assert_eq!(more.parsed.signers.last(), Some(&new));
        let revoked = more.with_revoked(keys[0].id(), "lost", "2026-01-01").unwrap();
        assert_eq!(revoked.parsed.revocation(keys[0].id()).unwrap().reason, "lost");
        assert_eq!(revoked.parsed.signers.len(), 3);
    }

    #[test]
    fn what_is_written_in_another_way_is_left_to_people() {
        let key = NewKey::generate().unwrap().public();
        let inline = text(&format!("signer = [{{ name = \"a\", public_key = \"{key}\" }}]\n"));
        assert!(inline.with_expiry(key, "2029-01-01").is_err());
    }

    trait ParseNamespace {
        fn parse_namespace(&self) -> pilotlight_cache::Namespace;
    }

    impl ParseNamespace for str {
        fn parse_namespace(&self) -> pilotlight_cache::Namespace {
            pilotlight_cache::Namespace::new(self).unwrap()
        }
    }
}
