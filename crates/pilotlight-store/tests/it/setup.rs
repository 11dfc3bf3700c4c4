use std::path::Path;
use std::sync::Arc;

use pilotlight_store::{Condition, ManualClock, Options, PutRequest, Result, Rewrite, Store, Stored};

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
    store.get(b"", key).expect("get").map(|stored| original(&stored))
}

/// In place of [`request`]'s head: the payload is back to front.
pub(crate) const TURNED: &[u8] = b"turned";
/// In place of [`request`]'s head: the payload says by how much it differs from its base.
pub(crate) const DELTA: &[u8] = b"delta";

/// What was put, whatever form it is kept in.
pub(crate) fn original(stored: &Stored) -> Vec<u8> {
    match (&stored.head[..], &stored.base) {
        (DELTA, Some(base)) => delta(&stored.payload, &whole(&base.head, &base.payload)),
        (head, None) => whole(head, &stored.payload),
        (head, Some(_)) => panic!("{head:?} with a base"),
    }
}

pub(crate) fn whole(head: &[u8], payload: &[u8]) -> Vec<u8> {
    match head {
        b"head" => payload.to_vec(),
        TURNED => turned(payload),
        other => panic!("{other:?} without a base"),
    }
}

pub(crate) fn turned(payload: &[u8]) -> Vec<u8> {
    payload.iter().rev().copied().collect()
}

/// From a payload and a base to what is kept, and back.
pub(crate) fn delta(payload: &[u8], base: &[u8]) -> Vec<u8> {
    payload.iter().zip(base.iter().cycle()).map(|(byte, other)| byte ^ other).collect()
}

/// Turns an entry's payload.
pub(crate) fn turn(store: &Store, space: &[u8], key: &[u8]) -> Result<bool> {
    let Some(stored) = store.peek(space, key)? else { return Ok(false) };
    let payload = turned(&original(&stored));
    let version = stored.stat.version;
    store.rewrite(&Rewrite { space, key, version, head: TURNED, payload: &payload, base: None })
}

/// Stores an entry's payload against another's.
pub(crate) fn store_against(store: &Store, space: &[u8], key: &[u8], base_key: &[u8]) -> Result<bool> {
    let Some(of_base) = store.stat(space, base_key) else { return Ok(false) };
    let Some(base) = store.base(space, base_key, of_base.version)? else { return Ok(false) };
    let Some(stored) = store.peek(space, key)? else { return Ok(false) };
    let payload = delta(&original(&stored), &whole(&base.head, &base.payload));
    let version = stored.stat.version;
    store.rewrite(&Rewrite { space, key, version, head: DELTA, payload: &payload, base: Some(&base) })
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
