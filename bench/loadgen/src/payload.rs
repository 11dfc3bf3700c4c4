//! What is put: a base that is shared, and a stamp that makes every artifact different from every other.

use std::io;
use std::path::Path;

/// Sixteen characters of base64's alphabet, so that a stamped torch entry is still one.
pub(crate) const STAMP_BYTES: usize = 16;
/// Where the stamp goes in a corpus entry: well inside the base64 that follows `{"data": "`.
const CORPUS_STAMP_AT: usize = 1024;
const POOL_BYTES: usize = 32 << 20;
const POOL_SEED: u64 = 1;

/// Artifacts by number; the same number and generation always give the same bytes.
#[derive(Debug)]
pub(crate) struct Payloads {
    bases: Vec<Base>,
    /// Where in a base of random bytes artifacts begin; zero for corpus entries, which are used whole.
    window: Option<usize>,
}

#[derive(Debug)]
struct Base {
    bytes: Vec<u8>,
    stamp_at: usize,
}

/// One artifact, as the parts it is written from and compared with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Payload<'a> {
    pub(crate) head: &'a [u8],
    pub(crate) stamp: [u8; STAMP_BYTES],
    pub(crate) tail: &'a [u8],
}

impl Payload<'_> {
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.stamp.len() + self.tail.len()
    }
}

impl Payloads {
    /// Incompressible artifacts of `size` bytes; at least the stamp's sixteen. Every process makes the same ones, so that
    /// one can check what another put.
    pub(crate) fn random(size: usize) -> Self {
        let mut random = Random::new(POOL_SEED);
        let mut bytes = Vec::with_capacity(POOL_BYTES + size);
        while bytes.len() < POOL_BYTES + size {
            bytes.extend_from_slice(&random.next().to_le_bytes());
        }
        Self { bases: vec![Base { bytes, stamp_at: 0 }], window: Some(size.max(STAMP_BYTES)) }
    }

    /// The files of a directory, in the order of their names.
    pub(crate) fn corpus(directory: &Path) -> io::Result<Self> {
        let mut paths = std::fs::read_dir(directory)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        let mut bases = Vec::with_capacity(paths.len());
        for path in paths {
            let bytes = std::fs::read(&path)?;
            if bytes.len() < CORPUS_STAMP_AT + STAMP_BYTES {
                return Err(io::Error::other(format!("{}: too small for a corpus entry", path.display())));
            }
            bases.push(Base { bytes, stamp_at: CORPUS_STAMP_AT });
        }
        if bases.is_empty() {
            return Err(io::Error::other(format!("{}: no files there", directory.display())));
        }
        Ok(Self { bases, window: None })
    }

    /// The artifact of this number. A later generation of it differs, so that a second put is not of the same bytes.
    pub(crate) fn get(&self, number: u64, generation: u64) -> Payload<'_> {
        let stamp = stamp(number, generation);
        let which = number.checked_rem(self.bases.len() as u64).unwrap_or(0);
        let Some(base) = self.bases.get(which as usize) else {
            return Payload { head: &[], stamp, tail: &[] };
        };
        let whole = match self.window {
            None => base.bytes.as_slice(),
            Some(size) => {
                // A prime step spreads the windows over the pool; they overlap, and no stamp is the same.
                let begin =
                    (number.wrapping_mul(7919) % (POOL_BYTES - size.min(POOL_BYTES - 1)) as u64) as usize;
                base.bytes.get(begin..begin + size).unwrap_or(&base.bytes)
            }
        };
        let (head, rest) = whole.split_at_checked(base.stamp_at).unwrap_or((whole, &[]));
        Payload { head, stamp, tail: rest.get(STAMP_BYTES..).unwrap_or(&[]) }
    }
}

/// The key of this number, spelled as PyTorch spells an FX graph's.
pub(crate) fn key(number: u64) -> String {
    format!("pt2:fx-graph-v1::f{number:051}:c1")
}

fn stamp(number: u64, generation: u64) -> [u8; STAMP_BYTES] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // 96 bits: 32 of the number, 64 of the generation.
    let mut bits = (u128::from(number & 0xffff_ffff) << 64) | u128::from(generation);
    let mut stamp = [0; STAMP_BYTES];
    for byte in &mut stamp {
        *byte = ALPHABET.get((bits & 63) as usize).copied().unwrap_or(b'A');
        bits >>= 6;
    }
    stamp
}

/// A small, fast generator (splitmix64), good enough for choosing keys and filling a pool.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; zero when the limit is.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(payload: &Payload<'_>) -> Vec<u8> {
        [payload.head, &payload.stamp, payload.tail].concat()
    }

    #[test]
    fn artifacts_have_their_size_and_differ_by_number_and_generation() {
        for size in [16, 1000, 1 << 20] {
            let payloads = Payloads::random(size);
            let first = bytes(&payloads.get(1, 0));
            assert_eq!(first.len(), size);
            assert_eq!(first, bytes(&payloads.get(1, 0)));
            assert_ne!(first, bytes(&payloads.get(2, 0)));
            assert_ne!(first, bytes(&payloads.get(1, 1)));
        }
    }

    #[test]
    fn a_stamped_corpus_entry_keeps_its_length_and_its_alphabet() {
        let directory = std::env::temp_dir().join(format!("loadgen-test-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("entry"), [b'x'; 3000]).unwrap();
        let payloads = Payloads::corpus(&directory).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let stamped = bytes(&payloads.get(5, 9));
        assert_eq!(stamped.len(), 3000);
        assert!(stamped.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte)));
        assert_eq!(stamped.iter().filter(|&&byte| byte != b'x').count(), STAMP_BYTES);
    }
}
