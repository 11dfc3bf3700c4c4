use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use base64_simd::STANDARD;
use pilotlight_cache::{
    Backend, BackendExt, Cache, DiskBackend, DiskOptions, Durability, Entry, Error, Found, Hot, Inline, Key,
    Maintenance, ManualClock, Namespace, RecompressReport, When, envelope,
};

const NOW_MS: u64 = 1_700_000_000_000;

fn open(dir: &Path) -> Arc<DiskBackend> {
    open_bounded(dir, 256 << 20)
}

fn open_bounded(dir: &Path, max_bytes: u64) -> Arc<DiskBackend> {
    let options = DiskOptions {
        dir: dir.to_owned(),
        max_bytes,
        durability: Durability::Relaxed,
        clock: Arc::new(ManualClock::at(NOW_MS)),
        blocking: Arc::new(Inline),
        signers: None,
    };
    DiskBackend::open(options).unwrap()
}

/// What stock PyTorch puts of a graph: recompiles of one `model` differ in their `number`.
fn torch_json(model: u64, number: u64, lines: u64) -> Vec<u8> {
    let line = |i: u64| {
        let mixed = (i + 1).wrapping_mul(model.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1) >> 40;
        format!("    buf{i} = extern_kernels.mm(primals_{}, {mixed:x})\n", mixed % 97)
    };
    let mut graph: String = (0..lines).map(line).collect();
    graph.insert_str(graph.len() / 2, &format!("# compiled in /tmp/torchinductor_{number}\n"));
    format!("{{\"data\": \"{}\", \"time_taken_ms\": 1234}}", STANDARD.encode_to_string(&graph)).into_bytes()
}

fn graph_key(model: u64, number: u64) -> Key {
    Key::new(format!("pt2:fx-graph-v1::f{model:08}{number:044}:c1"))
}

async fn put(backend: &dyn Backend, key: &Key, value: &[u8]) {
    backend.put(key, Entry::new(value.to_vec()), When::Always).await.unwrap();
}

async fn get(backend: &dyn Backend, key: &Key) -> Option<Vec<u8>> {
    let found = backend.get(key).await.unwrap()?;
    Some(found.entry.artifact.verify().unwrap().into_bytes().to_vec())
}

fn recompress(disk: &DiskBackend) -> RecompressReport {
    disk.recompress(NOW_MS + 1, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// Bytes that entries take, without rounding.
async fn stored(disk: &DiskBackend) -> u64 {
    disk.usage(Some(&Namespace::default())).await.unwrap().stored_bytes
}

#[tokio::test]
async fn ten_recompiles_of_one_model_take_little_more_than_one_and_read_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = open(dir.path());
    let mut entries = Vec::new();
    // A model of three graphs.
    for (graph, lines) in [(1, 3000), (2, 6000), (3, 1000)] {
        for number in 0..10 {
            let value = torch_json(graph, number, lines);
            put(&*disk, &graph_key(graph, number), &value).await;
            entries.push((graph_key(graph, number), value));
        }
    }
    let logical: u64 = entries.iter().map(|(_, value)| value.len() as u64).sum();
    let before = stored(&disk).await;
    let report = recompress(&disk);
    assert_eq!((report.entries_read, report.entries_rewritten, report.deltas), (30, 30, 27));
    let after = stored(&disk).await;
    assert!(after * 6 < before && after * 40 < logical, "{before} to {after} of {logical}");
    // But for the reference that takes the place of a base's payload in its record.
    assert!((before - after..before - after + 3 * 40).contains(&report.bytes_saved));
    let usage = disk.usage(None).await.unwrap();
    assert_eq!((usage.recompressed, usage.recompressed_bytes, usage.deltas), (30, report.bytes_saved, 27));
    for _ in 0..2 {
        for (key, value) in &entries {
            assert_eq!(get(&*disk, key).await.as_ref(), Some(value));
        }
        assert_eq!(disk.verify(&mut |_| ControlFlow::Continue(())).unwrap().damaged, []);
        drop(disk);
        disk = open(dir.path());
    }
    // What was done is not done again.
    assert_eq!(recompress(&disk).entries_rewritten, 0);
    assert_eq!(recompress(&disk).entries_read, 0);
    // And what comes later finds its sibling.
    let value = torch_json(2, 77, 6000);
    put(&*disk, &graph_key(2, 77), &value).await;
    assert_eq!(recompress(&disk).deltas, 1);
    assert_eq!(get(&*disk, &graph_key(2, 77)).await, Some(value));
}

#[tokio::test]
async fn recompressing_changes_neither_version_nor_metadata_nor_what_clients_of_ours_are_sent() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path());
    let hot: Arc<dyn Backend> = Arc::new(Hot::new(disk.clone(), 1 << 26));
    let cache = Cache::new(Arc::clone(&hot)).with_blocking(Arc::new(Inline));
    let keys = [graph_key(1, 1), graph_key(1, 2)];
    for (number, key) in (1..).zip(&keys) {
        let mut entry = Entry::new(torch_json(1, number, 3000)).expiring_at(Some(NOW_MS * 2));
        entry.metadata.compile_ms = 77;
        cache.put(key, entry, When::Always).await.unwrap();
    }
    let sent = |found: Found| {
        let sealed = envelope::seal(&found.entry).unwrap();
        envelope::open_bare(&envelope::Sealed::from_whole(sealed.to_whole()).unwrap(), u64::MAX).unwrap()
    };
    let mut before = Vec::new();
    for key in &keys {
        let found = disk.get(key).await.unwrap().unwrap();
        before.push((found.version, found.entry.metadata.clone(), sent(found)));
    }
    let report = recompress(&disk);
    assert_eq!((report.entries_rewritten, report.deltas), (2, 1));
    for _ in 0..2 {
        let answers = cache.get_many_packed(&keys, None).await;
        for (answer, (version, metadata, bare)) in answers.into_iter().zip(&before) {
            let found = answer.unwrap().unwrap();
            assert_eq!((&found.version, &found.entry.metadata), (version, metadata));
            assert!(found.entry.artifact.is_portable());
            assert_eq!(&sent(found), bare);
        }
    }
}

#[tokio::test]
async fn only_entries_of_one_kind_namespace_and_producer_are_stored_against_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path());
    let value = |number| torch_json(1, number, 3000);
    let other = Namespace::new("other").unwrap();
    let keys = [
        graph_key(1, 1),
        Key::in_namespace(other, graph_key(1, 2).bytes().clone()),
        Key::new("pt2:autograd-experimental::a1:c1"),
        Key::new("some other key"),
    ];
    for (number, key) in (1..).zip(&keys) {
        put(&*disk, key, &value(number)).await;
    }
    for producer in ["torch 2.14", "torch 2.15"] {
        let mut entry = Entry::new(value(9));
        let details = pilotlight_cache::Details { producer: Some(producer.to_owned()), ..Default::default() };
        entry.metadata.details = Some(details.into());
        disk.put(&Key::new(format!("pt2:fx-graph-v1::{producer}:c1")), entry, When::Always).await.unwrap();
    }
    assert_eq!(recompress(&disk).deltas, 0);
    put(&*disk, &graph_key(1, 5), &value(5)).await;
    assert_eq!(recompress(&disk).deltas, 1);
}

#[tokio::test]
async fn what_is_in_use_or_does_not_compress_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path());
    put(&*disk, &graph_key(1, 1), &torch_json(1, 1, 3000)).await;
    let in_use = disk.recompress(NOW_MS, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(in_use, RecompressReport::default());
    let noise: Vec<u8> =
        (0..200_000u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    put(&*disk, &Key::new("noise"), &noise).await;
    put(&*disk, &Key::new("short"), b"short").await;
    let report = recompress(&disk);
    assert_eq!((report.entries_read, report.entries_rewritten), (2, 1));
    assert_eq!(recompress(&disk).entries_read, 0, "nothing is tried twice");
    assert_eq!(get(&*disk, &Key::new("noise")).await, Some(noise));
}

#[tokio::test]
async fn nothing_is_read_and_compressed_that_there_is_no_room_for() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open_bounded(dir.path(), 32 << 20);
    // Does not compress: 11 MiB. Two of them must leave what is kept free ahead of need, else one leaves at the next tick.
    let noise = |mut state: u64| -> Vec<u8> {
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        });
        words.take(11 << 17).flat_map(u64::to_le_bytes).collect()
    };
    for number in [1, 2] {
        put(&*disk, &graph_key(1, number), &noise(number)).await;
    }
    assert_eq!(recompress(&disk).entries_read, 0, "each takes more than the other leaves");
    assert!(disk.delete(&graph_key(1, 1), When::Always).await.unwrap());
    assert_eq!(recompress(&disk).entries_read, 1);
}

#[tokio::test]
async fn a_run_ends_when_it_is_told_to_and_goes_on_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path());
    for number in 0..5 {
        put(&*disk, &graph_key(1, number), &torch_json(1, number, 1000)).await;
    }
    let report = disk.recompress(NOW_MS + 1, &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!(report.entries_rewritten, 1);
    assert_eq!(recompress(&disk).deltas, 4);
}

#[tokio::test]
async fn an_entry_whose_base_is_damaged_is_one_error_and_then_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path());
    for number in 0..3 {
        put(&*disk, &graph_key(1, number), &torch_json(1, number, 3000)).await;
    }
    assert_eq!(recompress(&disk).deltas, 2);
    let [file] = &std::fs::read_dir(dir.path().join("blobs")).unwrap().collect::<Vec<_>>()[..] else {
        panic!("one file")
    };
    let path = file.as_ref().unwrap().path();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    for number in 0..3 {
        let first = disk.get(&graph_key(1, number)).await;
        assert!(matches!(first, Err(Error::Corrupt { .. }) | Ok(None)), "{first:?}");
        assert!(disk.get(&graph_key(1, number)).await.unwrap().is_none());
    }
}
