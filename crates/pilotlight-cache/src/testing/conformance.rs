//! One check for each numbered sentence of [`Backend`]'s contract, under the same name.
//!
//! [`all`] runs them on a backend made anew for each. A check panics with what it expected and found.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Backend, BackendExt, Cursor, Details, Entry, Key, ManualClock, Namespace, Put, Version, When};

/// Where the suite's clock starts: some day in 2023, well away from zero.
pub const START_MS: u64 = 1_700_000_000_000;

/// Runs every check. `make` gives a fresh, empty backend that tells time by the clock it is given.
///
/// # Panics
/// When the backend breaks the contract.
pub async fn all<F, Fut>(make: F)
where
    F: Fn(Arc<ManualClock>) -> Fut,
    Fut: Future<Output = Arc<dyn Backend>>,
{
    macro_rules! check {
        ($($name:ident),+ $(,)?) => {$({
            let clock = Arc::new(ManualClock::at(START_MS));
            $name(&*make(clock.clone()).await, &clock).await;
        })+};
    }
    check!(
        absent_key_is_none,
        get_returns_what_was_put,
        put_is_last_writer_wins,
        empty_artifact_is_an_entry,
        get_many_answers_in_order,
        unmet_precondition_changes_nothing,
        versions_grow,
        deleting_an_absent_key_succeeds,
        expired_entry_is_absent,
        scan_visits_every_entry_once,
        namespaces_are_isolated,
        clear_leaves_other_namespaces,
        touch_notes_a_use,
        staged_put_is_seen_and_settles,
        a_stack_prints_itself,
    );
}

async fn put(backend: &dyn Backend, key: &Key, artifact: &[u8]) -> Version {
    match backend.put(key, Entry::new(Bytes::copy_from_slice(artifact)), When::Always).await.expect("put") {
        Put::Stored(version) => version,
        Put::Unmet => panic!("an unconditional put was unmet"),
    }
}

async fn artifact(backend: &dyn Backend, key: &Key) -> Option<Bytes> {
    backend.get(key).await.expect("get").map(|found| bytes_of(&found))
}

fn bytes_of(found: &crate::Found) -> Bytes {
    found.entry.artifact.verify().expect("whole").into_bytes()
}

/// Contract 1.
pub async fn absent_key_is_none(backend: &dyn Backend, _clock: &ManualClock) {
    let key = Key::new("absent");
    assert_eq!(artifact(backend, &key).await, None);
    assert_eq!(backend.head(&key).await.expect("head"), None);
}

/// Contract 2.
pub async fn get_returns_what_was_put(backend: &dyn Backend, _clock: &ManualClock) {
    for len in [1usize, 100, 3000, 70_000, 1 << 20] {
        let bytes: Bytes = (0..len).map(|i| (i * 31 % 251) as u8).collect();
        let key = Key::new(format!("pt2:fx-graph-v1::f{len}:c1"));
        let mut entry = Entry::new(bytes.clone()).expiring_at(Some(START_MS + 5000));
        entry.metadata.compile_ms = 1234;
        entry.metadata.details = Some(Arc::new(Details {
            producer: Some("host".to_owned()),
            fingerprint: Some([7; 32]),
            components: vec![(1, 2), (3, 4)],
            variant: Some(9),
        }));
        backend.put(&key, entry.clone(), When::Always).await.expect("put");
        let found = backend.get(&key).await.expect("get").expect("hit");
        assert_eq!(bytes_of(&found), bytes);
        assert_eq!(found.entry.metadata.created_ms, START_MS, "0 is replaced by now");
        entry.metadata.created_ms = START_MS;
        assert_eq!(found.entry.metadata, entry.metadata);
        let head = backend.head(&key).await.expect("head").expect("present");
        assert_eq!((head.version, head.artifact_len), (found.version, len as u64));
        assert_eq!((head.expires_ms, head.compile_ms), (Some(START_MS + 5000), 1234));
    }
}

/// Contract 3.
pub async fn put_is_last_writer_wins(backend: &dyn Backend, _clock: &ManualClock) {
    let key = Key::new("key");
    for (index, len) in [10, 100_000, 5, 0, 200_000].into_iter().enumerate() {
        let bytes = vec![index as u8; len];
        put(backend, &key, &bytes).await;
        assert_eq!(artifact(backend, &key).await.as_deref(), Some(&*bytes));
    }
    assert_eq!(backend.usage(None).await.expect("usage").entries, 1);
}

/// Contract 4.
pub async fn empty_artifact_is_an_entry(backend: &dyn Backend, _clock: &ManualClock) {
    let key = Key::new("empty");
    put(backend, &key, b"").await;
    assert_eq!(artifact(backend, &key).await, Some(Bytes::new()));
}

/// Contract 5.
pub async fn get_many_answers_in_order(backend: &dyn Backend, _clock: &ManualClock) {
    let [a, b, absent] = ["a", "b", "absent"].map(Key::new);
    put(backend, &a, b"1").await;
    put(backend, &b, b"2").await;
    let answers = backend.get_many(&[b.clone(), absent, a, b]).await;
    let artifacts: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.expect("get").map(|found| bytes_of(&found).to_vec()))
        .collect();
    assert_eq!(artifacts, [Some(b"2".to_vec()), None, Some(b"1".to_vec()), Some(b"2".to_vec())]);
    assert_eq!(backend.get_many(&[]).await.len(), 0);
}

/// Contract 7.
pub async fn unmet_precondition_changes_nothing(backend: &dyn Backend, _clock: &ManualClock) {
    let key = Key::new("key");
    let entry = |text: &'static str| Entry::new(text);
    assert_eq!(backend.put(&key, entry("no"), When::Present).await.expect("put"), Put::Unmet);
    assert_eq!(backend.put(&key, entry("no"), When::Version(Version(1))).await.expect("put"), Put::Unmet);
    assert_eq!(artifact(backend, &key).await, None);
    let Put::Stored(first) = backend.put(&key, entry("yes"), When::Absent).await.expect("put") else {
        panic!("absent, so it must be stored")
    };
    assert_eq!(backend.put(&key, entry("no"), When::Absent).await.expect("put"), Put::Unmet);
    let Put::Stored(second) = backend.put(&key, entry("newer"), When::Version(first)).await.expect("put")
    else {
        panic!("the version matches, so it must be stored")
    };
    assert_eq!(backend.put(&key, entry("no"), When::Version(first)).await.expect("put"), Put::Unmet);
    assert_eq!(backend.set_expiry(&key, Some(1), When::Version(first)).await.expect("expiry"), Put::Unmet);
    assert!(!backend.delete(&key, When::Version(first)).await.expect("delete"));
    assert_eq!(artifact(backend, &key).await.as_deref(), Some(&b"newer"[..]));
    assert!(backend.delete(&key, When::Version(second)).await.expect("delete"));
    assert_eq!(artifact(backend, &key).await, None);
}

/// Contract 8.
pub async fn versions_grow(backend: &dyn Backend, _clock: &ManualClock) {
    let mut last = Version(0);
    for index in 0..20 {
        let version = put(backend, &Key::new(format!("{}", index % 3)), b"x").await;
        assert!(version > last, "{version:?} after {last:?}");
        last = version;
    }
}

/// Contract 9.
pub async fn deleting_an_absent_key_succeeds(backend: &dyn Backend, _clock: &ManualClock) {
    let key = Key::new("key");
    assert!(!backend.delete(&key, When::Always).await.expect("delete"));
    put(backend, &key, b"x").await;
    assert!(backend.delete(&key, When::Always).await.expect("delete"));
    assert!(!backend.delete(&key, When::Always).await.expect("delete"));
}

/// Contract 10.
pub async fn expired_entry_is_absent(backend: &dyn Backend, clock: &ManualClock) {
    let [key, kept] = ["key", "kept"].map(Key::new);
    for key in [&key, &kept] {
        backend.put(key, Entry::new("x").expiring_at(Some(START_MS + 10)), When::Always).await.expect("put");
    }
    assert!(matches!(backend.set_expiry(&kept, None, When::Present).await.expect("persist"), Put::Stored(_)));
    clock.advance_ms(9);
    assert!(artifact(backend, &key).await.is_some());
    clock.advance_ms(1);
    assert_eq!(backend.head(&key).await.expect("head"), None);
    assert_eq!(artifact(backend, &key).await, None);
    assert_eq!(backend.set_expiry(&key, None, When::Always).await.expect("expiry"), Put::Unmet);
    assert!(!backend.delete(&key, When::Always).await.expect("delete"));
    let page = backend.scan(&Namespace::default(), Cursor::START, 10).await.expect("scan");
    assert_eq!(page.keys.len(), 1);
    assert!(artifact(backend, &kept).await.is_some());
    assert!(matches!(backend.put(&key, Entry::new("y"), When::Absent).await.expect("put"), Put::Stored(_)));
}

/// Contract 11.
pub async fn scan_visits_every_entry_once(backend: &dyn Backend, _clock: &ManualClock) {
    for index in 0..500 {
        put(backend, &Key::new(format!("key{index}")), b"x").await;
    }
    let mut seen = Vec::new();
    let mut cursor = Cursor::START;
    let mut pages = 0;
    loop {
        let page = backend.scan(&Namespace::default(), cursor, 7).await.expect("scan");
        seen.extend(page.keys.into_iter().map(|(key, _)| key.bytes().clone()));
        pages += 1;
        // Entries that come and go meanwhile must not hide those that stay.
        put(backend, &Key::new(format!("late{pages}")), b"x").await;
        cursor = page.next;
        if cursor == Cursor::START {
            break;
        }
    }
    assert!(pages > 10, "{pages} pages of about 7 for 500 keys");
    seen.retain(|key| key.starts_with(b"key"));
    let found = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((seen.len(), found), (500, 500), "every key once");
}

/// Contract 12.
pub async fn namespaces_are_isolated(backend: &dyn Backend, _clock: &ManualClock) {
    let other = Namespace::new("other").expect("short name");
    let [key, foreign] = [Key::new("key"), Key::in_namespace(other.clone(), "key")];
    put(backend, &key, b"mine").await;
    assert_eq!(artifact(backend, &foreign).await, None);
    put(backend, &foreign, b"theirs").await;
    assert_eq!(artifact(backend, &key).await.as_deref(), Some(&b"mine"[..]));
    assert_eq!(backend.usage(Some(&other)).await.expect("usage").entries, 1);
    assert_eq!(backend.usage(None).await.expect("usage").entries, 2);
    let page = backend.scan(&other, Cursor::START, 100).await.expect("scan");
    assert_eq!(
        page.keys.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(),
        std::slice::from_ref(&foreign)
    );
    assert!(backend.delete(&foreign, When::Always).await.expect("delete"));
    assert_eq!(artifact(backend, &key).await.as_deref(), Some(&b"mine"[..]));
}

/// Contract 13.
pub async fn clear_leaves_other_namespaces(backend: &dyn Backend, _clock: &ManualClock) {
    let other = Namespace::new("other").expect("short name");
    for index in 0..20 {
        put(backend, &Key::new(format!("{index}")), &vec![index; 100_000]).await;
        put(backend, &Key::in_namespace(other.clone(), format!("{index}")), b"x").await;
    }
    assert_eq!(backend.clear(&Namespace::default()).await.expect("clear"), 20);
    assert_eq!(artifact(backend, &Key::new("7")).await, None);
    assert_eq!(backend.usage(None).await.expect("usage").entries, 20);
    put(backend, &Key::new("7"), b"again").await;
    assert_eq!(artifact(backend, &Key::new("7")).await.as_deref(), Some(&b"again"[..]));
    assert_eq!(artifact(backend, &Key::in_namespace(other, "7")).await.as_deref(), Some(&b"x"[..]));
}

/// Contract 14.
pub async fn touch_notes_a_use(backend: &dyn Backend, clock: &ManualClock) {
    let key = Key::new("key");
    assert_eq!(backend.touch(&key).await.expect("touch"), None);
    put(backend, &key, b"x").await;
    let before = backend.head(&key).await.expect("head").expect("present");
    clock.advance_ms(2000);
    let touched = backend.touch(&key).await.expect("touch").expect("present");
    assert_eq!((touched.hits, touched.accessed_ms), (before.hits + 1, before.accessed_ms + 2000));
    assert_eq!(touched.version, before.version);
    assert_eq!(backend.head(&key).await.expect("head"), Some(touched));
}

/// Contract 15.
pub async fn staged_put_is_seen_and_settles(backend: &dyn Backend, _clock: &ManualClock) {
    assert!(backend.settle_many(&[]).await.is_empty());
    let mut versions = Vec::new();
    for number in 0..20u8 {
        // Small ones, one that is too long to be staged in most backends, and a key that is put twice.
        let len = if number == 7 { 200_000 } else { usize::from(number) * 10 };
        let (key, bytes) = (Key::new(vec![b'k', number % 15]), vec![number; len]);
        let staged = backend.stage(&key, Entry::new(bytes.clone()), When::Always).await.expect("stage");
        let Put::Stored(version) = staged else { panic!("an unconditional put was unmet") };
        assert_eq!(artifact(backend, &key).await, Some(bytes.into()), "seen before it is settled");
        assert!(versions.last() < Some(&version), "versions grow");
        versions.push(version);
    }
    let settled = backend.settle_many(&versions).await;
    assert_eq!(settled.len(), versions.len());
    assert!(settled.iter().all(Result::is_ok), "{settled:?}");
    assert_eq!(artifact(backend, &Key::new(&b"k\x02"[..])).await, Some(vec![17; 170].into()));
    let unmet = backend.stage(&Key::new(&b"k\x02"[..]), Entry::new("late"), When::Absent).await;
    assert!(matches!(unmet, Ok(Put::Unmet)), "{unmet:?}");
}

/// Contract 16.
pub async fn a_stack_prints_itself(backend: &dyn Backend, _clock: &ManualClock) {
    assert!(!backend.to_string().is_empty());
    assert!(!backend.name().is_empty());
}
