//! The store with millions of entries, filled to its bound and beyond, and through a day of churn.
//!
//! `grow` puts more and more entries and says what a put, a get, an open and an entry's share of memory cost by then; `fill`
//! says it by how full the bound is; `churn` runs a day at many times its speed. `--check` fails where a promise does not
//! hold. Times are those of one thread, in a process that does nothing else.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints its result")]

mod churn;
mod disk;
mod fill;
mod grow;
mod latency;
mod load;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::report::Report;

/// The server's allocator: what an entry takes in memory depends on it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Any error is the end of the run.
type Failure = Box<dyn std::error::Error>;

#[derive(Debug, Parser)]
#[command(about = "The store with millions of entries, filled to its bound, and through a day of churn")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Latency, memory and the time an open takes, by number of entries
    Grow(grow::Options),
    /// Latency by how full the bound is
    Fill(fill::Options),
    /// A day of puts, gets, deploys and expiry at the bound, at many times its speed
    Churn(churn::Options),
    /// Opens a store and says what that took; `grow` runs this in a process of its own
    #[command(hide = true)]
    Open(grow::OpenOptions),
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Where the store is made; needs room for all of it [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Of the random numbers
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Divide the sizes of real entries by this [default: 64, and 16 for churn]
    #[arg(long, value_name = "N")]
    shrink: Option<usize>,
    /// Keep the store, and say where it is
    #[arg(long)]
    keep: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Fail if a promise does not hold
    #[arg(long)]
    check: bool,
}

impl Common {
    fn shrink_or(&self, default: usize) -> usize {
        self.shrink.unwrap_or(default).max(1)
    }
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Grow(options) => grow::run(&options).map(|report| finish(&options.common, &report)),
        Command::Fill(options) => fill::run(&options).map(|report| finish(&options.common, &report)),
        Command::Churn(options) => churn::run(&options).map(|report| finish(&options.common, &report)),
        Command::Open(options) => grow::open(&options).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

fn finish(common: &Common, report: &Report) -> ExitCode {
    if common.json {
        println!("{}", report.json());
    } else {
        println!("{}", report.text());
    }
    let broken: Vec<_> = report.promises.iter().filter(|promise| !promise.holds).collect();
    for promise in &broken {
        eprintln!("does not hold: {}, found {}", promise.what, promise.found);
    }
    if common.check && !broken.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
