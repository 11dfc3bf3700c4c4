//! Lookups that go on in other namespaces.

use std::sync::Arc;

use pilotlight_cache::{
    BackendExt, Cache, Entry, Key, Kind, MemoryBackend, Namespace, Outcome, ReadThrough, When,
};

const GRAPH: &str = "pt2:fx-graph-v1::f:c1";
const KERNEL: &str = "cpp-kernel:k";

fn space(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

/// From `mine`, graphs are looked for in `first`, then in `second`; nothing else is.
fn through() -> ReadThrough {
    let next = |kind| if kind == Kind::FxGraph { vec![space("first"), space("second")] } else { Vec::new() };
    ReadThrough::new(next).unwrap()
}

async fn cache(entries: &[(&str, &str, &'static str)]) -> Cache {
    let cache = Cache::new(Arc::new(MemoryBackend::new(1 << 20)));
    for (namespace, key, artifact) in entries {
        let key = Key::in_namespace(space(namespace), key.to_string());
        cache.backend().put(&key, Entry::new(*artifact), When::Always).await.unwrap();
    }
    cache
}

/// What a lookup from `mine` finds, in both forms.
async fn look(cache: &Cache, keys: &[&str]) -> Vec<Option<Vec<u8>>> {
    let keys: Vec<Key> = keys.iter().map(|key| Key::in_namespace(space("mine"), key.to_string())).collect();
    let through = through();
    let found = cache.get_many_through(&keys, Some(&through)).await;
    let plain: Vec<_> =
        found.into_iter().map(|found| found.unwrap().map(|found| found.entry.artifact.to_vec())).collect();
    let found = cache.get_many_packed(&keys, Some(&through)).await;
    let packed: Vec<_> = found
        .into_iter()
        .map(|found| found.unwrap().map(|found| found.entry.artifact.verify().unwrap().to_vec()))
        .collect();
    assert_eq!(plain, packed);
    plain
}

fn text(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

#[tokio::test]
async fn a_miss_goes_on_in_order_and_for_its_kind_alone() {
    let other = "pt2:fx-graph-v1::g:c1";
    let cache = cache(&[
        ("second", GRAPH, "second's"),
        ("first", other, "first's"),
        ("second", other, "hidden"),
        ("first", KERNEL, "not a graph"),
        ("third", "pt2:fx-graph-v1::h:c1", "not listed"),
    ])
    .await;
    let found = look(&cache, &[GRAPH, KERNEL, other, "pt2:fx-graph-v1::h:c1", GRAPH]).await;
    assert_eq!(found, [text("second's"), None, text("first's"), None, text("second's")]);
    // Once a lookup, wherever it ended, in each of the two forms.
    let counted = cache.stats().snapshot();
    assert_eq!(counted.cache[Kind::FxGraph as usize][Outcome::Hit as usize], 6);
    assert_eq!(counted.cache[Kind::FxGraph as usize][Outcome::Miss as usize], 2);
    assert_eq!(counted.backend[Outcome::Hit as usize], 6);
}

#[tokio::test]
async fn what_is_there_hides_what_is_elsewhere_and_a_put_stays_here() {
    let cache = cache(&[("first", GRAPH, "theirs")]).await;
    let mine = Key::in_namespace(space("mine"), GRAPH);
    cache.put(&mine, Entry::new("mine"), When::Absent).await.unwrap();
    assert_eq!(look(&cache, &[GRAPH]).await, [text("mine")]);
    let theirs = Key::in_namespace(space("first"), GRAPH);
    let kept = cache.backend().get(&theirs).await.unwrap().unwrap();
    assert_eq!(&*kept.entry.artifact.verify().unwrap(), b"theirs");
    assert_eq!(cache.head_through(&mine, Some(&through())).await.unwrap().unwrap().artifact_len, 4);
    assert!(cache.backend().delete(&mine, When::Always).await.unwrap());
    assert_eq!(look(&cache, &[GRAPH]).await, [text("theirs")]);
    assert_eq!(cache.head_through(&mine, Some(&through())).await.unwrap().unwrap().artifact_len, 6);
    // No other operation looks there.
    assert!(cache.head(&mine).await.unwrap().is_none());
    assert!(cache.peek(&mine).await.unwrap().is_none());
    assert!(!cache.delete(&mine, When::Always).await.unwrap());
}

#[test]
fn nowhere_to_go_on_is_no_way_through() {
    assert_eq!(ReadThrough::new(|_| Vec::new()), None);
}
