//! An origin, or a disk in front of it, that is damaged, away, slow, full or forbidden.

use super::*;

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
