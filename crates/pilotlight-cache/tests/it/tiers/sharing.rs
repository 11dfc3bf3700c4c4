//! What nodes share by way of an origin, and what they see late.

use super::*;

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
