//! The `pilotlight` command: parse, resolve, run, report. The only crate that reads the environment, prints or exits.

mod access;
mod cli;
mod commands;
mod environment;
mod failure;
mod nearest;
mod open;
mod output;
mod progress;
mod serve;
mod settings;
mod sidecar;
mod users_file;

use std::process::ExitCode;

use clap::Parser;

// Artifacts are large, short-lived and freed on other threads than they were made on, which this allocator is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator asks for huge pages. For buffers that come and go by the hundred kilobytes that means to clear two
    // megabytes for each: half of what a put of 256 KiB costs. A kernel that cannot be told is slower, not wrong.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Help and version go to stdout and are no failure; clap knows which is which.
            let _ = usage.print();
            return ExitCode::from(if usage.use_stderr() { 2 } else { 0 });
        }
    };
    for (name, known) in environment::misspelt() {
        output::note(format_args!("warning: {name} is no variable of pilotlight's; did you mean {known}?"));
    }
    match commands::run(cli.command) {
        Ok(answer) => answer.into(),
        Err(failure) => output::failure(&failure),
    }
}
