//! Tiers: a fast backend in front of an origin in memory, in time that the tests move.

mod sharing;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pilotlight_cache::origin::{ObjectName, OnError, Origin, OriginError, OriginFault, Write, layout};
use pilotlight_cache::testing::conformance::{self, START_MS};
use pilotlight_cache::testing::{MemoryOrigin, Trouble};
use pilotlight_cache::{
    Backend, BackendExt, DiskBackend, DiskOptions, Durability, Entry, ErrorKind, Flight, Found, Hot, Inline,
    Key, ManualClock, MemoryBackend, Namespace, Peek, Put, Tiered, TieredOptions, When,
};
use tempfile::TempDir;
use tokio::time::Instant;

const TIMEOUT: Duration = Duration::from_secs(2);
const FRESH: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// More than any pause of a breaker or a retry.
const LONG: Duration = Duration::from_secs(120);

fn options(clock: Arc<ManualClock>) -> TieredOptions {
    TieredOptions {
        write: Write::Behind,
        on_error: OnError::FailTier,
        is_read_only: false,
        timeout: TIMEOUT,
        fresh: FRESH,
        miss: Duration::ZERO,
        keep: None,
        queue_max: 1000,
        queue_dir: None,
        entry_bytes_max: 1 << 20,
        clock,
        blocking: Arc::new(Inline),
        runtime: tokio::runtime::Handle::current(),
        seed: 1,
    }
}

/// Two nodes' worth of what they share.
struct Fleet {
    clock: Arc<ManualClock>,
    origin: Arc<MemoryOrigin>,
}

struct Node {
    memory: Arc<MemoryBackend>,
    tiers: Arc<Tiered>,
}

impl Fleet {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(START_MS));
        let origin = Arc::new(MemoryOrigin::new(clock.clone()));
        Self { clock, origin }
    }

    fn node(&self) -> Node {
        self.node_with(64 << 20, |options| options)
    }

    fn node_with(&self, bytes: u64, change: impl Fn(TieredOptions) -> TieredOptions) -> Node {
        let memory = Arc::new(MemoryBackend::with_clock(bytes, self.clock.clone()));
        self.over(memory, change)
    }

    fn over(&self, memory: Arc<MemoryBackend>, change: impl Fn(TieredOptions) -> TieredOptions) -> Node {
        let options = change(options(self.clock.clone()));
        let tiers = Tiered::start(memory.clone(), memory.clone(), self.origin.clone(), options);
        Node { memory, tiers: Arc::new(tiers.unwrap()) }
    }
}

impl Node {
    async fn get(&self, key: &Key) -> Option<Found> {
        self.tiers.get(key).await.unwrap()
    }

    async fn bytes(&self, key: &Key) -> Option<Bytes> {
        self.get(key).await.map(|found| found.entry.artifact.verify().unwrap().into_bytes())
    }

    async fn put(&self, key: &Key, bytes: &'static str) {
        let put = self.tiers.put(key, Entry::new(bytes), When::Always).await.unwrap();
        assert!(matches!(put, Put::Stored(_)));
    }

    async fn drained(&self) {
        assert!(self.tiers.drain(LONG).await, "{:?}", self.tiers.state());
    }

    fn count(&self, name: &str) -> u64 {
        self.tiers.counts().all().into_iter().find(|(known, _)| *known == name).unwrap().1
    }

    fn faults(&self, fault: OriginFault) -> u64 {
        self.tiers.counts().faults().into_iter().find(|(known, _)| *known == fault).unwrap().1
    }
}

fn graph() -> Key {
    Key::new("pt2:fx-graph-v1::fabc:c1")
}

fn profile() -> Key {
    Key::new("pt2:dynamo-pgo::job1:None::c1")
}

fn unreachable() -> OriginError {
    OriginError::Unreachable { what: "test".to_owned() }
}

fn disk(dir: &TempDir, clock: Arc<ManualClock>) -> Arc<DiskBackend> {
    let options = DiskOptions {
        dir: dir.path().join("store"),
        max_bytes: 64 << 20,
        durability: Durability::Relaxed,
        clock,
        blocking: Arc::new(Inline),
        signers: None,
    };
    DiskBackend::open(options).expect("open")
}

#[tokio::test(start_paused = true)]
async fn tiers_over_memory_keep_the_contract() {
    for (write, on_error) in [
        (Write::Behind, OnError::FailTier),
        (Write::Through, OnError::All),
        (Write::Through, OnError::Ignore),
    ] {
        conformance::all(async |clock| {
            let memory = Arc::new(MemoryBackend::with_clock(64 << 20, clock.clone()));
            let origin = Arc::new(MemoryOrigin::new(clock.clone()));
            let options = TieredOptions { write, on_error, ..options(clock) };
            Arc::new(Tiered::start(memory.clone(), memory, origin, options).expect("start"))
                as Arc<dyn Backend>
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_whole_stack_over_disk_keeps_the_contract_also_when_the_origin_takes_nothing() {
    for trouble in [Trouble::None, Trouble::FailWrites(unreachable())] {
        let dirs = std::sync::Mutex::new(Vec::<TempDir>::new());
        conformance::all(async |clock| {
            let dir = tempfile::tempdir().expect("temporary directory");
            let options = options(clock.clone());
            let options = TieredOptions { queue_dir: Some(dir.path().join("origin")), ..options };
            let disk = disk(&dir, clock.clone());
            dirs.lock().expect("no panic").push(dir);
            let origin = Arc::new(MemoryOrigin::new(clock));
            origin.set_trouble(trouble.clone());
            let tiers = Tiered::start(disk.clone(), disk, origin, options).expect("start");
            Arc::new(Hot::new(Arc::new(Flight::new(Arc::new(tiers))), 8 << 20)) as Arc<dyn Backend>
        })
        .await;
    }
}
