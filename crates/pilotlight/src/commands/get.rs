//! `pilotlight get`.

use serde::Serialize;

use super::key;
use crate::access;
use crate::cli::Get;
use crate::failure::Failure;
use crate::output::{self, Answer};

#[derive(Serialize)]
struct Report {
    found: bool,
    artifact_bytes: Option<usize>,
    /// Absent when the artifact went to a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_base64: Option<String>,
}

pub(super) fn run(arguments: &Get) -> Result<Answer, Failure> {
    let key = key(&arguments.key, &arguments.namespace, &arguments.target)?;
    let found = access::open(&arguments.target)?.get(&key)?;
    let is_json = arguments.target.json;
    let Some(artifact) = found else {
        if is_json {
            output::json(&Report { found: false, artifact_bytes: None, artifact_base64: None })?;
        } else {
            output::note("miss: no entry under this key");
        }
        return Ok(Answer::No);
    };
    if let Some(path) = &arguments.output {
        std::fs::write(path, &artifact)
            .map_err(|error| Failure::new(format!("could not write `{}`", path.display())).because(&error))?;
    }
    if is_json {
        let artifact_base64 =
            arguments.output.is_none().then(|| base64_simd::STANDARD.encode_to_string(&artifact));
        output::json(&Report { found: true, artifact_bytes: Some(artifact.len()), artifact_base64 })?;
    } else if arguments.output.is_none() {
        if output::is_terminal() && !is_text(&artifact) {
            return Err(Failure::new("the artifact is binary and stdout is a terminal")
                .with_hint("write it to a file with `-o FILE`, or pipe it"));
        }
        output::data(&artifact)?;
    }
    Ok(Answer::Yes)
}

/// Whether a terminal shows it as it is.
fn is_text(artifact: &[u8]) -> bool {
    std::str::from_utf8(artifact)
        .is_ok_and(|text| !text.chars().any(|character| character.is_control() && !character.is_whitespace()))
}
