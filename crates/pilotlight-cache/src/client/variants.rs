//! Several entries under one key, kept with plain gets and puts so that any engine will do.
//!
//! Under `key` stands the newest variant, where stock clients find it; under `key#v` the table of all of them; under
//! `key#v<16 hex digits>` those that had to give way. Two writers at once may lose a variant. They cannot make a wrong
//! answer: each entry says itself which variant it is and what it fits.

use bytes::Bytes;

use crate::key::VARIANTS_SUFFIX;

/// A variant, and what must match for it to be of use; on any host if none.
pub(super) type Listed = (u64, Option<[u8; 32]>);

/// How many variants a key has at most, the newest included.
pub(super) const VARIANTS_MAX: usize = 16;
const MAGIC: &[u8] = b"PLvt\x01";
const ITEM_LEN: usize = 8 + 1 + 32;

/// The variants of a key, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Table(pub(super) Vec<Listed>);

impl Table {
    /// A table as stored: the magic, then for each variant its number, whether a fingerprint follows, and 32 bytes.
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = MAGIC.to_vec();
        for (variant, fingerprint) in &self.0 {
            bytes.extend_from_slice(&variant.to_le_bytes());
            bytes.push(u8::from(fingerprint.is_some()));
            bytes.extend_from_slice(&fingerprint.unwrap_or_default());
        }
        bytes.into()
    }

    /// What of `bytes` is a table; anything else is an empty one.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        let items = bytes.strip_prefix(MAGIC).unwrap_or_default();
        let item = |item: &[u8]| {
            let (variant, rest) = item.split_first_chunk()?;
            let (flag, fingerprint) = rest.split_first()?;
            let fingerprint = if *flag == 0 { None } else { Some(fingerprint.try_into().ok()?) };
            Some((u64::from_le_bytes(*variant), fingerprint))
        };
        Self(items.chunks_exact(ITEM_LEN).filter_map(item).take(VARIANTS_MAX).collect())
    }

    /// Puts a variant in front; returns those that there is no room for any more.
    pub(super) fn add(&mut self, listed: Listed) -> Vec<Listed> {
        self.0.retain(|(variant, _)| *variant != listed.0);
        self.0.insert(0, listed);
        self.0.split_off(self.0.len().min(VARIANTS_MAX))
    }

    /// Takes a variant out; whether it was there.
    pub(super) fn remove(&mut self, variant: u64) -> bool {
        let before = self.0.len();
        self.0.retain(|(listed, _)| *listed != variant);
        self.0.len() < before
    }
}

pub(super) fn table_key(key: &[u8]) -> Bytes {
    [key, VARIANTS_SUFFIX].concat().into()
}

pub(super) fn variant_key(key: &[u8], variant: u64) -> Bytes {
    [key, VARIANTS_SUFFIX, format!("{variant:016x}").as_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_keeps_the_newest_sixteen() {
        let mut table = Table::default();
        for variant in 0..20 {
            let dropped = table.add((variant, (variant % 2 == 0).then_some([variant as u8; 32])));
            assert_eq!(dropped.len(), usize::from(variant >= 16));
        }
        assert_eq!(table.add((19, None)), [], "it was there already");
        assert_eq!(table.0.len(), VARIANTS_MAX);
        assert_eq!(table.0.first(), Some(&(19, None)));
        assert_eq!(Table::decode(&table.encode()), table);
    }

    #[test]
    fn what_is_no_table_is_an_empty_one() {
        for bytes in [b"".as_slice(), b"PLvt\x02", b"PLvt\x01short", b"whatever"] {
            assert_eq!(Table::decode(bytes), Table::default());
        }
    }
}
