//! More and more entries: what a put, a get, an open and an entry's share of memory cost by then.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;
use pilotlight_store::{Clock, Options as StoreOptions, Store, SystemClock};
use serde_json::{Value, json};

use crate::disk::{Place, disk_use, forget, inodes, resident, resident_peak};
use crate::latency::Latencies;
use crate::load::{Load, key, mean_footprint, mean_len};
use crate::report::{Promise, Report};
use crate::{Common, Failure};

/// Measurements on the way.
const STEPS: u64 = 10;
/// Gets at each.
const GETS: u64 = 20_000;
/// What DESIGN promises of an open with a million entries, in seconds.
const OPEN_MAX_S: f64 = 1.0;
/// And of memory, in bytes for each.
const RESIDENT_MAX: f64 = 200.0;
/// How much slower the last puts and gets may be than the first: page cache and processor caches do get fuller.
const SLOWER_MAX: f64 = 2.0;
/// One entry in so many expires one day.
const EXPIRING: u64 = 10;

/// Sizes are those of real entries divided by this, unless told.
const SHRINK: usize = 64;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How many entries are put
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// How many of them, evenly spread, have a payload that lies in a file of its own
    #[arg(long, value_name = "N", default_value_t = 0)]
    in_files: u64,
}

#[derive(Debug, Args)]
pub(crate) struct OpenOptions {
    dir: PathBuf,
    max_bytes: u64,
}

pub(crate) fn run(options: &Options) -> Result<Report, Failure> {
    let Options { common, entries, in_files } = options;
    let place = Place::new(common)?;
    let dir = place.dir();
    let in_log_bytes = (entries * mean_footprint(common.shrink_or(SHRINK))).max(1 << 30);
    let max_bytes = (in_log_bytes + in_files * mean_footprint(1)) * 5 / 4;
    let base = resident();
    let store = Store::open(StoreOptions::new(&dir, max_bytes))?;
    let mut load = Load::new(&store, common.seed, common.shrink_or(SHRINK));
    let mut rows = Vec::new();
    for step in 1..=STEPS {
        let numbers = entries * (step - 1) / STEPS..entries * step / STEPS;
        rows.push(measure_step(&mut load, numbers, entries.checked_div(*in_files), base)?);
    }
    let usage = store.usage(None);
    let mut notes = vec![format!(
        "{} entries of {} bytes on average, {} of them evicted; {:.2} GiB on disk in {} files and directories",
        entries,
        mean_len(common.shrink_or(SHRINK)),
        usage.evicted,
        disk_use(&dir) as f64 / f64::from(1 << 30),
        inodes(&dir),
    )];
    drop(load);
    let begin = Instant::now();
    drop(store);
    notes.push(format!("closed in {:.2} s", begin.elapsed().as_secs_f64()));
    let warm = open_apart(&dir, max_bytes)?;
    forget(&dir)?;
    let cold = open_apart(&dir, max_bytes)?;
    for (name, opened) in [("in the page cache", &warm), ("not in the page cache", &cold)] {
        notes.push(format!("open in a new process, log {name}: {opened}"));
    }
    let slower = |column: usize| {
        let at = |row: Option<&Vec<f64>>| row.and_then(|row| row.get(column)).copied().unwrap_or(0.0);
        at(rows.last()) / at(rows.get(1)).max(f64::MIN_POSITIVE)
    };
    let field = |value: &Value, name: &str| value.get(name).and_then(Value::as_f64).unwrap_or(f64::MAX);
    let promises = vec![
        Promise::at_most(
            "an open takes",
            field(&warm, "seconds") / per_million(*entries),
            OPEN_MAX_S,
            " s a million",
        ),
        Promise::at_most("memory after it", field(&warm, "resident_per_entry"), RESIDENT_MAX, " B an entry"),
        Promise::at_most("median put, last tenth / second", slower(1), SLOWER_MAX, ""),
        Promise::at_most("median get, last tenth / second", slower(3), SLOWER_MAX, ""),
    ];
    Ok(Report {
        title: format!("Puts and gets by number of entries, up to {entries}; microseconds"),
        columns: vec![
            ("entries", 0),
            ("put median", 1),
            ("put p99", 1),
            ("get median", 1),
            ("get p99", 1),
            ("memory B each", 0),
        ],
        rows,
        plotted: vec![1, 3],
        notes,
        promises,
    })
}

/// A small store opens no faster than its files do.
fn per_million(entries: u64) -> f64 {
    (entries as f64 / 1e6).max(1.0)
}

/// Puts the entries of these numbers, each `file_every`th of them in a file, and looks back at random ones.
fn measure_step(
    load: &mut Load<'_>,
    numbers: Range<u64>,
    file_every: Option<u64>,
    base: u64,
) -> Result<Vec<f64>, Failure> {
    let to = numbers.end;
    let (mut puts, mut gets) = (Latencies::new(), Latencies::new());
    let now_ms = SystemClock.now_ms();
    for number in numbers {
        let is_in_file = file_every.is_some_and(|every| number.is_multiple_of(every));
        let (key, payload) = (key(number), if is_in_file { load.payload_for_file() } else { load.payload() });
        let expires_ms = (number % EXPIRING == 0).then_some(now_ms + 86_400_000 + number);
        puts.time(|| load.put(&key, &payload, now_ms, expires_ms))?;
    }
    for _ in 0..GETS {
        let key = key(load.random().below(to));
        if !gets.time(|| load.get(&key))? {
            return Err("an entry is missing, below the bound".into());
        }
    }
    let each = resident().saturating_sub(base) as f64 / to.max(1) as f64;
    Ok(vec![to as f64, puts.median(), puts.p99(), gets.median(), gets.p99(), each])
}

/// Opens the store in a process of its own: what this one has in memory is no measure.
fn open_apart(dir: &Path, max_bytes: u64) -> Result<Value, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.arg("open").arg(dir).arg(max_bytes.to_string()).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

pub(crate) fn open(options: &OpenOptions) -> Result<(), Failure> {
    let base = resident();
    let begin = Instant::now();
    // The sweep is to be measured, and not to begin by itself.
    let tick = Duration::from_secs(3600);
    let store = Store::open(StoreOptions { tick, ..StoreOptions::new(&options.dir, options.max_bytes) })?;
    let took = begin.elapsed();
    let entries = store.usage(None).entries;
    let each = |bytes: u64| (bytes.saturating_sub(base) as f64 / entries.max(1) as f64).round();
    let peak = resident_peak();
    // The allocator gives back what an open needed besides, within a moment.
    let settled = settle();
    let begin = Instant::now();
    store.sweep()?;
    let swept = begin.elapsed();
    let seconds = |took: Duration| (took.as_secs_f64() * 1000.0).round() / 1000.0;
    println!(
        "{}",
        json!({
            "seconds": seconds(took),
            "sweep_seconds": seconds(swept),
            "entries": entries,
            "resident_per_entry": each(settled),
            "peak_per_entry": each(peak),
        })
    );
    Ok(())
}

/// Resident memory once it does not fall any longer.
fn settle() -> u64 {
    let mut last = resident();
    for _ in 0..40 {
        // What an allocator puts off it does when somebody allocates.
        drop(vec![0u8; 1 << 16]);
        std::thread::sleep(Duration::from_millis(50));
        let now = resident();
        if now == last {
            break;
        }
        last = now;
    }
    last
}
