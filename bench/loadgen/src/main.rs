//! A closed-loop load generator for servers that speak the Redis protocol.
//!
//! redis-benchmark sends and reads on one thread in 16 KiB pieces, so with values of 32 KiB and more it measures itself.
//! Here every connection has a thread of its own that sends a batch, reads the replies into a large buffer, and goes on.
//!
//! What it is not: an open-loop generator. A slow server slows its clients, so the latencies are service times under a
//! fixed number of clients, not what a fixed arrival rate would see.
//!
//! The length of every reply is checked, and the bytes of a sample of them. No artifact is ever put twice: a server that
//! stores identical ones once would otherwise be measured doing nothing.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints its result")]

mod connection;
mod histogram;
mod options;
mod payload;
mod report;
mod run;

use std::process::ExitCode;

use crate::options::{Options, USAGE};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(&arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("error: {error}\nhint: loadgen --help");
            return ExitCode::from(2);
        }
    };
    match run::run(&options) {
        Ok(measured) => {
            println!("{}", report::json(&options, &measured));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
