//! The store crashed at every call of its medium, and every call failing in turn.
//!
//! A seeded client puts, stages, deletes, clears, syncs and reopens under a small bound, on a medium in memory. At each call
//! the medium is copied as it is, with what was synced of it and what the client may expect. From each copy a kill and a power
//! cut are drawn; the store opens on what they leave, and again on what a crash of that open leaves.

/// What an open must hold to.
mod check;
/// What a client may expect.
mod expected;
/// A medium that fails at every call in turn.
mod failures;
/// All of it at random, for as long as one likes.
mod soak;
/// What a client does.
mod workload;

use std::sync::Arc;

use parking_lot::Mutex;
use pilotlight_store::Durability;

use self::check::Wreck;
use self::expected::Expected;
use self::workload::{BOUND, Client, format_path};
use crate::media::crash::{Change, Crash, Moment};
use crate::media::{FileSystem, Simulated};
use crate::setup::{Dice, seed};

const ALL: [Durability; 3] = [Durability::Relaxed, Durability::Batch, Durability::Always];

/// A store that has nothing in it yet, with a seed of its checks that the test's seed decides.
fn empty_store(seed: u64) -> FileSystem {
    let text =
        format!("pilotlight-store\nformat 1\nseed {:016x}\n", seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    FileSystem::with_file(&format_path(), text.as_bytes())
}

/// Has a client do `steps` things, and gives every moment at which it may have crashed, with what could be expected then.
fn moments(
    files: FileSystem,
    durability: Durability,
    seed: u64,
    steps: usize,
) -> Vec<(Moment, Arc<Expected>)> {
    let media = Simulated::holding(files);
    let mut client = Client::new(media.clone(), durability, seed);
    let moments = Arc::new(Mutex::new(Vec::new()));
    let (recorded, told) = (moments.clone(), client.told());
    media.record(move |files, change| {
        let used = files.disk_use();
        assert!(used <= BOUND, "{used} bytes under a bound of {BOUND}");
        let moment = Moment { files: files.clone(), change: change.clone() };
        recorded.lock().push((moment, told.lock().clone()));
    });
    assert!(client.open());
    for _ in 0..steps {
        client.step();
        assert!(client.is_open(), "seed {seed}: a store that nothing befell opens");
    }
    client.close();
    drop(client);
    media.record(|_, _| {});
    Arc::into_inner(moments).expect("nobody records any longer").into_inner()
}

/// Crashes a run at `samples` of its calls, or at all of them; gives how many it has.
fn crash(files: FileSystem, durability: Durability, seed: u64, steps: usize, samples: usize) -> usize {
    let moments = moments(files, durability, seed, steps);
    let mut dice = Dice::new(seed ^ 0xc4a5);
    let count = moments.len();
    let samples = samples.min(count);
    // Most depends on what is down when a segment goes: a third of the crashes are there.
    let is_removal = |(moment, _): &(Moment, _)| matches!(moment.change, Change::Remove(_));
    let removals: Vec<usize> = (1..count).filter(|at| is_removal(&moments[at - 1])).collect();
    for sample in 0..samples {
        let at = match removals.len() {
            1.. if sample % 3 == 2 => removals[dice.below(removals.len())],
            // One from each stretch of the run, so that all of it has its turn.
            _ => sample * count / samples + dice.below(count / samples),
        };
        let (moment, expected) = &moments[at];
        for crash in [Crash::Kill, Crash::PowerCut] {
            let what = format!("seed {seed}, {durability:?}, {crash:?} at call {at}, {moment}");
            let files = moment.after(crash, &mut dice);
            Wreck { files, expected, crash, what }.survives(&mut dice);
        }
    }
    count
}

fn crash_in_ci(durability: Durability) {
    let seed = seed();
    let calls = crash(empty_store(seed), durability, seed, 500, 40);
    assert!(calls > 500, "{calls} calls");
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_what_was_synced_a_power_cut() {
    crash_in_ci(Durability::Relaxed);
}

#[test]
fn what_was_acknowledged_in_batches_survives_a_kill_and_a_power_cut() {
    crash_in_ci(Durability::Batch);
}

#[test]
fn what_was_acknowledged_when_synced_survives_a_kill_and_a_power_cut() {
    crash_in_ci(Durability::Always);
}

#[test]
fn a_first_open_may_crash_anywhere() {
    for durability in ALL {
        let calls = crash(FileSystem::default(), durability, seed(), 3, usize::MAX);
        assert!(calls > 10, "{calls} calls");
    }
}
