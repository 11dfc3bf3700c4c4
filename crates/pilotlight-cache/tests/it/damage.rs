use std::path::Path;
use std::sync::Arc;

use pilotlight_cache::{
    Backend, BackendExt, DiskBackend, DiskOptions, Durability, Entry, Error, Hot, Inline, Key, ManualClock,
    Namespace, When,
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
    };
    Store::open(Options::new(dir, 64 << 20)).unwrap().put(&request, Condition::Always).unwrap();
    let options = DiskOptions {
        dir: dir.to_owned(),
        max_bytes: 64 << 20,
        durability: Durability::Relaxed,
        clock: Arc::new(ManualClock::at(1000)),
        blocking: Arc::new(Inline),
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
        assert_eq!(&answers[1].as_ref().unwrap().as_ref().unwrap().entry.artifact[..], b"whole");
        assert!(matches!(answers[2], Ok(None)), "{answers:?}");
    }
}
