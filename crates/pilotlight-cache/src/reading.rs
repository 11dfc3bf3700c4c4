//! Where a lookup goes on that misses in its own namespace.

use crate::{Backend, Found, Key, Kind, Namespace, Result};

/// The namespaces that a lookup looks into next, by kind and in order. They are only ever read: a put goes into the key's own.
///
/// It is part of a lookup ([`crate::Cache::get_many_through`]) and no layer: what reads an entry to change it must see its own
/// namespace alone, or it would change, under that version, what is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadThrough {
    next: [Box<[Namespace]>; Kind::ALL.len()],
}

impl ReadThrough {
    /// Goes on in what `next` says of each kind; `None` if that is nowhere.
    pub fn new(next: impl Fn(Kind) -> Vec<Namespace>) -> Option<Self> {
        let next = Kind::ALL.map(|kind| next(kind).into_boxed_slice());
        next.iter().any(|of_kind| !of_kind.is_empty()).then_some(Self { next })
    }

    /// Looks for what is missing in `answers`, which `backend` gave for `keys`, and says under which other key each was found.
    pub(crate) async fn go_on(
        &self,
        backend: &dyn Backend,
        keys: &[Key],
        answers: &mut [Result<Option<Found>>],
    ) -> Vec<Option<Key>> {
        let mut elsewhere: Vec<Option<Key>> = vec![None; keys.len()];
        for tried in 0.. {
            let missing = keys.iter().zip(answers.iter_mut()).zip(&mut elsewhere);
            let missing = missing.filter(|((_, answer), _)| matches!(answer, Ok(None)));
            let (further, places): (Vec<Key>, Vec<_>) = missing
                .filter_map(|((key, answer), place)| Some((self.next(key, tried)?, (answer, place))))
                .unzip();
            if further.is_empty() {
                break;
            }
            let found = backend.get_many(&further).await;
            for ((key, found), (answer, place)) in further.into_iter().zip(found).zip(places) {
                (*answer, *place) = (found, Some(key));
            }
        }
        elsewhere
    }

    /// Where the lookup of `key` goes on after `tried` of them.
    pub(crate) fn next(&self, key: &Key, tried: usize) -> Option<Key> {
        let namespace = self.next.get(key.kind() as usize)?.get(tried)?;
        Some(Key::in_namespace(namespace.clone(), key.bytes().clone()))
    }
}
