//! One file a command.

mod doctor;
mod export;
mod gc;
mod get;
mod import;
mod keys;
mod ls;
mod pages;
mod pin;
mod put;
mod quarantine;
mod rm;
mod run;
mod signatures;
mod stats;
mod users;
mod verify;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use pilotlight_cache::{KEY_LEN_MAX, Key, Namespace};

use crate::access;
use crate::cli::{Command, In, Target};
use crate::failure::Failure;
use crate::output::Answer;

/// Runs `command`.
pub(crate) fn run(command: Command) -> Result<Answer, Failure> {
    match command {
        Command::Serve(arguments) => crate::serve::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Sidecar(arguments) => crate::sidecar::run(&arguments),
        Command::Stats(arguments) => stats::run(&arguments),
        Command::Ls(arguments) => ls::run(&arguments),
        Command::Get(arguments) => get::run(&arguments),
        Command::Put(arguments) => put::run(&arguments),
        Command::Rm(arguments) => rm::run(&arguments),
        Command::Pin(arguments) => pin::run(&arguments, pin::Change::Pin),
        Command::Unpin(arguments) => pin::run(&arguments, pin::Change::Unpin),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Gc(arguments) => gc::run(&arguments),
        Command::Quarantine { action } => quarantine::run(&action),
        Command::Keys { action } => keys::run(&action),
        Command::Users { action } => users::run(&action),
        Command::Config(arguments) => pages::config(&arguments),
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { out } => pages::man(out.as_deref()),
    }
}

fn namespace(given: &In, target: &Target) -> Result<Namespace, Failure> {
    match &given.namespace {
        Some(name) => Ok(Namespace::new(name)?),
        None => access::namespace(target),
    }
}

/// The key that was typed: its bytes, whether or not they are text.
fn key(typed: &OsStr, given: &In, target: &Target) -> Result<Key, Failure> {
    let bytes = typed.as_bytes();
    if bytes.is_empty() {
        return Err(Failure::new("the key is empty"));
    }
    if bytes.len() > KEY_LEN_MAX {
        return Err(Failure::new(format!("key of {} bytes, expected at most {KEY_LEN_MAX}", bytes.len())));
    }
    Ok(Key::in_namespace(namespace(given, target)?, bytes.to_vec()))
}
