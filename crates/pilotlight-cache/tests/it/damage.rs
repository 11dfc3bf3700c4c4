use std::path::Path;
use std::sync::Arc;

use pilotlight_cache::{
    Backend, BackendExt, Cache, DiskBackend, DiskOptions, Durability, Entry, Error, Hot, Inline, Key,
    Maintenance, ManualClock, Namespace, When, envelope,
};
use pilotlight_store::{Condition, Options, PutRequest, Store};

/// A disk backend in which one entry is whole as far as the store can tell, and no envelope.
fn damaged(dir: &Path) -> (Arc<DiskBackend>, Key) {
    let request = PutRequest {
        digest: None,
        space: b"ns",
        key: b"key",
        head: b"not a head",
        payload: b"payload",
        logical_len: 7,
        cost_ms: 0,
        created_ms: 1,
        expires_ms: None,
        group: None,
    };
    Store::open(Options::new(dir, 64 << 20)).unwrap().put(&request, Condition::Always).unwrap();
    let options = DiskOptions {
        dir: dir.to_owned(),
        max_bytes: 64 << 20,
        durability: Durability::Relaxed,
        clock: Arc::new(ManualClock::at(1000)),
        blocking: Arc::new(Inline),
        signers: None,
    };
    let key = Key::in_namespace(Namespace::new("ns").unwrap(), &b"key"[..]);
    (DiskBackend::open(options).unwrap(), key)
}

#[tokio::test]
async fn a_damaged_envelope_is_one_error_and_then_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let (backend, key) = damaged(dir.path());
    let error = backend.get(&key).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(backend.get(&key).await.unwrap().is_none());
}

/// What a client of ours damaged before it put it: whole to the store, and found by the first who asks for its bytes.
#[tokio::test]
async fn a_damaged_artifact_is_passed_on_packed_and_to_others_is_one_error_and_then_a_miss() {
    for is_hot in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (disk, key) = damaged(dir.path());
        let backend: Arc<dyn Backend> = if is_hot { Arc::new(Hot::new(disk, 1 << 26)) } else { disk };
        let cache = Cache::new(backend).with_blocking(Arc::new(Inline));
        for len in [100, 500_000] {
            let mut sealed = envelope::seal(&Entry::new(vec![7; len])).unwrap();
            let mut payload = sealed.payload.to_vec();
            *payload.last_mut().unwrap() ^= 1;
            sealed.payload = payload.into();
            let entry = envelope::read(&sealed, u64::MAX).unwrap();
            cache.put(&key, entry, When::Always).await.unwrap();
            for _ in 0..2 {
                let passed_on = cache.get_many_packed(std::slice::from_ref(&key), None).await.remove(0);
                let passed_on = envelope::seal(&passed_on.unwrap().unwrap().entry).unwrap();
                assert_eq!(passed_on.payload, sealed.payload);
            }
            let error = cache.get(&key).await.unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
            assert!(cache.get(&key).await.unwrap().is_none());
        }
    }
}

#[tokio::test]
async fn what_fails_its_own_digest_is_kept_for_a_person_to_look_at() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, key) = damaged(dir.path());
    assert!(disk.get(&key).await.is_err());
    let cache = Cache::new(disk.clone()).with_maintenance(Some(disk.clone()));
    for len in [100, 500_000] {
        let mut sealed = envelope::seal(&Entry::new(vec![7; len])).unwrap();
        let mut payload = sealed.payload.to_vec();
        *payload.last_mut().unwrap() ^= 1;
        sealed.payload = payload.into();
        cache.put(&key, envelope::read(&sealed, u64::MAX).unwrap(), When::Always).await.unwrap();
        assert!(cache.get(&key).await.is_err());
        assert!(cache.get(&key).await.unwrap().is_none());
    }
    let aside = disk.quarantine().unwrap();
    assert_eq!(aside.len(), 3);
    assert!(aside.iter().all(|one| one.key.as_ref() == Some(&key) && one.is_kept), "{aside:?}");
    assert!(aside[0].reason.contains("envelope"), "{aside:?}");
    assert!(aside[1..].iter().all(|one| one.reason.contains("damaged entry")), "{aside:?}");
}

/// A payload that claims another's digest must not come to stand in its place, since equal payloads are stored once.
#[tokio::test]
async fn a_claimed_digest_spoils_no_other_entry() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, key) = damaged(dir.path());
    // Noise, so that it is stored as it is, and long enough for a file of its own.
    let artifact: Vec<u8> =
        (0..200_000u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let good = envelope::seal(&Entry::new(artifact.clone())).unwrap();
    assert_eq!(good.payload, artifact, "not compressed");
    let liar = envelope::Sealed { payload: vec![1; artifact.len()].into(), ..good };
    let entry = envelope::read(&liar, u64::MAX).unwrap();
    disk.put(&key, entry, When::Always).await.unwrap();
    let honest = Key::new("honest");
    disk.put(&honest, Entry::new(artifact.clone()), When::Always).await.unwrap();
    let found = disk.get(&honest).await.unwrap().unwrap();
    assert_eq!(found.entry.artifact.verify().unwrap().bytes(), &artifact);
}

/// Contract 6, on the disk and on the tier in front of it.
#[tokio::test]
async fn get_many_isolates_failures() {
    for is_hot in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (disk, bad) = damaged(dir.path());
        let backend: Arc<dyn Backend> = if is_hot { Arc::new(Hot::new(disk, 1 << 20)) } else { disk };
        let [good, absent] = [Key::new("good"), Key::new("absent")];
        backend.put(&good, Entry::new("whole"), When::Always).await.unwrap();
        let answers = backend.get_many(&[bad, good, absent]).await;
        assert!(matches!(answers[0], Err(Error::Corrupt { .. })), "{answers:?}");
        assert_eq!(
            &answers[1].as_ref().unwrap().as_ref().unwrap().entry.artifact.verify().unwrap()[..],
            b"whole"
        );
        assert!(matches!(answers[2], Ok(None)), "{answers:?}");
    }
}
