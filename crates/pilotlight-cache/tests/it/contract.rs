use std::sync::Arc;

use pilotlight_cache::testing::conformance;
use pilotlight_cache::{
    Backend, BackendExt, DiskBackend, DiskOptions, Durability, Entry, Flight, Hot, Inline, Key, ManualClock,
    MemoryBackend, Metadata, Recorder, TraceSink, Use, Used, When,
};

#[tokio::test]
async fn memory_keeps_the_contract() {
    conformance::all(async |clock| Arc::new(MemoryBackend::with_clock(64 << 20, clock)) as Arc<dyn Backend>)
        .await;
}

#[tokio::test]
async fn hot_over_memory_keeps_the_contract() {
    conformance::all(async |clock| {
        let memory = Arc::new(MemoryBackend::with_clock(64 << 20, clock));
        Arc::new(Hot::new(memory, 8 << 20)) as Arc<dyn Backend>
    })
    .await;
}

#[tokio::test]
async fn flight_over_memory_keeps_the_contract() {
    conformance::all(async |clock| {
        let memory = Arc::new(MemoryBackend::with_clock(64 << 20, clock));
        Arc::new(Flight::new(memory)) as Arc<dyn Backend>
    })
    .await;
}

#[derive(Debug, Default)]
struct Uses(std::sync::Mutex<Vec<Used>>);

impl TraceSink for Uses {
    fn note(&self, used: Used) {
        self.0.lock().expect("no panic").push(used);
    }
}

#[tokio::test]
async fn hot_over_a_recorder_keeps_the_contract() {
    conformance::all(async |clock| {
        let memory = Arc::new(MemoryBackend::with_clock(64 << 20, clock));
        let recorder = Arc::new(Recorder::new(memory, Arc::new(Uses::default())));
        Arc::new(Hot::new(recorder, 8 << 20)) as Arc<dyn Backend>
    })
    .await;
}

#[tokio::test]
async fn a_recorder_behind_a_memory_tier_notes_every_use() {
    let uses = Arc::new(Uses::default());
    let memory = Arc::new(MemoryBackend::with_clock(64 << 20, Arc::new(ManualClock::at(1))));
    let hot = Hot::new(Arc::new(Recorder::new(memory, uses.clone())), 8 << 20);
    let key = Key::new("triton:abc:k.json");
    let metadata = Metadata { compile_ms: 7, ..Metadata::default() };
    assert!(hot.get(&key).await.unwrap().is_none());
    hot.put(&key, Entry { metadata, ..Entry::new(vec![1; 100]) }, When::Always).await.unwrap();
    for _ in 0..3 {
        assert!(hot.get(&key).await.unwrap().is_some());
    }
    assert!(hot.delete(&key, When::Always).await.unwrap());
    let uses = uses.0.lock().unwrap();
    assert!(uses.iter().all(|used| used.key_hash == key.log_hash() && used.group != 0));
    let done: Vec<_> = uses.iter().map(|used| (used.done, used.stored_bytes > 0, used.compile_ms)).collect();
    let (miss, hit) = ((Use::Get, false, 0), (Use::Get, true, 7));
    assert_eq!(done, [miss, (Use::Put, true, 7), hit, hit, hit, (Use::Delete, false, 0)]);
}

/// A disk backend in a directory of its own, which goes when the test ends.
fn disk(clock: Arc<ManualClock>, durability: Durability, dirs: &Dirs) -> Arc<DiskBackend> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let options = DiskOptions {
        dir: dir.path().to_owned(),
        max_bytes: 64 << 20,
        durability,
        clock,
        blocking: Arc::new(Inline),
        signers: None,
    };
    dirs.lock().expect("no panic").push(dir);
    DiskBackend::open(options).expect("open")
}

type Dirs = std::sync::Mutex<Vec<tempfile::TempDir>>;

#[tokio::test]
async fn disk_keeps_the_contract() {
    for durability in [Durability::Relaxed, Durability::Batch, Durability::Always] {
        let dirs = Dirs::default();
        conformance::all(async |clock| disk(clock, durability, &dirs) as Arc<dyn Backend>).await;
    }
}

#[tokio::test]
async fn hot_over_disk_keeps_the_contract() {
    let dirs = Dirs::default();
    conformance::all(async |clock| {
        Arc::new(Hot::new(disk(clock, Durability::Relaxed, &dirs), 8 << 20)) as Arc<dyn Backend>
    })
    .await;
}
