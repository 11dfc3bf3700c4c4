//! `pilotlight put`.

use std::io::Read;
use std::path::Path;

use serde::Serialize;

use super::key;
use crate::access;
use crate::cli::Put;
use crate::failure::Failure;
use crate::output::{self, Answer};

#[derive(Serialize)]
struct Report {
    artifact_bytes: usize,
}

pub(super) fn run(arguments: &Put) -> Result<Answer, Failure> {
    let key = key(&arguments.key, &arguments.namespace, &arguments.target)?;
    let artifact = read(&arguments.file)?;
    let artifact_bytes = artifact.len();
    access::open(&arguments.target)?.put(&key, artifact, arguments.ttl)?;
    if arguments.target.json {
        output::json(&Report { artifact_bytes })?;
    } else {
        output::note(format_args!("stored {}", output::bytes(artifact_bytes as u64)));
    }
    Ok(Answer::Yes)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let fail =
        |error: std::io::Error| Failure::new(format!("could not read `{}`", path.display())).because(&error);
    if path != Path::new("-") {
        return std::fs::read(path).map_err(fail);
    }
    let mut artifact = Vec::new();
    std::io::stdin().lock().read_to_end(&mut artifact).map_err(fail)?;
    Ok(artifact)
}
