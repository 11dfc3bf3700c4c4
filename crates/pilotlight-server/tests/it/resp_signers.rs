//! A server that takes only what its signers signed.

use std::path::Path;
use std::sync::Arc;

use pilotlight_cache::envelope::{self, Sealed};
use pilotlight_cache::trust::{NewKey, Policy, Signer, Signers, TrustFile, Trusted, Verifier};
use pilotlight_cache::{DiskBackend, DiskOptions, Durability, Entry, Hot, Inline, Namespace, SystemClock};

use crate::client::{Running, config};

const FX: &str = "pt2:fx-graph-v1::fabc:c1";

fn open(dir: &Path, signers: Option<Arc<Signers>>) -> Arc<DiskBackend> {
    let options = DiskOptions {
        dir: dir.to_owned(),
        max_bytes: 64 << 20,
        durability: Durability::Relaxed,
        clock: Arc::new(SystemClock),
        blocking: Arc::new(Inline),
        signers,
    };
    DiskBackend::open(options).unwrap()
}

fn signed(by: &Signer, key: &str) -> Vec<u8> {
    let sealed = envelope::seal(&Entry::new(b"graph ".repeat(2000))).unwrap();
    by.sign(key.as_bytes(), sealed).unwrap().to_whole().to_vec()
}

#[test]
fn signed_entries_pass_and_all_others_are_refused_counted_and_explained_to_our_client() {
    let dir = tempfile::tempdir().unwrap();
    let new = NewKey::generate().unwrap();
    let public = new.public();
    let by = Signer::new(new.into_key(), Namespace::default());
    let stranger = Signer::new(NewKey::generate().unwrap().into_key(), Namespace::default());
    let file = dir.path().join("signers.toml");
    std::fs::write(&file, format!("[[signer]]\nname = \"ci\"\npublic_key = \"{public}\"\n")).unwrap();
    let signers = Arc::new(Signers::read(&file).unwrap());
    let running = Running::on(&open(&dir.path().join("data"), Some(signers)));
    let mut client = running.connect();
    let mut put = |key: &str, whole: &[u8]| {
        let reply = client.call(&[b"PILOTLIGHT.PUT".as_slice(), key.as_bytes(), whole]);
        String::from_utf8(reply).unwrap()
    };
    let plain = envelope::seal(&Entry::new(b"graph ".repeat(2000))).unwrap().to_whole();
    let reply = put(FX, &plain);
    assert!(reply.starts_with("-NOPERM unsigned: ") && reply.contains("PILOTLIGHT_SIGNING_KEY"), "{reply}");
    assert!(put(FX, &signed(&stranger, FX)).starts_with("-NOPERM unknown-signer: "));
    assert!(put(FX, &signed(&by, "pt2:fx-graph-v1::other:c1")).starts_with("-NOPERM bad-signature: "));
    assert_eq!(put(FX, &signed(&by, FX)), "+OK\r\n");
    let variant = format!("{FX}#v0123456789abcdef");
    assert_eq!(put(&variant, &signed(&by, FX)), "+OK\r\n");
    // Stock PyTorch must not fail over it: nil, and what was there stays. Other keys are nobody's artifacts.
    assert_eq!(client.ask(&format!("SET {FX} x")), "$-1\r\n");
    assert_eq!(client.ask(&format!("SET {FX} x NX")), "$-1\r\n");
    assert_eq!(client.ask("SET counter 1"), "+OK\r\n");
    assert_eq!(client.ask(&format!("EXISTS {FX}")), ":1\r\n");
    assert!(client.ask(&format!("RENAME counter {FX}")).starts_with("-ERR"));
    assert_eq!(client.ask("SELECT 3"), "+OK\r\n");
    let reply = client.call(&[b"PILOTLIGHT.PUT".as_slice(), FX.as_bytes(), &signed(&by, FX)]);
    assert!(reply.starts_with(b"-NOPERM out-of-scope: "), "{}", String::from_utf8_lossy(&reply));
}

#[test]
fn an_envelope_comes_back_with_its_signature_from_every_tier() {
    let dir = tempfile::tempdir().unwrap();
    let new = NewKey::generate().unwrap();
    let trusted =
        Trusted { name: "ci".to_owned(), key: new.public(), expires_ms: None, namespaces: None, kinds: None };
    let trust = TrustFile { signers: vec![trusted], revoked: Vec::new() };
    let by = Signer::new(new.into_key(), Namespace::default());
    let verifier = Verifier::new(Policy::Require, Namespace::default(), trust);
    let hot = Hot::new(open(dir.path(), None), 1 << 24);
    let running = Running::with(Arc::new(hot), config(), Arc::new(SystemClock));
    let mut client = running.connect();
    let whole = signed(&by, FX);
    assert_eq!(client.call(&[b"PILOTLIGHT.PUT".as_slice(), FX.as_bytes(), &whole]), b"+OK\r\n");
    for _ in 0..3 {
        let reply = client.call(&["PILOTLIGHT.MGET", FX]);
        let start = reply.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0 + 1;
        let found = reply[start..reply.len() - 2].to_vec();
        assert_eq!(found, whole, "byte for byte");
        let sealed = Sealed::from_whole(found.into()).unwrap();
        assert!(verifier.vet(FX.as_bytes(), sealed, 1).is_ok());
    }
}
