//! Puts and gets while the bound fills up, and when it is full.

use clap::Args;
use pilotlight_store::{Clock, Options as StoreOptions, Store, SystemClock};

use crate::disk::{Place, disk_use};
use crate::latency::Latencies;
use crate::load::{Load, key};
use crate::report::{Promise, Report};
use crate::{Common, Failure};

/// Steps until it is full, and as many again after.
const STEPS: u64 = 10;
/// Gets at each.
const GETS: u64 = 10_000;
/// How much slower puts may be where every one makes another leave. It is a write more, and a draw.
const PUT_SLOWER_MAX: f64 = 3.0;
const GET_SLOWER_MAX: f64 = 1.5;

/// Sizes are those of real entries divided by this, unless told.
const SHRINK: usize = 64;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    /// The bound, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    bound: u64,
}

pub(crate) fn run(options: &Options) -> Result<Report, Failure> {
    let Options { common, bound } = options;
    let place = Place::new(common)?;
    let dir = place.dir();
    let max_bytes = bound << 20;
    let store = Store::open(StoreOptions::new(&dir, max_bytes))?;
    let mut load = Load::new(&store, common.seed, common.shrink_or(SHRINK));
    let (mut rows, mut number, mut put_bytes, mut most) = (Vec::new(), 0u64, 0u64, 0);
    for step in 1..=2 * STEPS {
        let (mut puts, mut gets) = (Latencies::new(), Latencies::new());
        let now_ms = SystemClock.now_ms();
        let evicted_before = store.usage(None).evicted;
        while put_bytes < max_bytes * step / STEPS {
            let (key, payload) = (key(number), load.payload());
            puts.time(|| load.put(&key, &payload, now_ms, None))?;
            // About what it takes: a record's header, key, head and row.
            put_bytes += payload.len() as u64 + 400;
            number += 1;
        }
        most = most.max(disk_use(&dir));
        let mut found = 0;
        for _ in 0..GETS {
            let key = key(load.random().below(number));
            if load.has(&key) {
                found += u64::from(gets.time(|| load.get(&key))?);
            }
        }
        let evicted = store.usage(None).evicted - evicted_before;
        rows.push(vec![
            (step * 100 / STEPS) as f64,
            puts.median(),
            puts.p99(),
            gets.median(),
            gets.p99(),
            found as f64 * 100.0 / GETS as f64,
            evicted as f64,
        ]);
    }
    let slower = |column: usize| {
        let at = |row: Option<&Vec<f64>>| row.and_then(|row| row.get(column)).copied().unwrap_or(0.0);
        at(rows.last()) / at(rows.get(1)).max(f64::MIN_POSITIVE)
    };
    let promises = vec![
        Promise::at_most("disk, of the bound", most as f64 / max_bytes as f64, 1.0, ""),
        Promise::at_most("median put, when full / when empty", slower(1), PUT_SLOWER_MAX, ""),
        Promise::at_most("median get, when full / when empty", slower(3), GET_SLOWER_MAX, ""),
    ];
    Ok(Report {
        title: format!("Puts and gets by bytes put, in per cent of a bound of {bound} MiB; microseconds"),
        columns: vec![
            ("% of bound", 0),
            ("put median", 1),
            ("put p99", 1),
            ("get median", 1),
            ("get p99", 1),
            ("found %", 1),
            ("evicted", 0),
        ],
        rows,
        plotted: vec![1, 3],
        notes: vec![format!("{number} entries were put")],
        promises,
    })
}
