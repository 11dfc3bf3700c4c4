//! What an artifact looks like, in a hundred bytes: enough to tell which of thousands has most in common with it.
//!
//! It is cut where its bytes say so, so that an insertion moves no cut but the next; of the hashes of the pieces the least are
//! kept (MinHash, Broder 1997). Two artifacts share about as many of those as they share pieces.

use xxhash_rust::xxh3::xxh3_64;

/// Hashes that are kept.
const KEPT: usize = 32;
/// A cut is where so many upper bits of the rolling hash are zero: after 128 bytes on average, a line or two of a graph.
const CUT_BITS: u32 = 7;
/// Pieces are not longer.
const PIECE_LEN_MAX: usize = 1024;

/// The least hashes of an artifact's pieces, in order, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sketch(Box<[u32]>);

impl Sketch {
    pub(super) fn of(artifact: &[u8]) -> Self {
        let mut least: Vec<u32> = Vec::with_capacity(2 * KEPT);
        let mut bound = u32::MAX;
        for piece in Pieces(artifact) {
            let hash = (xxh3_64(piece) >> 32) as u32;
            if hash < bound {
                least.push(hash);
            }
            if least.len() == 2 * KEPT {
                trim(&mut least);
                bound = if least.len() == KEPT { least.last().copied().unwrap_or(bound) } else { bound };
            }
        }
        trim(&mut least);
        Self(least.into())
    }

    /// How many hashes are in both.
    pub(super) fn in_common(&self, other: &Self) -> usize {
        self.0.iter().filter(|hash| other.0.binary_search(hash).is_ok()).count()
    }
}

fn trim(hashes: &mut Vec<u32>) {
    hashes.sort_unstable();
    hashes.dedup();
    hashes.truncate(KEPT);
}

/// An artifact's pieces.
struct Pieces<'a>(&'a [u8]);

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        // Each byte is shifted out after 32 more: the last 32 decide.
        let mut hash = 0u32;
        let is_cut = |byte: &u8| {
            hash = (hash << 1).wrapping_add(u32::from(*byte).wrapping_add(1).wrapping_mul(0x9e37_79b1));
            hash >> (u32::BITS - CUT_BITS) == 0
        };
        let len = self.0.iter().take(PIECE_LEN_MAX).position(is_cut).map_or(PIECE_LEN_MAX, |at| at + 1);
        let (piece, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: std::ops::Range<u32>) -> Vec<u8> {
        lines
            .map(|i| format!("buf{i} = empty_strided({}, 64)\n", i * 7919 % 1009))
            .collect::<String>()
            .into_bytes()
    }

    #[test]
    fn what_is_nearly_the_same_has_nearly_all_in_common_and_what_is_not_next_to_nothing() {
        let one = text(0..5000);
        let mut edited = one.clone();
        edited.splice(1000..1000, *b"inserted");
        edited.splice(90_000..90_100, *b"changed");
        let sketch = Sketch::of(&one);
        assert_eq!(sketch.0.len(), KEPT);
        assert!(sketch.in_common(&Sketch::of(&edited)) >= KEPT - 4);
        let half = sketch.in_common(&Sketch::of(&text(2500..7500)));
        assert!((4..=20).contains(&half), "{half}");
        assert!(sketch.in_common(&Sketch::of(&text(50_000..55_000))) <= 2);
    }

    #[test]
    fn an_artifact_of_whatever_bytes_has_a_sketch() {
        for artifact in [&b""[..], b"a", &[0; 100_000], &[255; 2000]] {
            let sketch = Sketch::of(artifact);
            assert_eq!(sketch.in_common(&sketch), sketch.0.len());
        }
        let pieces = [0; 5000];
        assert_eq!(Pieces(&pieces).map(<[u8]>::len).sum::<usize>(), 5000);
    }
}
