use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use pilotlight_cache::{
    Backend, Cache, Cursor, Entry, Error, ErrorKind, FailurePolicy, Found, Head, JsonSerde, Key,
    MemoryBackend, Namespace, Operation, Outcome, Page, PassthroughSerde, Put, PutOutcome, Refused,
    RemoteCache, Result, Sample, SampleHooks, Usage, Version, When,
};

/// Fails as the upstream test's `FailingBackend` does.
#[derive(Debug)]
struct FailingBackend;

fn failure<T>(text: &'static str) -> Result<T> {
    Err(Error::backend(ErrorKind::Internal, text))
}

#[async_trait]
impl Backend for FailingBackend {
    fn name(&self) -> &'static str {
        "FailingBackend"
    }
    async fn get_many(&self, keys: &[Key]) -> Vec<Result<Option<Found>>> {
        keys.iter().map(|_| failure("testget")).collect()
    }
    async fn put(&self, _key: &Key, _entry: Entry, _when: When) -> Result<Put> {
        failure("testput")
    }
    async fn stage(&self, _key: &Key, _entry: Entry, _when: When) -> Result<Put> {
        failure("teststage")
    }
    async fn settle_many(&self, versions: &[Version]) -> Vec<Result<()>> {
        versions.iter().map(|_| failure("testsettle")).collect()
    }
    async fn head(&self, _key: &Key) -> Result<Option<Head>> {
        failure("testhead")
    }
    async fn touch(&self, _key: &Key) -> Result<Option<Head>> {
        failure("testtouch")
    }
    async fn set_expiry(&self, _key: &Key, _expires_ms: Option<u64>, _when: When) -> Result<Put> {
        failure("testexpiry")
    }
    async fn delete(&self, _key: &Key, _when: When) -> Result<bool> {
        failure("testdelete")
    }
    async fn scan(&self, _namespace: &Namespace, _cursor: Cursor, _limit: usize) -> Result<Page> {
        failure("testscan")
    }
    async fn clear(&self, _namespace: &Namespace) -> Result<u64> {
        failure("testclear")
    }
    async fn usage(&self, _namespace: Option<&Namespace>) -> Result<Usage> {
        failure("testusage")
    }
    async fn sync(&self) -> Result<()> {
        failure("testsync")
    }
}

impl fmt::Display for FailingBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failing")
    }
}

/// Keeps the last sample, as the upstream test's `FakeCache` does.
#[derive(Debug, Default)]
struct LastSample(Mutex<Option<Sample>>);

impl SampleHooks for LastSample {
    fn create_sample(&self, key: &Key, operation: Operation) -> Option<Sample> {
        Some(Sample::open(key, operation))
    }
    fn log_sample(&self, sample: Sample) {
        *self.0.lock().unwrap() = Some(sample);
    }
}

impl LastSample {
    fn take(&self) -> Sample {
        self.0.lock().unwrap().take().expect("a sample was logged")
    }
}

fn key() -> Key {
    Key::new("pt2:fx-graph-v1::f:c1")
}

fn count(cache: &Cache, outcome: Outcome) -> (u64, u64) {
    let sum = cache.stats().snapshot();
    (sum.cache[key().kind() as usize][outcome as usize], sum.backend[outcome as usize])
}

#[tokio::test]
async fn normal_logging() {
    let samples = Arc::new(LastSample::default());
    let cache = Cache::new(Arc::new(MemoryBackend::new(1 << 20))).with_hooks(samples.clone());
    let cache = RemoteCache::new(cache, JsonSerde);
    cache.put(&key(), &"value".into()).await.unwrap();
    let sample = samples.take();
    assert_eq!((sample.outcome, sample.bytes, sample.fail_reason), (Some(Outcome::Put), 7, None));
    assert_eq!(cache.get(&key()).await.unwrap(), Some("value".into()));
    let sample = samples.take();
    assert_eq!((sample.outcome, sample.tier, sample.fail_reason), (Some(Outcome::Hit), Some(0), None));
    assert_eq!(cache.get(&Key::new("absent")).await.unwrap(), None);
    assert_eq!(samples.take().outcome, Some(Outcome::Miss));
    assert_eq!(count(cache.cache(), Outcome::Hit), (1, 1));
    assert_eq!(count(cache.cache(), Outcome::Put), (1, 1));
}

#[tokio::test]
async fn failure_with_no_sample_still_propagates() {
    let cache = RemoteCache::new(Cache::new(Arc::new(FailingBackend)), PassthroughSerde);
    assert_eq!(cache.put(&key(), &"value".into()).await.unwrap_err().to_string(), "testput");
    assert_eq!(cache.get(&key()).await.unwrap_err().to_string(), "testget");
    assert_eq!(count(cache.cache(), Outcome::Exception), (2, 2));
}

#[tokio::test]
async fn failure_with_a_sample_carries_the_errors_text() {
    let samples = Arc::new(LastSample::default());
    let cache = Cache::new(Arc::new(FailingBackend)).with_hooks(samples.clone());
    let cache = RemoteCache::new(cache, PassthroughSerde);
    cache.put(&key(), &"value".into()).await.unwrap_err();
    assert_eq!(samples.take().fail_reason.as_deref(), Some("testput"));
    cache.get(&key()).await.unwrap_err();
    let sample = samples.take();
    assert_eq!((sample.fail_reason.as_deref(), sample.outcome), (Some("testget"), Some(Outcome::Exception)));
}

#[tokio::test]
async fn an_entry_that_does_not_decode_is_an_exception_for_the_cache_and_a_hit_for_the_backend() {
    let cache = RemoteCache::new(Cache::new(Arc::new(MemoryBackend::new(1 << 20))), JsonSerde);
    cache.cache().put(&key(), Entry::new("{"), When::Always).await.unwrap();
    assert_eq!(cache.get(&key()).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(count(cache.cache(), Outcome::Hit), (0, 1));
    assert_eq!(count(cache.cache(), Outcome::Exception), (1, 0));
}

#[tokio::test]
async fn a_null_object_is_refused_and_sampled() {
    let samples = Arc::new(LastSample::default());
    let cache = Cache::new(Arc::new(MemoryBackend::new(1 << 20))).with_hooks(samples.clone());
    let cache = RemoteCache::new(cache, JsonSerde);
    assert_eq!(cache.put(&key(), &serde_json::Value::Null).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert!(samples.take().fail_reason.unwrap().contains("null"));
}

#[tokio::test]
async fn absorbed_failures_are_misses_and_refusals_after_they_were_counted() {
    let samples = Arc::new(LastSample::default());
    let cache =
        Cache::new(Arc::new(FailingBackend)).with_policy(FailurePolicy::Absorb).with_hooks(samples.clone());
    assert_eq!(cache.get(&key()).await.unwrap(), None);
    assert_eq!(samples.take().fail_reason.as_deref(), Some("testget"));
    let refused = cache.put(&key(), Entry::new("x"), When::Always).await.unwrap();
    let internal = Refused { kind: ErrorKind::Internal, unverified: None };
    assert_eq!(refused, PutOutcome::Refused(internal));
    assert_eq!(count(&cache, Outcome::Exception), (2, 2));
    let sum = cache.stats().snapshot();
    assert_eq!(sum.refused_puts[ErrorKind::Internal as usize], 1);
    assert_eq!(sum.absorbed_gets[ErrorKind::Internal as usize], 1);
    let other = Key::new("any other key");
    cache.get(&other).await.unwrap_err();
    cache.put(&other, Entry::new("x"), When::Always).await.unwrap_err();
}

#[tokio::test]
async fn saved_time_is_not_counted_twice_for_what_is_made_and_found_together() {
    let cache = Cache::new(Arc::new(MemoryBackend::new(1 << 20)));
    let keys = ["pt2:autograd-experimental::a:c1", "pt2:fx-graph-v1::f:c1", "cpp-kernel:k"].map(Key::new);
    for key in &keys {
        let mut entry = Entry::new("x");
        entry.metadata.compile_ms = 1000;
        cache.put(key, entry, When::Always).await.unwrap();
    }
    assert!(cache.get_many_packed(&keys, None).await.iter().all(|found| matches!(found, Ok(Some(_)))));
    let sum = cache.stats().snapshot();
    assert_eq!((sum.saved_ms.iter().sum::<u64>(), sum.stock_graphs_ms), (1000, 0));
}

#[tokio::test]
async fn a_stock_client_s_graphs_are_told_apart_from_what_was_saved() {
    let cache = Cache::new(Arc::new(MemoryBackend::new(1 << 20)));
    for (name, expected) in
        [("pt2:fx-graph-v1::f:c1", (0, 1000)), ("pt2:bundled-autotune-v1::b:c1", (1000, 1000))]
    {
        let mut entry = Entry::new("x");
        entry.metadata.compile_ms = 1000;
        cache.put(&Key::new(name), entry, When::Always).await.unwrap();
        cache.get(&Key::new(name)).await.unwrap().expect("hit");
        let sum = cache.stats().snapshot();
        assert_eq!((sum.saved_ms.iter().sum::<u64>(), sum.stock_graphs_ms), expected, "{name}");
    }
}
