use std::sync::Arc;

use pilotlight_cache::{
    BackendExt, DiskBackend, DiskOptions, Durability, Error, Inline, Key, ManualClock, Namespace,
};
use pilotlight_store::{Condition, Options, PutRequest, Store};

#[tokio::test]
async fn a_damaged_envelope_is_one_error_and_then_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    // Whole as far as the store can tell, and no envelope.
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
    Store::open(Options::new(dir.path(), 64 << 20)).unwrap().put(&request, Condition::Always).unwrap();
    let options = DiskOptions {
        dir: dir.path().to_owned(),
        max_bytes: 64 << 20,
        durability: Durability::Relaxed,
        clock: Arc::new(ManualClock::at(1000)),
        blocking: Arc::new(Inline),
    };
    let backend = DiskBackend::open(options).unwrap();
    let key = Key::in_namespace(Namespace::new("ns").unwrap(), &b"key"[..]);
    let error = backend.get(&key).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(backend.get(&key).await.unwrap().is_none());
}
