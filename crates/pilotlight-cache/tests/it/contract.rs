use std::sync::Arc;

use pilotlight_cache::testing::conformance;
use pilotlight_cache::{Backend, Hot, MemoryBackend};

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
