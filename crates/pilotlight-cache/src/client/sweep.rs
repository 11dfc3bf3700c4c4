//! Keeps a shared directory near its bound, by processes that know nothing of each other.
//!
//! Each put sweeps with a probability of its size to a sixteenth of the bound: so whoever writes, and however many do,
//! about sixteen sweeps happen while the bound's worth of bytes is written, and no count is kept anywhere. A sweep looks at
//! the shards in random order for a short time, takes what it saw for a sample of the whole, and deletes the oldest of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::directory::{ENTRY_SUFFIX, UNFINISHED_SUFFIX};

const SWEEPS_PER_BOUND: u64 = 16;
const SHARDS: u64 = 256;
/// What a sweep may add to a put. A local disk lists some 100,000 files in it, and a slow mount at least a shard.
const TIME_MAX: Duration = Duration::from_millis(200);
/// What was not finished for so long never will be.
const UNFINISHED_AFTER: Duration = Duration::from_secs(3600);

pub(super) fn is_due(size_bytes: u64, max_bytes: u64, random: u64) -> bool {
    let share = size_bytes as f64 * SWEEPS_PER_BOUND as f64 / max_bytes.max(1) as f64;
    (random >> 11) as f64 / (1u64 << 53) as f64 <= share
}

struct Seen {
    path: PathBuf,
    used: SystemTime,
    size_bytes: u64,
}

/// Deletes what was not used for longest, until what is left is a sixteenth below the bound.
pub(super) fn sweep(root: &Path, max_bytes: u64, random: u64) {
    let started = Instant::now();
    let mut seen = Vec::new();
    let mut shards = 0;
    while shards < SHARDS && (shards == 0 || started.elapsed() < TIME_MAX) {
        // Odd steps visit every shard once, in an order of their own.
        let shard = (random.wrapping_add(shards.wrapping_mul(random >> 8 | 1))) % SHARDS;
        list(&root.join(format!("{shard:02x}")), &mut seen);
        shards += 1;
    }
    let share_bytes = max_bytes / SHARDS * shards;
    let mut size_bytes: u64 = seen.iter().map(|file| file.size_bytes).sum();
    if size_bytes <= share_bytes {
        return;
    }
    seen.sort_by_key(|file| file.used);
    for file in seen {
        if size_bytes <= share_bytes - share_bytes / SWEEPS_PER_BOUND {
            break;
        }
        // Somebody else may have deleted it: then it is gone all the same.
        let _ = fs::remove_file(&file.path);
        size_bytes -= file.size_bytes;
    }
}

/// What of a shard is ours: nothing else is ever deleted.
fn list(shard: &Path, seen: &mut Vec<Seen>) {
    for entry in fs::read_dir(shard).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_entry = is_ours(name, ENTRY_SUFFIX, 62);
        if !is_entry && !is_ours(name, UNFINISHED_SUFFIX, 24) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        let Ok(used) = metadata.modified() else { continue };
        if is_entry {
            seen.push(Seen { path: entry.path(), used, size_bytes: metadata.len() });
        } else if used.elapsed().is_ok_and(|age| age > UNFINISHED_AFTER) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_ours(name: &str, suffix: &str, digits: usize) -> bool {
    let is_hex = |stem: &str| stem.len() == digits && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.strip_suffix(suffix).is_some_and(is_hex)
}
