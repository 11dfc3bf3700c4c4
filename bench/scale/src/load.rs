//! What is put: keys like PyTorch's, sizes like real entries', bytes that do not repeat.

use pilotlight_store::{Condition, INLINE_MAX, PutRequest, Result, Store};

/// Lengths in bytes of the payloads of eight real entries of PyTorch 2.15, FX graphs and AOTAutograd entries of small models,
/// as they are stored (zstd level 1).
const REAL_LENS: [usize; 8] = [30_521, 35_491, 38_332, 44_511, 48_368, 54_607, 61_329, 73_023];
/// Length of the heads of real entries, in bytes.
const HEAD: [u8; 127] = [7; 127];
/// Everything is cut from so many bytes.
const POOL_LEN: usize = 4 << 20;

/// A small, fast generator (splitmix64): the same seed gives the same load on every machine.
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

    /// From 0 up to, not including, 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Puts and gets of one store.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    store: &'a Store,
    random: Random,
    pool: Vec<u8>,
    shrink: usize,
    puts: u64,
}

/// Average length of a payload, in bytes.
pub(crate) fn mean_len(shrink: usize) -> u64 {
    (REAL_LENS.iter().sum::<usize>() / REAL_LENS.len() / shrink) as u64
}

/// What an average entry takes on disk, in bytes, generously: with its key and head, its row, and blocks that are not full.
pub(crate) fn mean_footprint(shrink: usize) -> u64 {
    mean_len(shrink) * 11 / 10 + 600 + if mean_len(shrink) > 12 << 10 { 12 << 10 } else { 0 }
}

pub(crate) fn key(number: u64) -> Vec<u8> {
    // As long as PyTorch's, and as different in every part.
    let mixed = Random::new(number).next();
    format!("pt2:fx-graph-v1::f{mixed:016x}{number:035x}:c1").into_bytes()
}

impl<'a> Load<'a> {
    pub(crate) fn new(store: &'a Store, seed: u64, shrink: usize) -> Self {
        let mut random = Random::new(seed);
        let pool = (0..POOL_LEN / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        Self { store, random, pool, shrink, puts: 0 }
    }

    /// A length between those of two real entries.
    fn draw_len(&mut self) -> usize {
        let at = self.random.below(REAL_LENS.len() as u64 - 1) as usize;
        let (low, high) = (REAL_LENS.get(at).copied(), REAL_LENS.get(at + 1).copied());
        let (low, high) = (low.unwrap_or_default(), high.unwrap_or_default());
        low + self.random.below((high - low) as u64) as usize
    }

    /// The bytes of the next put, which are no other's.
    pub(crate) fn payload(&mut self) -> Vec<u8> {
        let len = self.draw_len() / self.shrink;
        self.bytes(len)
    }

    /// The same of one that lies in a file, as long as a real one.
    pub(crate) fn payload_for_file(&mut self) -> Vec<u8> {
        let len = self.draw_len().max(INLINE_MAX + 1);
        self.bytes(len)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let from = self.random.below((POOL_LEN - len) as u64) as usize;
        let mut payload = self.pool.get(from..from + len).unwrap_or_default().to_vec();
        self.puts += 1;
        for (to, byte) in payload.iter_mut().zip(self.puts.to_le_bytes()) {
            *to = byte;
        }
        payload
    }

    pub(crate) fn put(
        &self,
        key: &[u8],
        payload: &[u8],
        created_ms: u64,
        expires_ms: Option<u64>,
    ) -> Result<()> {
        let request = PutRequest {
            space: b"",
            key,
            head: &HEAD,
            payload,
            digest: None,
            logical_len: payload.len() as u32,
            cost_ms: 500,
            created_ms,
            expires_ms,
            group: None,
        };
        self.store.put(&request, Condition::Always).map(drop)
    }

    /// Whether there is an entry under the key, by the index alone.
    pub(crate) fn has(&self, key: &[u8]) -> bool {
        self.store.stat(b"", key).is_some()
    }

    /// Reads the entry under the key, and says whether there was one.
    pub(crate) fn get(&self, key: &[u8]) -> Result<bool> {
        self.store.get(b"", key).map(|found| found.is_some())
    }

    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}
