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
async fn a_put_on_one_node_is_a_hit_on_another_and_is_promoted_there() {
    let fleet = Fleet::new();
    let (one, other) = (fleet.node(), fleet.node());
    one.tiers
        .put(&graph(), Entry::new("compiled").expiring_at(Some(START_MS + 1000)), When::Always)
        .await
        .unwrap();
    one.drained().await;
    let found = other.get(&graph()).await.unwrap();
    assert_eq!((found.tier, found.entry.metadata.expires_ms), (1, Some(START_MS + 1000)));
    assert_eq!(found.entry.artifact.verify().unwrap()[..], b"compiled"[..]);
    let asked = fleet.origin.asked().gets;
    assert_eq!(other.get(&graph()).await.unwrap().tier, 0, "promoted");
    assert_eq!(fleet.origin.asked().gets, asked);
    assert_eq!((other.count("hits"), other.count("gets"), one.count("puts")), (1, 1, 1));
    fleet.clock.advance_ms(1000);
    assert_eq!(other.bytes(&graph()).await, None, "expired, there too");
    assert_eq!(fleet.node().bytes(&graph()).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_put_through_is_at_the_origin_when_it_is_answered_also_when_it_was_staged() {
    let fleet = Fleet::new();
    let through = fleet.node_with(64 << 20, |options| TieredOptions { write: Write::Through, ..options });
    fleet.origin.set_trouble(Trouble::Delay(Duration::from_millis(100)));
    through.put(&Key::new("k"), "x").await;
    assert_eq!(fleet.origin.names(), [ObjectName::of(&Key::new("k"))]);
    let mut versions = Vec::new();
    for name in ["a", "b", "c"] {
        let staged = through.tiers.stage(&Key::new(name), Entry::new("x"), When::Always).await.unwrap();
        let Put::Stored(version) = staged else { panic!("unmet") };
        versions.push(version);
    }
    let began = Instant::now();
    assert!(through.tiers.settle_many(&versions).await.iter().all(Result::is_ok));
    assert_eq!(fleet.origin.names().len(), 4);
    assert!(began.elapsed() < Duration::from_millis(250), "together: {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn get_many_asks_for_absent_keys_alone_and_for_all_of_them_at_once() {
    let fleet = Fleet::new();
    let (one, other) = (fleet.node(), fleet.node());
    let keys: Vec<Key> = (0..20).map(|number| Key::new(format!("cpp-kernel:{number}"))).collect();
    for key in &keys {
        one.put(key, "x").await;
    }
    one.drained().await;
    other.put(&keys[3], "mine").await;
    other.drained().await;
    fleet.origin.set_trouble(Trouble::Delay(Duration::from_millis(500)));
    let (began, asked) = (Instant::now(), fleet.origin.asked().gets);
    let answers = other.tiers.get_many(&keys).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Some(_)))));
    assert_eq!(fleet.origin.asked().gets - asked, 19);
    assert!(began.elapsed() < Duration::from_millis(600), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn damaged_objects_are_moved_aside_and_are_misses_whatever_is_wrong_with_them() {
    let whole = |key: &Key| -> Bytes { layout::object(key, &Entry::new("right")).unwrap().concat().into() };
    let graph_object = whole(&graph());
    let flipped = |place: usize| {
        let mut bytes = graph_object.to_vec();
        bytes[place] ^= 1;
        Bytes::from(bytes)
    };
    for (what, object) in [
        ("truncated", graph_object.slice(..graph_object.len() - 1)),
        ("empty", Bytes::new()),
        ("flipped in its payload", flipped(graph_object.len() - 2)),
        ("flipped in its head", flipped(3)),
        ("another key's", whole(&Key::new("pt2:fx-graph-v1::fother:c1"))),
        (
            "another namespace's",
            whole(&Key::in_namespace(Namespace::new("n").unwrap(), graph().bytes().clone())),
        ),
        ("something else", Bytes::from_static(b"<html>not found</html>")),
    ] {
        let fleet = Fleet::new();
        let (node, name) = (fleet.node(), ObjectName::of(&graph()));
        fleet.origin.place(&name, object.clone());
        assert_eq!(node.bytes(&graph()).await, None, "{what}");
        assert_eq!(node.count("quarantined"), 1, "{what}");
        tokio::time::sleep(LONG).await;
        assert_eq!(fleet.origin.names(), [name.quarantined()], "{what}");
        assert_eq!(fleet.origin.object(&name.quarantined()), Some(object), "{what}");
        node.put(&graph(), "right").await;
        node.drained().await;
        assert_eq!(fleet.node().bytes(&graph()).await.as_deref(), Some(&b"right"[..]), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_whose_digests_are_right_and_whose_artifact_does_not_unpack_is_damaged() {
    let fleet = Fleet::new();
    // What a liar writes: a whole frame around an envelope whose payload is another.
    let honest: Bytes = layout::object(&graph(), &Entry::new(vec![7; 9000])).unwrap().concat().into();
    let (key, entry) = layout::read(&honest, 1 << 20).unwrap();
    let sealed = pilotlight_cache::envelope::seal(&entry).unwrap();
    let mut payload = sealed.payload.to_vec();
    *payload.last_mut().unwrap() ^= 1;
    let sealed = pilotlight_cache::envelope::Sealed { payload: payload.into(), ..sealed };
    let lying =
        pilotlight_cache::portable::Portable { key, expires_ms: None, is_pinned: false, group: None, sealed };
    let mut object = Vec::new();
    lying.to_frame().write(&mut object).unwrap();
    fleet.origin.place(&ObjectName::of(&graph()), object);
    let node = fleet.node();
    assert_eq!(node.bytes(&graph()).await, None);
    assert_eq!(node.count("quarantined"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_origin_in_any_trouble_costs_its_budget_at_most_then_nothing_and_comes_back_by_itself() {
    let say = |what: &str| what.to_owned();
    for trouble in [
        Trouble::Hang,
        Trouble::Delay(TIMEOUT * 3),
        Trouble::Fail(unreachable()),
        Trouble::Fail(OriginError::Throttled { what: say("SlowDown") }),
        Trouble::Fail(OriginError::Denied { what: say("InvalidAccessKeyId") }),
        Trouble::Fail(OriginError::Skewed { what: say("RequestTimeTooSkewed") }),
        Trouble::Fail(OriginError::NoBucket { what: say("NoSuchBucket") }),
        Trouble::Fail(OriginError::Failed { what: say("500") }),
    ] {
        let fleet = Fleet::new();
        let (one, node) = (fleet.node(), fleet.node());
        one.put(&graph(), "right").await;
        one.drained().await;
        fleet.origin.set_trouble(trouble.clone());
        node.put(&Key::new("local"), "here").await;
        for round in 0..10 {
            let began = Instant::now();
            let missed = node.tiers.get(&graph()).await;
            assert!(missed.is_err(), "an exception, which the controller makes a miss of");
            assert!(began.elapsed() <= TIMEOUT, "{trouble:?}: {:?}", began.elapsed());
            if round >= 3 {
                assert_eq!(began.elapsed(), Duration::ZERO, "{trouble:?}: not asked any more");
            }
            assert_eq!(node.memory.get(&Key::new("local")).await.unwrap().unwrap().tier, 0);
        }
        assert!(node.tiers.state().is_reading_paused && node.faults(OriginFault::Paused) >= 6, "{trouble:?}");
        // Long enough for pauses to have grown to their longest.
        tokio::time::sleep(LONG * 5).await;
        assert!(node.tiers.get(&graph()).await.is_err());
        fleet.origin.set_trouble(Trouble::None);
        let recovered = Instant::now();
        while node.tiers.state().is_reading_paused {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(recovered.elapsed() <= Duration::from_secs(33), "{trouble:?}: {:?}", recovered.elapsed());
        assert_eq!(node.bytes(&graph()).await.as_deref(), Some(&b"right"[..]), "{trouble:?}");
        node.drained().await;
        assert_eq!(
            fleet.node().bytes(&Key::new("local")).await.as_deref(),
            Some(&b"here"[..]),
            "{trouble:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_failure_is_retried_within_the_budget() {
    let fleet = Fleet::new();
    let (one, node) = (fleet.node(), fleet.node());
    one.put(&graph(), "right").await;
    one.drained().await;
    fleet.origin.set_trouble(Trouble::FailNext(2, OriginError::Throttled { what: "SlowDown".to_owned() }));
    assert!(node.get(&graph()).await.is_some());
    assert_eq!(node.count("retries"), 2);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_write_reads_all_the_same() {
    let fleet = Fleet::new();
    let (one, node) = (fleet.node(), fleet.node());
    one.put(&graph(), "right").await;
    one.drained().await;
    fleet.origin.set_trouble(Trouble::FailWrites(OriginError::Denied { what: "AccessDenied".to_owned() }));
    for number in 0..20 {
        node.put(&Key::new(format!("{number}")), "x").await;
    }
    tokio::time::sleep(LONG).await;
    assert!(node.tiers.state().is_writing_paused);
    assert!(!node.tiers.state().is_reading_paused);
    assert!(node.get(&graph()).await.is_some());
    fleet.origin.set_trouble(Trouble::None);
    node.drained().await;
    assert_eq!(fleet.origin.names().len(), 21);
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_does_not_come_back_also_while_the_origin_is_away() {
    let fleet = Fleet::new();
    let (one, node) = (fleet.node(), fleet.node());
    for trouble in [Trouble::None, Trouble::Fail(unreachable())] {
        fleet.origin.set_trouble(Trouble::None);
        one.put(&graph(), "old").await;
        one.drained().await;
        assert!(node.get(&graph()).await.is_some());
        fleet.origin.set_trouble(trouble);
        assert!(node.tiers.delete(&graph(), When::Always).await.unwrap());
        assert_eq!(node.bytes(&graph()).await, None);
        fleet.origin.set_trouble(Trouble::None);
        assert_eq!(node.bytes(&graph()).await, None, "it is in the queue still, or gone");
        node.drained().await;
        assert_eq!(node.bytes(&graph()).await, None);
        assert_eq!(fleet.origin.names(), []);
        assert!(one.tiers.delete(&graph(), When::Always).await.unwrap(), "other nodes' copies stay");
        one.drained().await;
    }
    // Not here, and there.
    one.put(&graph(), "old").await;
    one.drained().await;
    assert!(node.tiers.delete(&graph(), When::Always).await.unwrap());
    node.drained().await;
    assert_eq!(fleet.origin.names(), []);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_a_deletion_or_a_put_or_a_clearing_overtook_brings_nothing_back() {
    for how in ["delete", "put", "clear"] {
        let fleet = Fleet::new();
        let (one, node) = (fleet.node(), fleet.node());
        one.put(&graph(), "old").await;
        one.drained().await;
        fleet.origin.set_trouble(Trouble::Delay(Duration::from_secs(1)));
        let slow = tokio::spawn({
            let tiers = node.tiers.clone();
            async move { tiers.get(&graph()).await }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        let expected = match how {
            "delete" => {
                // Nothing is here, so it asks the origin first, as slowly.
                node.memory.put(&graph(), Entry::new("promoted"), When::Always).await.unwrap();
                assert!(node.tiers.delete(&graph(), When::Always).await.unwrap());
                None
            }
            "put" => {
                node.put(&graph(), "new").await;
                Some(&b"new"[..])
            }
            _ => {
                node.tiers.clear(&Namespace::default()).await.unwrap();
                None
            }
        };
        let slow =
            slow.await.unwrap().unwrap().map(|found| found.entry.artifact.verify().unwrap().into_bytes());
        assert_eq!(slow.as_deref(), expected, "{how}");
        assert_eq!(node.bytes(&graph()).await.as_deref(), expected, "{how}");
        node.drained().await;
        assert_eq!(fleet.node().bytes(&graph()).await.as_deref(), expected, "{how}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clearing_empties_the_namespace_at_the_origin_and_no_other() {
    let fleet = Fleet::new();
    let one = fleet.node_with(64 << 20, |options| TieredOptions { queue_max: 1200, ..options });
    let node = fleet.node();
    let other = Namespace::new("other").unwrap();
    // More than a listing shows at once, and more than the queue has room for while nothing leaves it.
    fleet.origin.set_trouble(Trouble::Hang);
    one.put(&Key::in_namespace(other.clone(), "k"), "x").await;
    for number in 0..1500 {
        one.put(&Key::new(format!("{number}")), "x").await;
    }
    fleet.origin.set_trouble(Trouble::None);
    one.drained().await;
    assert_eq!((fleet.origin.names().len(), one.count("dropped")), (1200, 301));
    fleet.origin.set_trouble(Trouble::Fail(unreachable()));
    assert_eq!(node.tiers.clear(&Namespace::default()).await.unwrap(), 0);
    assert_eq!(node.bytes(&Key::new("7")).await, None, "though the origin has it still");
    node.put(&Key::new("7"), "new").await;
    fleet.origin.set_trouble(Trouble::None);
    node.drained().await;
    let kept = [Key::new("7"), Key::in_namespace(other, "k")].map(|key| ObjectName::of(&key));
    let mut names = fleet.origin.names();
    names.sort_by_key(|name| *name != kept[0]);
    assert_eq!(names, kept);
    assert_eq!(fleet.node().bytes(&Key::new("7")).await.as_deref(), Some(&b"new"[..]));
}

#[tokio::test(start_paused = true)]
async fn what_is_replaced_over_time_is_looked_up_again_and_what_is_not_is_not() {
    let fleet = Fleet::new();
    let (one, node) = (fleet.node(), fleet.node());
    let variants = Key::new("pt2:fx-graph-v1::fabc:c1#v");
    for key in [graph(), variants.clone(), profile()] {
        one.put(&key, "old").await;
        one.drained().await;
        assert_eq!(node.bytes(&key).await.as_deref(), Some(&b"old"[..]));
        let asked = fleet.origin.asked().gets;
        fleet.clock.advance_ms(FRESH.as_millis() as u64);
        let is_looked_up = key != graph();
        assert!(node.get(&key).await.is_some());
        assert_eq!(fleet.origin.asked().gets - asked, u64::from(is_looked_up));
        assert_eq!(node.count("unchanged"), u64::from(is_looked_up) + u64::from(key == profile()));
        one.put(&key, "new").await;
        one.drained().await;
        assert_eq!(node.bytes(&key).await.as_deref(), Some(&b"old"[..]), "within the bound");
        fleet.clock.advance_ms(FRESH.as_millis() as u64);
        let expected = if is_looked_up { &b"new"[..] } else { &b"old"[..] };
        assert_eq!(node.bytes(&key).await.as_deref(), Some(expected));
    }
    // By way of a memory tier as well, which asks with a touch.
    let hot = Hot::new(node.tiers.clone(), 1 << 20);
    assert!(hot.get(&profile()).await.unwrap().is_some());
    one.put(&profile(), "newest").await;
    one.drained().await;
    fleet.clock.advance_ms(FRESH.as_millis() as u64);
    let found = hot.get(&profile()).await.unwrap().unwrap();
    assert_eq!(found.entry.artifact.verify().unwrap()[..], b"newest"[..]);
    // And an origin that cannot be asked makes no miss of what is here.
    fleet.clock.advance_ms(FRESH.as_millis() as u64);
    fleet.origin.set_trouble(Trouble::Hang);
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(node.bytes(&profile()).await.as_deref(), Some(&b"newest"[..]));
    }
    assert!(began.elapsed() <= TIMEOUT && node.count("stale") == 1);
}

#[tokio::test(start_paused = true)]
async fn a_put_that_is_not_sent_yet_is_not_replaced_by_what_the_origin_has() {
    let fleet = Fleet::new();
    let (one, node) = (fleet.node(), fleet.node());
    one.put(&profile(), "theirs").await;
    one.drained().await;
    fleet.origin.set_trouble(Trouble::FailWrites(unreachable()));
    node.put(&profile(), "mine").await;
    fleet.clock.advance_ms(10 * FRESH.as_millis() as u64);
    assert_eq!(node.bytes(&profile()).await.as_deref(), Some(&b"mine"[..]));
    fleet.origin.set_trouble(Trouble::None);
    node.drained().await;
    fleet.clock.advance_ms(10 * FRESH.as_millis() as u64);
    assert_eq!(one.bytes(&profile()).await.as_deref(), Some(&b"mine"[..]), "the last one wins");
}

#[tokio::test(start_paused = true)]
async fn who_puts_first_wins_across_nodes_where_the_origin_offers_that() {
    let fleet = Fleet::new();
    let (one, node) = (fleet.node(), fleet.node());
    let first = |node: &Node, bytes: &'static str| {
        let tiers = node.tiers.clone();
        async move { tiers.put(&graph(), Entry::new(bytes), When::Absent).await.unwrap() }
    };
    assert!(matches!(first(&one, "one").await, Put::Stored(_)));
    one.drained().await;
    assert_eq!(first(&node, "other").await, Put::Unmet, "the origin has it");
    // At the same moment: both think they are the first.
    let fleet = Fleet::new();
    let (one, node) = (fleet.node(), fleet.node());
    fleet.origin.set_trouble(Trouble::FailWrites(unreachable()));
    assert!(matches!(first(&one, "one").await, Put::Stored(_)));
    assert!(matches!(first(&node, "other").await, Put::Stored(_)));
    fleet.origin.set_trouble(Trouble::None);
    one.drained().await;
    node.drained().await;
    assert_eq!(one.count("taken") + node.count("taken"), 1);
    // Where that is not offered, the last one wins and nothing fails.
    let clock = Arc::new(ManualClock::at(START_MS));
    let origin = Arc::new(MemoryOrigin::new(clock.clone()).without_first_puts());
    let fleet = Fleet { clock, origin };
    let one = fleet.node();
    assert!(matches!(first(&one, "one").await, Put::Stored(_)));
    one.drained().await;
    assert_eq!(fleet.node().bytes(&graph()).await.as_deref(), Some(&b"one"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_put_fails_when_the_policy_says_so() {
    let dead = Trouble::Fail(unreachable());
    for (write, on_error, is_full, is_dead, is_stored) in [
        (Write::Behind, OnError::FailTier, false, true, true),
        (Write::Behind, OnError::FailTier, true, false, false),
        (Write::Behind, OnError::Ignore, true, false, true),
        (Write::Behind, OnError::Ignore, true, true, false),
        (Write::Through, OnError::FailTier, false, true, true),
        (Write::Through, OnError::All, false, true, false),
        (Write::Through, OnError::All, false, false, true),
        (Write::Through, OnError::Ignore, false, true, true),
    ] {
        let what = format!("{write:?} {on_error:?} full {is_full} dead {is_dead}");
        let fleet = Fleet::new();
        let bytes = if is_full { 1 } else { 64 << 20 };
        let node = fleet.node_with(bytes, |options| TieredOptions { write, on_error, ..options });
        if is_dead {
            fleet.origin.set_trouble(dead.clone());
        }
        let put = node.tiers.put(&graph(), Entry::new("artifact"), When::Always).await;
        assert_eq!(matches!(put, Ok(Put::Stored(_))), is_stored, "{what}: {put:?}");
        if let Err(error) = put {
            let expected = if is_full { ErrorKind::Full } else { ErrorKind::Unavailable };
            assert_eq!(error.kind(), expected, "{what}");
        }
        if is_stored {
            assert_eq!(node.bytes(&graph()).await.as_deref(), Some(&b"artifact"[..]), "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_only_origin_is_never_written_to() {
    let fleet = Fleet::new();
    let one = fleet.node();
    one.put(&graph(), "right").await;
    one.drained().await;
    let asked = fleet.origin.asked();
    let reader = fleet.node_with(64 << 20, |options| TieredOptions {
        is_read_only: true,
        keep: Some(Duration::from_secs(1)),
        ..options
    });
    fleet.clock.advance_ms(DAY.as_millis() as u64);
    assert!(reader.get(&graph()).await.is_some());
    reader.put(&Key::new("k"), "x").await;
    assert!(reader.tiers.delete(&Key::new("k"), When::Always).await.unwrap());
    reader.tiers.clear(&Namespace::default()).await.unwrap();
    fleet.origin.place(&ObjectName::of(&Key::new("bad")), "damaged");
    assert_eq!(reader.bytes(&Key::new("bad")).await, None);
    tokio::time::sleep(LONG).await;
    let now = fleet.origin.asked();
    assert_eq!((now.puts, now.deletes, now.lists), (asked.puts, asked.deletes, asked.lists));
    assert!(reader.tiers.to_string().contains("read-only"), "{}", reader.tiers);
}

#[tokio::test(start_paused = true)]
async fn a_restart_sends_what_was_not_sent_and_deletes_what_was_not_deleted() {
    let fleet = Fleet::new();
    let dir = tempfile::tempdir().unwrap();
    let memory = Arc::new(MemoryBackend::with_clock(64 << 20, fleet.clock.clone()));
    let durable = |options| TieredOptions { queue_dir: Some(dir.path().to_owned()), ..options };
    let before = fleet.over(memory.clone(), durable);
    before.put(&Key::new("deleted"), "x").await;
    before.drained().await;
    fleet.origin.set_trouble(Trouble::Hang);
    before.put(&graph(), "right").await;
    before.tiers.stage(&Key::new("staged"), Entry::new("x"), When::Always).await.unwrap();
    before.tiers.settle_many(&[]).await;
    assert!(before.tiers.delete(&Key::new("deleted"), When::Always).await.unwrap());
    assert!(!before.tiers.drain(Duration::from_secs(1)).await, "it hangs");
    assert_eq!(before.tiers.state().queued, 3);
    // As a kill would: nothing is told.
    drop(before);
    let after = fleet.over(memory, durable);
    assert_eq!(after.tiers.state().queued, 3);
    assert_eq!(after.bytes(&Key::new("deleted")).await, None, "though the origin has it, and hangs");
    fleet.origin.set_trouble(Trouble::None);
    after.drained().await;
    let mut expected = [graph(), Key::new("staged")].map(|key| ObjectName::of(&key));
    expected.sort();
    assert_eq!(fleet.origin.names(), expected);
}

#[tokio::test(start_paused = true)]
async fn an_object_in_use_that_grows_old_is_put_again_at_most_once_a_day() {
    let fleet = Fleet::new();
    let keeping = |options| TieredOptions { keep: Some(7 * DAY), ..options };
    let node = fleet.node_with(64 << 20, keeping);
    node.put(&graph(), "right").await;
    node.drained().await;
    let name = ObjectName::of(&graph());
    let days = |count: u32| fleet.clock.advance_ms((DAY * count).as_millis() as u64);
    days(6);
    for _ in 0..10 {
        node.get(&graph()).await.unwrap();
    }
    node.drained().await;
    assert_eq!((fleet.origin.asked().heads, node.count("kept")), (1, 0), "looked at, and young");
    days(1);
    node.tiers.touch(&graph()).await.unwrap().unwrap();
    node.drained().await;
    assert_eq!(node.count("kept"), 1);
    let about = fleet.origin.head(&name).await.unwrap().unwrap();
    assert_eq!(about.modified_ms, START_MS + (7 * DAY).as_millis() as u64);
    // One that a rule deleted nevertheless is put again as well.
    fleet.origin.delete(&name).await.unwrap();
    days(1);
    node.get(&graph()).await.unwrap();
    node.drained().await;
    assert_eq!(fleet.origin.names(), [name]);
}

#[tokio::test(start_paused = true)]
async fn a_miss_is_remembered_only_if_asked_for_briefly_and_never_above_a_put_of_this_node() {
    let fleet = Fleet::new();
    let miss = Duration::from_secs(1);
    let node = fleet.node_with(64 << 20, |options| TieredOptions { miss, ..options });
    for _ in 0..3 {
        assert_eq!(node.bytes(&graph()).await, None);
    }
    assert_eq!((fleet.origin.asked().gets, node.count("spared")), (1, 2));
    fleet.clock.advance_ms(1000);
    assert_eq!(node.bytes(&graph()).await, None);
    assert_eq!(fleet.origin.asked().gets, 2);
    node.put(&graph(), "right").await;
    node.drained().await;
    // As if it had been evicted.
    node.memory.delete(&graph(), When::Always).await.unwrap();
    assert!(node.get(&graph()).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_has_no_room_for_is_served_all_the_same() {
    let fleet = Fleet::new();
    let one = fleet.node();
    one.put(&graph(), "right").await;
    one.drained().await;
    let full = fleet.node_with(1, |options| options);
    assert_eq!(full.bytes(&graph()).await.as_deref(), Some(&b"right"[..]));
    assert_eq!((full.count("hits"), full.count("unpromoted")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_damaged_on_the_disk_is_healed_from_the_origin() {
    let fleet = Fleet::new();
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(&dir, fleet.clock.clone());
    let tiers = Tiered::start(disk.clone(), disk.clone(), fleet.origin.clone(), options(fleet.clock.clone()))
        .unwrap();
    // Longer than what lies in the log: a file that can be written over.
    let artifact: Vec<u8> =
        (0..100_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    tiers.put(&graph(), Entry::new(artifact.clone()), When::Always).await.unwrap();
    assert!(tiers.drain(LONG).await);
    let blobs = std::fs::read_dir(dir.path().join("store/blobs")).unwrap();
    for blob in blobs {
        let path = blob.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[50_000] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    disk.peek(&graph()).await.unwrap_err();
    let found = tiers.get(&graph()).await.unwrap().unwrap();
    assert_eq!(found.entry.artifact.verify().unwrap()[..], artifact[..]);
    assert!(disk.get(&graph()).await.unwrap().is_some(), "promoted");
}
