use std::cell::Cell;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use pilotlight_cache::envelope::recast::Frame;
use pilotlight_cache::envelope::{self, Bare, Sealed};
use pilotlight_cache::portable::Portable;
use pilotlight_cache::trust::{
    KeyId, NewKey, Policy, PublicKey, Reason, Revoked, Signer, Signers, TrustFile, Trusted, Verifier,
};
use pilotlight_cache::{
    Backend, BackendExt, Conflict, Cursor, Details, DiskBackend, DiskOptions, Durability, Entry, Error,
    ErrorKind, Hot, Imported, Inline, Key, Kind, Maintenance, ManualClock, Metadata, Namespace, Put,
    Verified, When,
};
use proptest::prelude::*;

const NOW_MS: u64 = 1_700_000_000_000;
const KEY: &[u8] = b"pt2:fx-graph-v1::fabc:c1";

fn named(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

fn signer(namespace: &Namespace) -> (Signer, PublicKey) {
    let new = NewKey::generate().unwrap();
    let public = new.public();
    (Signer::new(new.into_key(), namespace.clone()), public)
}

fn trusted(key: PublicKey) -> Trusted {
    Trusted { name: "ci".to_owned(), key, expires_ms: None, namespaces: None, kinds: None }
}

fn trust(signers: &[Trusted], revoked: &[KeyId]) -> TrustFile {
    let revoked = revoked.iter().map(|id| Revoked { id: *id, reason: "lost".to_owned(), date: None });
    TrustFile { signers: signers.to_vec(), revoked: revoked.collect() }
}

fn graph(number: u64) -> Bytes {
    let line = |i: u64| format!("    buf{i} = mm({:x})\n", i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40);
    let mut lines: String = (0..1500).map(line).collect();
    lines.insert_str(500, &format!("# compiled by {number}\n"));
    lines.into()
}

fn bare(artifact: Bytes) -> Bare {
    let details = Details {
        producer: Some("torch 2.15".to_owned()),
        fingerprint: Some([7; 32]),
        components: vec![(1, 2)],
        variant: Some(9),
    };
    let metadata =
        Metadata { created_ms: 5, compile_ms: 6, details: Some(Arc::new(details)), ..Metadata::default() };
    Bare { artifact: Verified::from_producer(artifact), frame: Some(Frame::torch(6)), metadata }
}

fn signed(by: &Signer, key: &[u8], number: u64) -> Sealed {
    by.sign(key, envelope::seal_bare(&bare(graph(number))).unwrap()).unwrap()
}

/// Why `sealed` is not taken under `key`; `None` if it is.
fn refusal(trust: &TrustFile, here: &Namespace, key: &[u8], sealed: &Sealed) -> Option<Reason> {
    let verifier = Verifier::new(Policy::Require, here.clone(), trust.clone());
    match verifier.vet(key, sealed.clone(), NOW_MS) {
        Ok(vetted) => {
            assert!(vetted.open(u64::MAX).is_ok());
            None
        }
        Err(Error::Unverified(refusal)) => Some(refusal.reason()),
        Err(error) => panic!("{error}"),
    }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// The head with a check that holds again: an attacker would see to that.
fn with_check(mut head: Vec<u8>) -> Bytes {
    head[72..80].fill(0);
    let check = xxhash_rust::xxh3::xxh3_64(&head).to_le_bytes();
    head[72..80].copy_from_slice(&check);
    head.into()
}

#[test]
fn every_mutation_of_a_byte_is_refused_before_anything_is_decoded() {
    const MUTATIONS: usize = 10_000;
    let seed = std::env::var("PILOTLIGHT_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) << 32 | 0x9e37);
    println!("PILOTLIGHT_TEST_SEED={seed}");
    let mut state = seed | 1;
    let here = Namespace::default();
    let (by, public) = signer(&here);
    let verifier = Verifier::new(Policy::Require, here.clone(), trust(&[trusted(public)], &[]));
    let decoded = Cell::new(0);
    let read = |sealed: Sealed| {
        let vetted = verifier.vet(KEY, sealed, NOW_MS)?;
        let bare = vetted.open(u64::MAX)?;
        // Where pickle would be.
        decoded.set(decoded.get() + 1);
        Ok::<_, Error>(bare)
    };
    let original_bare =
        |original: &Sealed| verifier.vet(KEY, original.clone(), NOW_MS).unwrap().open(u64::MAX).unwrap();
    let originals =
        [signed(&by, KEY, 1), by.sign(KEY, envelope::seal(&Entry::new(vec![7; 100])).unwrap()).unwrap()];
    for original in &originals {
        assert!(read(original.clone()).is_ok());
    }
    decoded.set(0);
    let (mut refused, mut unchanged) = ([0usize; 2], 0);
    while refused.iter().sum::<usize>() < MUTATIONS {
        let original = &originals[random(&mut state) as usize % originals.len()];
        let mut whole = original.to_whole().to_vec();
        // Half of them in the head, which is short and where all is said.
        let len = if random(&mut state).is_multiple_of(2) { original.head.len() } else { whole.len() };
        let at = random(&mut state) as usize % len;
        whole[at] ^= (random(&mut state) % 255) as u8 + 1;
        let is_repaired = random(&mut state).is_multiple_of(2);
        let Ok(mut sealed) = Sealed::from_whole(whole.into()) else {
            refused[0] += 1;
            continue;
        };
        if is_repaired && sealed.head.len() >= 80 {
            sealed.head = with_check(sealed.head.to_vec());
        }
        if sealed.to_whole() == original.to_whole() {
            // It was the check that was changed and repaired.
            continue;
        }
        let is_head = at < original.head.len();
        match read(sealed) {
            Err(_) => refused[usize::from(is_repaired)] += 1,
            // What is signed is the artifact, not how it is packed: few bits of a packed one say nothing, and then it is the same.
            Ok(bare) => {
                let same = original_bare(original);
                assert!(!is_head && bare == same, "byte {at} of {len}, seed {seed}");
                unchanged += 1;
            }
        }
    }
    assert_eq!(decoded.get(), unchanged);
    assert!(unchanged < MUTATIONS / 100, "{unchanged} changed nothing");
    assert!(refused.iter().all(|count| *count > MUTATIONS / 4), "{refused:?}");
}

#[test]
fn an_old_entry_does_not_pass_under_another_key_or_in_another_namespace() {
    let (here, there) = (named("a"), named("b"));
    let (by, public) = signer(&here);
    let trust = trust(&[trusted(public)], &[]);
    let sealed = signed(&by, KEY, 1);
    assert_eq!(refusal(&trust, &here, KEY, &sealed), None);
    let other = b"pt2:fx-graph-v1::fabd:c1";
    assert_eq!(refusal(&trust, &here, other, &sealed), Some(Reason::BadSignature));
    assert_eq!(refusal(&trust, &there, KEY, &sealed), Some(Reason::OutOfScope));
    assert_eq!(refusal(&trust, &Namespace::default(), KEY, &sealed), Some(Reason::OutOfScope));
    // A variant of the key it is, wherever among them; a list of them it is not, nor is a list of them a variant.
    let variant = [KEY, b"#v0123456789abcdef"].concat();
    assert_eq!(refusal(&trust, &here, &variant, &sealed), None);
    let list = [KEY, b"#v"].concat();
    assert_eq!(refusal(&trust, &here, &list, &sealed), Some(Reason::BadSignature));
    let of_list = signed(&by, &list, 1);
    assert_eq!(refusal(&trust, &here, KEY, &of_list), Some(Reason::BadSignature));
    assert_eq!(refusal(&trust, &here, &list, &of_list), None);
}

#[test]
fn who_is_unknown_revoked_or_expired_or_signs_what_it_may_not_is_refused_by_that_reason() {
    let here = named("a");
    let (by, public) = signer(&here);
    let sealed = signed(&by, KEY, 1);
    let plain = envelope::seal_bare(&bare(graph(1))).unwrap();
    let (_, other) = signer(&here);
    let ours = trusted(public);
    let expiring = |expires_ms| Trusted { expires_ms: Some(expires_ms), ..ours.clone() };
    let of_kinds = |kinds| Trusted { kinds: Some(kinds), ..ours.clone() };
    let of_namespaces = |names: &[&str]| Trusted {
        namespaces: Some(names.iter().map(|name| named(name)).collect()),
        ..ours.clone()
    };
    for (trust, expected) in [
        (trust(&[], &[]), Some(Reason::UnknownSigner)),
        (trust(&[trusted(other)], &[]), Some(Reason::UnknownSigner)),
        (trust(std::slice::from_ref(&ours), &[other.id()]), None),
        (trust(std::slice::from_ref(&ours), &[public.id()]), Some(Reason::Revoked)),
        (trust(&[expiring(NOW_MS - 1)], &[public.id()]), Some(Reason::Revoked)),
        (trust(&[], &[public.id()]), Some(Reason::Revoked)),
        (trust(&[expiring(NOW_MS - 1)], &[]), Some(Reason::Expired)),
        (trust(&[expiring(NOW_MS)], &[]), None),
        (trust(&[of_kinds(vec![Kind::Pgo])], &[]), Some(Reason::OutOfScope)),
        (trust(&[of_kinds(vec![Kind::Pgo, Kind::FxGraph])], &[]), None),
        (trust(&[of_namespaces(&["b"])], &[]), Some(Reason::OutOfScope)),
        (trust(&[of_namespaces(&["b", "a"])], &[]), None),
    ] {
        assert_eq!(refusal(&trust, &here, KEY, &sealed), expected, "{trust:?}");
        assert_eq!(refusal(&trust, &here, KEY, &plain), Some(Reason::Unsigned));
    }
    // Elsewhere it is taken if its signer's list says so.
    let listed = trust(&[of_namespaces(&["a"])], &[]);
    assert_eq!(refusal(&listed, &named("b"), KEY, &sealed), None);
}

#[test]
fn while_keys_overlap_both_are_taken_and_then_the_new_one_alone() {
    let here = Namespace::default();
    let ((old, old_public), (new, new_public)) = (signer(&here), signer(&here));
    let (by_old, by_new) = (signed(&old, KEY, 1), signed(&new, KEY, 1));
    let rotated = |expires_ms| {
        trust(&[Trusted { expires_ms: Some(expires_ms), ..trusted(old_public) }, trusted(new_public)], &[])
    };
    for (expires_ms, expected) in [(NOW_MS + 1000, None), (NOW_MS - 1000, Some(Reason::Expired))] {
        assert_eq!(refusal(&rotated(expires_ms), &here, KEY, &by_old), expected);
        assert_eq!(refusal(&rotated(expires_ms), &here, KEY, &by_new), None);
    }
}

#[test]
fn under_warn_an_entry_passes_with_its_doubt_and_under_off_without() {
    let plain = envelope::seal_bare(&bare(graph(1))).unwrap();
    for (policy, expected) in [(Policy::Off, None), (Policy::Warn, Some(Reason::Unsigned))] {
        let verifier = Verifier::new(policy, Namespace::default(), TrustFile::default());
        let vetted = verifier.vet(KEY, plain.clone(), NOW_MS).unwrap();
        assert_eq!(vetted.doubt().map(|doubt| doubt.reason()), expected);
        assert!(vetted.open(u64::MAX).is_ok());
    }
}

fn open(dir: &Path, signers: Option<Arc<Signers>>) -> Arc<DiskBackend> {
    let options = DiskOptions {
        dir: dir.to_owned(),
        max_bytes: 256 << 20,
        durability: Durability::Relaxed,
        clock: Arc::new(ManualClock::at(NOW_MS)),
        blocking: Arc::new(Inline),
        signers,
    };
    DiskBackend::open(options).unwrap()
}

/// As `PILOTLIGHT.PUT` does it.
fn received(sealed: &Sealed) -> Entry {
    let mut entry = envelope::read(sealed, u64::MAX).unwrap();
    entry.metadata.created_ms = 0;
    entry
}

#[tokio::test]
async fn a_signature_outlives_the_server_its_recompression_groups_tiers_and_a_carried_file() {
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let here = Namespace::default();
    let (by, public) = signer(&here);
    let trust = trust(&[trusted(public)], &[]);
    let keys: Vec<Key> =
        (0..4u64).map(|number| Key::new(format!("pt2:fx-graph-v1::f{number:044}:c1"))).collect();
    let sealed: Vec<Sealed> =
        (0..).zip(&keys).map(|(number, key)| signed(&by, key.bytes(), number)).collect();
    let mut disk = open(dir.path(), None);
    for (key, sealed) in keys.iter().zip(&sealed) {
        disk.put(key, received(sealed), When::Always).await.unwrap();
    }
    let check = async |backend: &dyn Backend| {
        for (key, original) in keys.iter().zip(&sealed) {
            let found = backend.get(key).await.unwrap().unwrap();
            assert_eq!(found.entry.metadata.created_ms, NOW_MS, "as old as by the server's clock");
            assert_eq!(
                found.entry.artifact.verify().unwrap(),
                envelope::open_bare(original, u64::MAX).unwrap().into_entry().artifact
            );
            let sent = Sealed::from_whole(envelope::seal(&found.entry).unwrap().to_whole()).unwrap();
            assert_eq!(refusal(&trust, &here, key.bytes(), &sent), None, "{key:?}");
            // The signer's word on when it was made.
            assert_eq!(envelope::open_bare(&sent, u64::MAX).unwrap().metadata.created_ms, 5);
        }
    };
    check(&*disk).await;
    assert_eq!(disk.group(&keys[0], &keys[1..]).unwrap(), 4);
    check(&*disk).await;
    let report = disk.recompress(u64::MAX, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(report.deltas > 0 && report.entries_rewritten == 4, "{report:?}");
    check(&*disk).await;
    check(&Hot::new(disk.clone(), 1 << 26)).await;
    let hot = Hot::new(disk.clone(), 1 << 26);
    check(&hot).await;
    check(&hot).await;
    drop(hot);
    drop(disk);
    disk = open(dir.path(), None);
    check(&*disk).await;

    let mut portables = Vec::new();
    let mut each = |portable: &Portable| {
        portables.push(Portable::of_frame(&portable.to_frame()).unwrap());
        ControlFlow::Continue(())
    };
    disk.export_page(&here, Cursor::START, 100, &|_, _| true, &mut each).unwrap();
    let other = open(other_dir.path(), None);
    for portable in &portables {
        assert_eq!(other.import(portable, Conflict::NewerStays).unwrap(), Imported::New);
        assert_eq!(refusal(&trust, &here, portable.key.bytes(), &portable.sealed), None);
        let found = other.get(&portable.key).await.unwrap().unwrap();
        let sent = envelope::seal(&found.entry).unwrap();
        assert_eq!(refusal(&trust, &here, portable.key.bytes(), &sent), None);
    }
}

#[tokio::test]
async fn an_import_adds_a_signature_to_what_is_there_and_takes_none_away() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path(), None);
    let (by, _) = signer(&Namespace::default());
    let key = Key::new(KEY);
    let plain = envelope::seal_bare(&bare(graph(1))).unwrap();
    let portable = |sealed: &Sealed| Portable {
        key: key.clone(),
        expires_ms: None,
        is_pinned: false,
        group: None,
        sealed: sealed.clone(),
    };
    let signed = signed(&by, KEY, 1);
    for (sealed, expected) in [
        (&plain, Imported::New),
        (&plain, Imported::Unchanged),
        (&signed, Imported::Replaced),
        (&plain, Imported::Unchanged),
        (&signed, Imported::Unchanged),
    ] {
        assert_eq!(disk.import(&portable(sealed), Conflict::NewerStays).unwrap(), expected);
    }
    let sent = envelope::seal(&disk.get(&key).await.unwrap().unwrap().entry).unwrap();
    assert_eq!(sent.head, signed.head);
}

#[tokio::test]
async fn a_store_with_signers_takes_from_compilers_only_what_they_signed_by_whatever_way() {
    let dir = tempfile::tempdir().unwrap();
    let here = Namespace::default();
    let ((by, public), (stranger, _)) = (signer(&here), signer(&here));
    let file = dir.path().join("signers.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write(&format!("[[signer]]\nname = \"ci\"\npublic_key = \"{public}\"\n"));
    let signers = Arc::new(Signers::read(&file).unwrap());
    let disk = open(&dir.path().join("data"), Some(Arc::clone(&signers)));
    let key = Key::new(KEY);
    let reason = |put: Result<Put, Error>| match put {
        Ok(_) => None,
        Err(Error::Unverified(refusal)) => Some(refusal.reason()),
        Err(error) => panic!("{error}"),
    };
    let plain = Entry::from(bare(graph(1)).into_entry());
    assert_eq!(reason(disk.put(&key, plain.clone(), When::Always).await), Some(Reason::Unsigned));
    assert_eq!(reason(disk.stage(&key, plain.clone(), When::Always).await), Some(Reason::Unsigned));
    let strange = received(&signed(&stranger, KEY, 1));
    assert_eq!(reason(disk.put(&key, strange, When::Always).await), Some(Reason::UnknownSigner));
    let moved = received(&signed(&by, b"pt2:fx-graph-v1::other:c1", 1));
    assert_eq!(reason(disk.put(&key, moved, When::Always).await), Some(Reason::BadSignature));
    let elsewhere = Key::in_namespace(named("db3"), KEY);
    let ours = || received(&signed(&by, KEY, 1));
    assert_eq!(reason(disk.put(&elsewhere, ours(), When::Always).await), Some(Reason::OutOfScope));
    let portable = |sealed: Sealed| Portable {
        key: key.clone(),
        expires_ms: None,
        is_pinned: false,
        group: None,
        sealed,
    };
    let unsigned = envelope::seal_bare(&bare(graph(1))).unwrap();
    let refused = disk.import(&portable(unsigned), Conflict::Replace).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unverified);
    assert!(disk.head(&key).await.unwrap().is_none());
    assert_eq!(reason(disk.put(&key, ours(), When::Always).await), None);
    assert_eq!(disk.import(&portable(signed(&by, KEY, 1)), Conflict::Replace).unwrap(), Imported::Unchanged);
    // What is no compiler's is nobody's artifact.
    assert_eq!(reason(disk.put(&Key::new("counter"), plain, When::Always).await), None);

    write("[[signers]]");
    assert!(signers.reload().is_err(), "and what it said before counts on");
    assert_eq!(reason(disk.put(&key, ours(), When::Always).await), None);
    write("");
    signers.reload().unwrap();
    assert_eq!(reason(disk.put(&key, ours(), When::Always).await), Some(Reason::UnknownSigner));
}

proptest! {
    #[test]
    fn what_is_signed_is_taken_under_its_key_and_under_no_other(
        artifact: Vec<u8>,
        key in proptest::collection::vec(any::<u8>(), 0..40),
        other in proptest::collection::vec(any::<u8>(), 0..40),
        name in "[a-z]{0,8}",
        is_json: bool,
    ) {
        let here = named(&name);
        let (by, public) = signer(&here);
        let trust = trust(&[trusted(public)], &[]);
        let frame = is_json.then(|| Frame::torch(3));
        let made = Bare { frame, ..bare(artifact.repeat(50).into()) };
        let plain = envelope::seal_bare(&made).unwrap();
        let sealed = by.sign(&key, plain.clone()).unwrap();
        prop_assert_eq!(refusal(&trust, &here, &key, &sealed), None);
        prop_assert_eq!(refusal(&trust, &here, &key, &plain), Some(Reason::Unsigned));
        if key != other {
            prop_assert_eq!(refusal(&trust, &here, &other, &sealed), Some(Reason::BadSignature));
        }
        prop_assert_eq!(envelope::open_bare(&sealed, u64::MAX).unwrap(), made);
        let again = by.sign(&key, sealed.clone()).unwrap();
        prop_assert_eq!(again.head, sealed.head);
    }
}
