//! Who leaves a full cache: Pilotlight's eviction policy beside LRU, SIEVE, S3-FIFO and GreedyDual-Size-Frequency.
//!
//! Traces are generated, from a seed, or recorded; see `workloads/` and `trace.rs`. Ours is the store's own code,
//! [`pilotlight_store::policy`], over a table in memory in place of the store's index.
//!
//! What it is not: a simulation of the disk. Every policy is given the same bytes to fill and fills them to the last; that the
//! store gives back what lies in its log a segment at a time, and rounds to blocks, is not in these figures. `--store` replays
//! the trace through a real one beside them.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints its result")]

mod options;
mod policies;
mod random;
mod report;
mod run;
mod trace;
mod workloads;

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::options::{Options, Output, USAGE};
use crate::trace::Trace;

/// How far ours may be behind, in points.
const BEHIND_MAX: f64 = 1.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(&arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("error: {error}\nhint: simulator --help");
            return ExitCode::from(2);
        }
    };
    match simulate(&options) {
        Ok(behind) if options.is_checked && behind > BEHIND_MAX => {
            eprintln!("error: ours is {behind:.2} points behind, expected at most {BEHIND_MAX}");
            ExitCode::FAILURE
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does what the options say, and says how far ours is behind at worst.
fn simulate(options: &Options) -> Result<f64, String> {
    let generated = options.workloads.iter().map(|workload| {
        let generate = || workloads::generate(*workload, options.seed, options.scale);
        Box::new(move || Ok(generate())) as Box<dyn Fn() -> Result<Trace, String>>
    });
    let replayed = options
        .replays
        .iter()
        .map(|path| Box::new(move || replay(path)) as Box<dyn Fn() -> Result<Trace, String>>);
    let mut behind = f64::NEG_INFINITY;
    let mut done = Vec::new();
    // One at a time: a trace takes tens of megabytes.
    for make in generated.chain(replayed) {
        let mut trace = make()?;
        if let Some(path) = &options.write {
            write(&trace, path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            continue;
        }
        let mut runs = run::run_all(&trace);
        if let Some(dir) = &options.store {
            runs.extend(run::run_store(&trace, dir)?);
        }
        behind = behind.max(run::behind_by(&runs));
        if options.output == Output::People {
            println!("{}", report::table(&trace, &runs));
        }
        trace.events = Vec::new();
        done.push((trace, runs));
    }
    if options.output == Output::Programs {
        println!("{}", report::json(&done));
    }
    Ok(behind)
}

fn replay(path: &Path) -> Result<Trace, String> {
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
    let file = File::open(path).map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    Trace::read(&name, BufReader::new(file)).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(trace: &Trace, path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    trace.write(&mut file)?;
    file.flush()
}
