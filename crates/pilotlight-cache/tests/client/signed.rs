//! What clients sign, and what becomes of what others did not: in a directory, where nothing stands between two clients.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use pilotlight_cache::Namespace;
use pilotlight_cache::client::{Client, Label, Signing, SigningNames};
use pilotlight_cache::trust::{NewKey, Policy, Reason, SigningKey, TrustFile, Trusted};

use crate::{settings, stat};

const KEY: &[u8] = b"pt2:fx-graph-v1::fabc:c1";

struct Place {
    dir: tempfile::TempDir,
    key: PathBuf,
    trusted: TrustFile,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("a.key");
        let new = NewKey::generate().unwrap();
        new.write(&key).unwrap();
        let trusted = Trusted {
            name: "a".to_owned(),
            key: new.public(),
            expires_ms: None,
            namespaces: None,
            kinds: None,
        };
        Self { dir, key, trusted: TrustFile { signers: vec![trusted], revoked: Vec::new() } }
    }

    fn client(&self, is_signing: bool, policy: Policy) -> Client {
        let key = is_signing.then(|| SigningKey::read(&self.key).unwrap());
        self.with(Signing { key, policy, trusted: self.trusted.clone(), ..Signing::default() })
    }

    fn with(&self, signing: Signing) -> Client {
        Client::signing(&format!("file://{}/cache", self.dir.path().display()), settings(), signing).unwrap()
    }

    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(dir: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    walk(&entry.path(), files);
                } else {
                    files.push((entry.path(), std::fs::read(entry.path()).unwrap()));
                }
            }
        }
        let mut files = Vec::new();
        walk(&self.dir.path().join("cache"), &mut files);
        files.sort();
        files
    }
}

fn put(client: &Client, text: &'static str) -> bool {
    client.put(KEY, Bytes::from_static(text.as_bytes()), Label::default())
}

fn got(client: &Client) -> Option<Vec<u8>> {
    client.get_many(&[KEY]).pop().unwrap().map(|bare| bare.artifact.to_vec())
}

fn put_variant(client: &Client, variant: u64, fingerprint: Option<[u8; 32]>) -> bool {
    let mut label = Label::default();
    label.details.fingerprint = fingerprint;
    client.put_variant(KEY, variant, Bytes::from(format!("variant {variant}")), label)
}

fn candidates(client: &Client) -> Vec<String> {
    let text = |bare: pilotlight_cache::envelope::Bare| String::from_utf8(bare.artifact.to_vec()).unwrap();
    client.candidates(KEY, None).map(text).collect()
}

#[test]
fn what_is_signed_is_taken_and_what_is_not_is_as_absent_and_stays_where_it_is() {
    let place = Place::new();
    let (plain, signing) = (place.client(false, Policy::Off), place.client(true, Policy::Off));
    let strict = place.client(true, Policy::Require);
    assert!(put(&plain, "plain"));
    let before = place.files();
    assert_eq!(got(&strict), None);
    assert_eq!((stat(&strict, "unsigned"), stat(&strict, "hits"), stat(&strict, "misses")), (1, 0, 0));
    let notice = strict.notice().unwrap();
    assert!(
        notice.contains("is not used (unsigned") && notice.contains("PILOTLIGHT_SIGNING_KEY"),
        "{notice}"
    );
    assert_eq!(got(&strict), None);
    assert_eq!(strict.notice(), None, "each reason is said once");
    assert_eq!(place.files(), before, "whoever does not trust an entry leaves it to those who do");
    assert_eq!(got(&signing).as_deref(), Some(b"plain".as_slice()));
    assert_eq!(stat(&signing, "unsigned"), 0, "nobody asked");
    // The put that follows takes its place.
    assert!(put(&strict, "signed"));
    for client in [&plain, &signing, &strict] {
        assert_eq!(got(client).as_deref(), Some(b"signed".as_slice()));
    }
    let told = strict.signers_of(&[KEY, b"absent"]);
    assert_eq!(told[0].as_ref().unwrap().as_ref().unwrap().name, "a");
    assert!(told[1].is_none());
}

#[test]
fn under_warn_it_is_used_and_counted_and_said_once() {
    let place = Place::new();
    assert!(put(&place.client(false, Policy::Off), "plain"));
    let warned = place.client(false, Policy::Warn);
    for count in 1..=2 {
        assert_eq!(got(&warned).as_deref(), Some(b"plain".as_slice()));
        assert_eq!((stat(&warned, "unsigned"), stat(&warned, "hits")), (count, count));
    }
    let notice = warned.notice().unwrap();
    assert!(notice.contains("is used although nobody trusted signed it (unsigned"), "{notice}");
    assert_eq!(warned.notice(), None);
}

#[test]
fn every_reason_has_its_counter() {
    for reason in Reason::ALL {
        let mut place = Place::new();
        let stranger = Place::new();
        let here = |client: &Client| {
            assert!(put(client, "x"));
        };
        let signer = place.client(true, Policy::Off);
        match reason {
            Reason::Unsigned => here(&place.client(false, Policy::Off)),
            Reason::UnknownSigner => {
                let key = SigningKey::read(&stranger.key).unwrap();
                here(&place.with(Signing { key: Some(key), ..Signing::default() }));
            }
            Reason::BadSignature => {
                // Moved by somebody who may write files, to the place of another key.
                assert!(signer.put(b"other", Bytes::from_static(b"x"), Label::default()));
                let other = place.files().pop().unwrap();
                here(&signer);
                let mut files = place.files();
                files.retain(|(path, _)| *path != other.0);
                let at = |bytes: &[u8]| 9 + u32::from_le_bytes(bytes[5..9].try_into().unwrap()) as usize;
                let (path, bytes) = &files[0];
                let moved = [&bytes[..at(bytes)], &other.1[at(&other.1)..]].concat();
                std::fs::write(path, moved).unwrap();
            }
            Reason::Revoked => {
                here(&signer);
                let id = place.trusted.signers[0].key.id();
                let reason = "lost".to_owned();
                place.trusted.revoked.push(pilotlight_cache::trust::Revoked { id, reason, date: None });
            }
            Reason::Expired => {
                here(&signer);
                place.trusted.signers[0].expires_ms = Some(1);
            }
            Reason::OutOfScope => {
                let key = Some(SigningKey::read(&place.key).unwrap());
                let namespace = Some(Namespace::new("elsewhere").unwrap());
                here(&place.with(Signing { key, namespace, ..Signing::default() }));
            }
        }
        let strict = place.client(false, Policy::Require);
        let before = strict.thread_stats();
        assert_eq!(got(&strict), None, "{reason}");
        let name = reason.name().replace('-', "_");
        assert_eq!(stat(&strict, &name), 1, "{reason}: {:?}", strict.stats());
        let of = |stats: &[(&str, u64)]| stats.iter().find(|(found, _)| *found == name).unwrap().1;
        assert_eq!(of(&strict.thread_stats()) - of(&before), 1, "and whoever asked can tell why");
        let notice = strict.notice().unwrap();
        assert!(notice.contains(&format!("({reason}: ")) && notice.contains(reason.hint()), "{notice}");
    }
}

#[test]
fn a_variant_that_gives_way_keeps_its_signature_and_one_that_we_do_not_take_is_kept_for_others() {
    let place = Place::new();
    let (plain, strict) = (place.client(false, Policy::Off), place.client(true, Policy::Require));
    for variant in 1..=3 {
        assert!(put_variant(&strict, variant, None));
    }
    assert_eq!(candidates(&strict), ["variant 3", "variant 2", "variant 1"]);
    assert!(put_variant(&plain, 4, None));
    // The list is a plain one now, so the others are not found; what is there cannot be taken.
    assert_eq!(candidates(&strict), Vec::<String>::new());
    assert!(put_variant(&strict, 5, None));
    assert_eq!(candidates(&strict), ["variant 5"]);
    let mut all = candidates(&plain);
    all.sort();
    assert_eq!(all, ["variant 4", "variant 5"], "what a signing client displaced is there for who takes it");
    // One that is unfit is deleted by whoever took it, and the list is signed anew.
    assert!(put_variant(&strict, 6, None));
    let newest = strict.candidates(KEY, None).next().unwrap();
    strict.quarantine_variant(KEY, &newest);
    assert_eq!(candidates(&strict), ["variant 5"]);
}

#[test]
fn a_key_that_cannot_be_read_signs_nothing_and_a_missing_trust_file_trusts_nobody_and_both_are_said() {
    let place = Place::new();
    let names = SigningNames {
        key: Some(place.dir.path().join("absent.key")),
        verify: Some("require".to_owned()),
        ..SigningNames::default()
    };
    let client = place.with(Signing::of_names(&names));
    assert!(put(&client, "x"));
    assert_eq!(got(&client), None);
    let notices: Vec<String> = std::iter::from_fn(|| client.notice()).collect();
    assert!(notices.iter().any(|notice| notice.contains("what is put is not signed")), "{notices:?}");
    assert!(notices.iter().any(|notice| notice.contains("there is no trust file")), "{notices:?}");
    assert_eq!(got(&place.client(false, Policy::Off)).as_deref(), Some(b"x".as_slice()));
}
