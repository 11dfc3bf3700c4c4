use std::path::Path;
use std::sync::Arc;

use pilotlight_store::{Condition, ManualClock, Options, PutRequest, Result, Store};

pub(crate) const START_MS: u64 = 1_700_000_000_000;

pub(crate) fn options(dir: &Path, max_bytes: u64) -> (Options, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(START_MS));
    (Options { clock: clock.clone(), ..Options::new(dir, max_bytes) }, clock)
}

pub(crate) fn open(dir: &Path) -> Store {
    Store::open(options(dir, 64 << 20).0).expect("open")
}

pub(crate) fn request<'a>(key: &'a [u8], payload: &'a [u8]) -> PutRequest<'a> {
    PutRequest {
        space: b"",
        key,
        head: b"head",
        payload,
        digest: None,
        logical_len: payload.len() as u32,
        cost_ms: 0,
        created_ms: START_MS,
        expires_ms: None,
        group: None,
    }
}

pub(crate) fn put(store: &Store, key: &[u8], payload: &[u8]) -> Result<u64> {
    store.put(&request(key, payload), Condition::Always).map(|version| version.expect("an unconditional put"))
}

pub(crate) fn get(store: &Store, key: &[u8]) -> Option<Vec<u8>> {
    store.get(b"", key).expect("get").map(|stored| stored.payload.to_vec())
}

/// Bytes that do not compress and are different for every seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// What `du` says: blocks of every file and directory.
pub(crate) fn disk_use(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::symlink_metadata(dir).map_or(0, |metadata| metadata.blocks() * 512);
    let Ok(entries) = std::fs::read_dir(dir) else { return own };
    own + entries.filter_map(std::result::Result::ok).map(|entry| disk_use(&entry.path())).sum::<u64>()
}

/// The seed of this run, another each time unless `PILOTLIGHT_TEST_SEED` says which. Printed: a test that fails shows it.
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let given = std::env::var("PILOTLIGHT_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0) % 1_000_000_000);
    println!("PILOTLIGHT_TEST_SEED={seed}");
    seed
}

/// Draws that are the same for the same seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The lower bits of an xorshift are its weak ones.
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number under `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.draw() as usize % end.max(1)
    }

    pub(crate) fn percent(&mut self, odds: u64) -> bool {
        self.draw() % 100 < odds
    }
}
