use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use pilotlight_cache::portable::Portable;
use pilotlight_cache::{
    Backend, Conflict, Cursor, DiskBackend, DiskOptions, Durability, Entry, Imported, Inline, Key,
    Maintenance, ManualClock, Namespace, When,
};

fn open(dir: &Path) -> Arc<DiskBackend> {
    let options = DiskOptions {
        dir: dir.to_owned(),
        max_bytes: 256 << 20,
        durability: Durability::Relaxed,
        clock: Arc::new(ManualClock::at(1_700_000_000_000)),
        blocking: Arc::new(Inline),
        signers: None,
    };
    DiskBackend::open(options).unwrap()
}

const KEYS: [&str; 3] = ["pt2:autograd-experimental::a:c1", "pt2:fx-graph-v1::f:c1", "other"];

fn keys(namespace: &Namespace) -> Vec<Key> {
    KEYS.into_iter().map(|key| Key::in_namespace(namespace.clone(), key)).collect()
}

async fn put(disk: &DiskBackend, key: &Key) {
    let line = |i: u64| {
        format!(
            "    buf{i} = extern_kernels.mm(primals_{}, {:x})\n",
            i % 97,
            i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
        )
    };
    let artifact: String = (0..2000).map(line).collect();
    disk.put(key, Entry::new(artifact.into_bytes()), When::Always).await.unwrap();
}

async fn groups(disk: &DiskBackend, keys: &[Key]) -> Vec<Option<u32>> {
    let mut groups = Vec::new();
    for key in keys {
        groups.push(disk.head(key).await.unwrap().unwrap().group.map(std::num::NonZeroU32::get));
    }
    groups
}

fn exported(disk: &DiskBackend, namespace: &Namespace) -> Vec<Portable> {
    let mut exported = Vec::new();
    let mut each = |portable: &Portable| {
        // As it goes through a file.
        exported.push(Portable::of_frame(&portable.to_frame()).unwrap());
        ControlFlow::Continue(())
    };
    disk.export_page(namespace, Cursor::START, 100, &|_, _| true, &mut each).unwrap();
    exported
}

#[tokio::test]
async fn a_group_is_exported_and_imported_and_outlives_recompression() {
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (disk, other) = (open(dir.path()), open(other_dir.path()));
    for namespace in [Namespace::default(), Namespace::new("team").unwrap()] {
        let keys = keys(&namespace);
        for key in &keys {
            put(&disk, key).await;
        }
        let triton = Key::in_namespace(namespace.clone(), "triton:abc:k.cubin");
        put(&disk, &triton).await;
        assert_eq!(groups(&disk, &keys).await, [None; 3]);
        assert_eq!(disk.group(&keys[0], &keys[1..]).unwrap(), 3);
        let group = groups(&disk, &keys).await;
        assert!(group[0].is_some() && group.iter().all(|member| *member == group[0]), "{group:?}");
        let report = disk.recompress(u64::MAX, &mut |_| ControlFlow::Continue(())).unwrap();
        assert!(report.entries_rewritten > 0, "{report:?}");
        assert_eq!(groups(&disk, &keys).await, group);

        let portables = exported(&disk, &namespace);
        let of_triton = portables.iter().find(|portable| portable.key == triton).unwrap();
        assert_eq!(of_triton.group, None, "its key tells");
        // One is there already, as it is in the file.
        put(&other, &keys[1]).await;
        for portable in &portables {
            let expected = if portable.key == keys[1] { Imported::Unchanged } else { Imported::New };
            assert_eq!(other.import(portable, Conflict::Replace).unwrap(), expected);
        }
        assert_eq!(groups(&other, &keys).await, group);
        let triton = std::slice::from_ref(&triton);
        assert_eq!(groups(&other, triton).await, groups(&disk, triton).await);
    }
}

#[tokio::test]
async fn keys_of_another_namespace_are_no_part_of_a_group() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path());
    let (ours, theirs) = (keys(&Namespace::default()), keys(&Namespace::new("team").unwrap()));
    for key in ours.iter().chain(&theirs) {
        put(&disk, key).await;
    }
    assert_eq!(disk.group(&ours[0], &[ours[1].clone(), theirs[2].clone()]).unwrap(), 2);
    assert_eq!(groups(&disk, &theirs).await, [None; 3]);
    assert_eq!(groups(&disk, &ours[2..]).await, [None]);
}

#[tokio::test]
async fn what_two_groups_need_is_exported_as_such() {
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (disk, other) = (open(dir.path()), open(other_dir.path()));
    let keys = keys(&Namespace::default());
    for key in &keys {
        put(&disk, key).await;
    }
    disk.group(&keys[0], &keys[2..]).unwrap();
    disk.group(&keys[1], &keys[2..]).unwrap();
    assert_eq!(groups(&disk, &keys[2..]).await, [None]);
    for portable in exported(&disk, &Namespace::default()) {
        other.import(&portable, Conflict::Replace).unwrap();
    }
    // It joins neither.
    assert_eq!(other.group(&keys[0], &keys[2..]).unwrap(), 1);
}
