use std::sync::Arc;

use pilotlight_cache::testing::conformance;
use pilotlight_cache::{
    Backend, DiskBackend, DiskOptions, Durability, Hot, Inline, ManualClock, MemoryBackend,
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

/// A disk backend in a directory of its own, which goes when the test ends.
fn disk(clock: Arc<ManualClock>, durability: Durability, dirs: &Dirs) -> Arc<DiskBackend> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let options = DiskOptions {
        dir: dir.path().to_owned(),
        max_bytes: 64 << 20,
        durability,
        clock,
        blocking: Arc::new(Inline),
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
