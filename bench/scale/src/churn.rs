//! A day of a busy cache at its bound: puts, gets, deploys that change every key, entries that expire.
//!
//! Time is simulated: the store's clock runs so many times faster than the machine's, and as many operations come in an hour of
//! it as would come in an hour. It begins with a full store: one that is empty is all in the processor's caches.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Args;
use pilotlight_store::{ManualClock, Options as StoreOptions, Store};

use crate::disk::{Place, disk_use};
use crate::latency::Latencies;
use crate::load::{Load, key, mean_footprint};
use crate::report::{Promise, Report};
use crate::{Common, Failure};

const START_MS: u64 = 1_700_000_000_000;
const HOUR_MS: u64 = 3_600_000;
/// Everything gets a new key that often.
const DEPLOY_EVERY_MS: u64 = 4 * HOUR_MS;
/// Gets for each put.
const GETS: u64 = 4;
/// Of what is on disk, what may be no live entry's, in per cent.
const FRAGMENTED_MAX: f64 = 15.0;
/// How much slower the last hour may be than the first.
const SLOWER_MAX: f64 = 1.5;

/// Sizes are those of real entries divided by this, unless told.
const SHRINK: usize = 16;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// The bound, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    bound: u64,
    /// Hours of simulated time
    #[arg(long, default_value_t = 24)]
    hours: u64,
    /// How many times faster than time
    #[arg(long, default_value_t = 100)]
    speed: u64,
    /// Puts for each simulated second, with four gets each
    #[arg(long, default_value_t = 10)]
    rate: u64,
}

/// What came of one hour.
struct Hour {
    puts: Latencies,
    gets: Latencies,
    asked: u64,
    fragmented: f64,
}

pub(crate) fn run(options: &Options) -> Result<Report, Failure> {
    let common = &options.common;
    let place = Place::new(common)?;
    let dir = place.dir();
    let max_bytes = options.bound << 20;
    let clock = Arc::new(ManualClock::at(START_MS));
    let store_options = StoreOptions { clock: clock.clone(), ..StoreOptions::new(&dir, max_bytes) };
    let store = Store::open(store_options)?;
    let (is_over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut hours = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| watch(&dir, &is_over, &most));
        let result = churn(options, &store, &clock, &dir, &mut hours);
        is_over.store(true, Relaxed);
        result
    })?;
    Ok(report(options, &store, &hours, most.load(Relaxed)))
}

/// Looks at the disk again and again.
fn watch(dir: &Path, is_over: &AtomicBool, most: &AtomicU64) {
    while !is_over.load(Relaxed) {
        most.fetch_max(disk_use(dir), Relaxed);
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn churn(
    options: &Options,
    store: &Store,
    clock: &ManualClock,
    dir: &Path,
    hours: &mut Vec<Hour>,
) -> Result<(), Failure> {
    let Options { common, bound, speed, rate, .. } = options;
    let mut load = Load::new(store, common.seed, common.shrink_or(SHRINK));
    // Three times what fits.
    let working_set = (bound << 20) * 3 / mean_footprint(common.shrink_or(SHRINK));
    let mut filled = 0;
    while store.usage(None).evicted == 0 {
        let (key, payload) = (key(1 << 50 | filled), load.payload());
        load.put(&key, &payload, START_MS, None)?;
        store.tidy();
        filled += 1;
    }
    let begin = Instant::now();
    let mut simulated_ms = 0;
    for hour in 0..options.hours {
        let (mut puts, mut gets, mut asked) = (Latencies::new(), Latencies::new(), 0);
        for number in 0..rate * 3600 {
            let now_ms = hour * HOUR_MS + number * 1000 / rate;
            clock.advance_ms(now_ms - simulated_ms);
            simulated_ms = now_ms;
            pace(begin, Duration::from_millis(now_ms / speed));
            let generation = now_ms / DEPLOY_EVERY_MS;
            // The first tenth of the keys is asked for half of the time.
            let draw = |load: &mut Load<'_>| {
                let is_popular = load.random().below(2) == 0;
                let range = if is_popular { working_set / 10 } else { working_set };
                generation << 40 | load.random().below(range)
            };
            for _ in 0..GETS {
                let key = key(draw(&mut load));
                asked += 1;
                // A miss is over in no time.
                if load.has(&key) {
                    gets.time(|| load.get(&key))?;
                }
            }
            let (key, payload) = (key(draw(&mut load)), load.payload());
            // Three in ten expire within half a day.
            let lives_ms = HOUR_MS + (load.random().fraction() * 11.0 * HOUR_MS as f64) as u64;
            let created_ms = START_MS + now_ms;
            let expires_ms = (load.random().below(10) < 3).then_some(created_ms + lives_ms);
            puts.time(|| load.put(&key, &payload, created_ms, expires_ms))?;
            store.tidy();
        }
        hours.push(Hour { puts, gets, asked, fragmented: fragmented(store, dir) });
    }
    Ok(())
}

/// Waits until so much time has passed since the beginning.
fn pace(begin: Instant, due: Duration) {
    if let Some(wait) = due.checked_sub(begin.elapsed()).filter(|wait| *wait > Duration::from_millis(1)) {
        std::thread::sleep(wait);
    }
}

/// How much of what is on disk is no live entry's, in per cent.
fn fragmented(store: &Store, dir: &Path) -> f64 {
    100.0 - store.usage(Some(b"")).stored_bytes as f64 * 100.0 / disk_use(dir).max(1) as f64
}

fn report(options: &Options, store: &Store, hours: &[Hour], most: u64) -> Report {
    let row = |(number, hour): (usize, &Hour)| {
        vec![
            number as f64 + 1.0,
            hour.puts.median(),
            hour.puts.p99(),
            hour.gets.median(),
            hour.gets.p99(),
            hour.gets.total() as f64 * 100.0 / hour.asked.max(1) as f64,
            hour.fragmented,
        ]
    };
    let rows: Vec<_> = hours.iter().enumerate().map(row).collect();
    let usage = store.usage(None);
    let slower = |of: fn(&Hour) -> f64| {
        hours.last().map_or(0.0, of) / hours.first().map_or(1.0, of).max(f64::MIN_POSITIVE)
    };
    let fragmented = hours.iter().map(|hour| hour.fragmented).fold(0.0, f64::max);
    let bound = options.bound << 20;
    Report {
        title: format!(
            "{} hours at {} times their speed, {} puts and {} gets a second of them, bound {} MiB; microseconds",
            options.hours,
            options.speed,
            options.rate,
            options.rate * GETS,
            options.bound
        ),
        columns: vec![
            ("hour", 0),
            ("put median", 1),
            ("put p99", 1),
            ("get median", 1),
            ("get p99", 1),
            ("hits %", 1),
            ("fragmented %", 1),
        ],
        rows,
        plotted: vec![2, 4],
        notes: vec![format!(
            "{} entries evicted, {} expired, {} left",
            usage.evicted, usage.expired, usage.entries
        )],
        promises: vec![
            Promise::at_most("disk, of the bound", most as f64 / bound as f64, 1.0, ""),
            Promise::at_most("fragmented, at worst", fragmented, FRAGMENTED_MAX, " %"),
            Promise::at_most("put p99, last hour / first", slower(|hour| hour.puts.p99()), SLOWER_MAX, ""),
            Promise::at_most("get p99, last hour / first", slower(|hour| hour.gets.p99()), SLOWER_MAX, ""),
        ],
    }
}
