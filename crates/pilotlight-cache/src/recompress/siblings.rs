//! The entries that others can be stored against, and which of them look like one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::sketch::Sketch;
use crate::envelope::{Sealed, read_stored};
use crate::{Digest, Key, Kind, Result};

/// Siblings that are remembered, 300 bytes each; then the oldest are forgotten.
pub(super) const SIBLINGS_MAX: usize = 16 << 10;

/// Who may be stored against whom: entries of one space, kind and producer, which for graphs is the version of torch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Class {
    space: Bytes,
    kind: Kind,
    /// None is known of what stock clients put.
    producer: Option<Arc<str>>,
}

impl Class {
    pub(super) fn of(space: &[u8], key: &Key, sealed: &Sealed) -> Result<Self> {
        let details = read_stored(sealed, None)?.metadata.details;
        let producer = details.and_then(|details| details.producer.as_deref().map(Arc::from));
        Ok(Self { space: Bytes::copy_from_slice(space), kind: key.kind(), producer })
    }
}

/// An entry that others can be stored against.
#[derive(Debug, Clone)]
pub(super) struct Sibling {
    pub(super) key: Bytes,
    pub(super) version: u64,
    /// Of its artifact.
    pub(super) digest: Digest,
    pub(super) sketch: Sketch,
}

/// All of them that are remembered.
#[derive(Debug, Default)]
pub(super) struct Siblings {
    by_class: HashMap<Class, Vec<Sibling>>,
    /// In the order they came, by class and version.
    order: VecDeque<(Class, u64)>,
}

impl Siblings {
    pub(super) fn add(&mut self, class: Class, sibling: Sibling) {
        let of_class = self.by_class.entry(class.clone()).or_default();
        if of_class.iter().any(|other| other.version == sibling.version) {
            return;
        }
        self.order.push_back((class, sibling.version));
        of_class.push(sibling);
        if self.order.len() > SIBLINGS_MAX
            && let Some((class, version)) = self.order.pop_front()
        {
            self.forget(&class, version);
        }
    }

    /// One that is not what it was any longer. Its place in the order goes with time.
    pub(super) fn remove(&mut self, class: &Class, sibling: &Sibling) {
        self.forget(class, sibling.version);
    }

    fn forget(&mut self, class: &Class, version: u64) {
        if let Some(of_class) = self.by_class.get_mut(class) {
            of_class.retain(|sibling| sibling.version != version);
            if of_class.is_empty() {
                self.by_class.remove(class);
            }
        }
    }

    /// Those that look most like it, best first: one that has nothing in common is no help.
    pub(super) fn like(&self, class: &Class, sketch: &Sketch, key: &[u8], count: usize) -> Vec<Sibling> {
        let of_class = self.by_class.get(class).map(Vec::as_slice).unwrap_or_default();
        let mut found: Vec<(usize, &Sibling)> = of_class
            .iter()
            .filter(|sibling| sibling.key != key)
            .map(|sibling| (sketch.in_common(&sibling.sketch), sibling))
            .filter(|(in_common, _)| *in_common > 0)
            .collect();
        found.sort_by_key(|(in_common, sibling)| (std::cmp::Reverse(*in_common), sibling.version));
        found.into_iter().take(count).map(|(_, sibling)| sibling.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(producer: &str) -> Class {
        Class { space: Bytes::new(), kind: Kind::FxGraph, producer: Some(producer.into()) }
    }

    fn sibling(version: u64, artifact: &[u8]) -> Sibling {
        let key = version.to_le_bytes().to_vec().into();
        Sibling { key, version, digest: Digest::of(artifact), sketch: Sketch::of(artifact) }
    }

    fn text(number: u64) -> Vec<u8> {
        (0..3000)
            .map(|i| format!("line {} of text {number}\n", i * (number + 1)))
            .collect::<String>()
            .into_bytes()
    }

    #[test]
    fn the_sibling_that_is_most_alike_is_found_among_those_of_its_class() {
        let mut siblings = Siblings::default();
        for number in 0..50 {
            siblings.add(class("torch 2.15"), sibling(number, &text(number)));
            siblings.add(class("torch 2.14"), sibling(100 + number, &text(number)));
        }
        for number in [0, 7, 49] {
            let mut edited = text(number);
            edited.splice(5000..5010, *b"something else");
            let found = siblings.like(&class("torch 2.15"), &Sketch::of(&edited), b"", 2);
            assert_eq!(found.first().map(|sibling| sibling.version), Some(number));
        }
        assert!(siblings.like(&class("torch 2.13"), &Sketch::of(&text(1)), b"", 2).is_empty());
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let mut siblings = Siblings::default();
        let sketch = Sketch::of(&text(1));
        let total = SIBLINGS_MAX as u64 + 1000;
        for version in 0..total {
            let key = version.to_le_bytes().to_vec().into();
            let class = class(&format!("torch {}", version % 7));
            siblings.add(class, Sibling { key, version, digest: Digest::of(b""), sketch: sketch.clone() });
        }
        assert_eq!(siblings.by_class.values().map(Vec::len).sum::<usize>(), SIBLINGS_MAX);
        let versions = |class: &Class| siblings.by_class[class].iter().map(|sibling| sibling.version).min();
        assert!((0..7).all(|number| versions(&class(&format!("torch {number}"))) >= Some(1000)));
    }
}
