use std::sync::{Arc, Mutex};

use pilotlight_cache::{
    Backend, BackendExt, Blocking, DiskBackend, DiskOptions, Durability, Entry, Key, SystemClock, When,
};

/// Keeps jobs until they are let go: a pool whose threads all wait for a stalled disk.
#[derive(Default)]
struct Stalled(Mutex<Vec<Box<dyn FnOnce() + Send>>>);

impl std::fmt::Debug for Stalled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stalled")
    }
}

impl Blocking for Stalled {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        self.0.lock().unwrap().push(job);
    }
}

#[tokio::test]
async fn an_abandoned_put_never_writes_over_a_later_one() {
    let dir = tempfile::tempdir().unwrap();
    let stalled = Arc::new(Stalled::default());
    let disk = DiskBackend::open(DiskOptions {
        dir: dir.path().to_owned(),
        max_bytes: 64 << 20,
        durability: Durability::Relaxed,
        clock: Arc::new(SystemClock),
        blocking: stalled.clone(),
        signers: None,
    })
    .unwrap();
    let key = Key::new("key");
    {
        // Large enough to be handed to the pool; given up there, as a request that runs into its deadline is.
        let put = disk.put(&key, Entry::new(vec![1; 1 << 20]), When::Always);
        tokio::pin!(put);
        let pending = poll_once(&mut put).await;
        assert!(pending, "the put waits for the pool");
    }
    disk.put(&key, Entry::new("newer"), When::Always).await.unwrap();
    for job in stalled.0.lock().unwrap().drain(..) {
        job();
    }
    let found = disk.get(&key).await.unwrap().expect("the newer one");
    assert_eq!(&found.entry.artifact.verify().unwrap()[..], b"newer");
}

/// Polls once, and says whether the future is pending.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
    })
    .await
}
