//! `pilotlight keys show`: what is here, and what becomes of one entry.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pilotlight_cache::client::{Client, Settings, Signing};
use pilotlight_cache::trust::{SigningKey, TrustFile, day_of};
use pilotlight_cache::{Clock, Error, SystemClock};
use serde::Serialize;

use super::{SUFFIX, directory, standing, trust_file};
use crate::cli::KeysShow;
use crate::environment;
use crate::failure::Failure;
use crate::output::{self, Answer, Last};

#[derive(Serialize)]
struct Report {
    keys: Vec<OwnReport>,
    trust_file: String,
    signers: Vec<SignerReport>,
    revoked: Vec<RevokedReport>,
}

/// A key that is here.
#[derive(Serialize)]
struct OwnReport {
    name: String,
    id: String,
    public_key: String,
    standing: String,
}

#[derive(Serialize)]
struct SignerReport {
    name: String,
    id: String,
    public_key: String,
    standing: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespaces: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kinds: Option<Vec<&'static str>>,
}

#[derive(Serialize)]
struct RevokedReport {
    id: String,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    date: Option<String>,
}

pub(super) fn run(arguments: &KeysShow) -> Result<Answer, Failure> {
    if let Some(key) = &arguments.key {
        return entry(key, arguments);
    }
    let path = trust_file(&arguments.trust)?;
    let trusted = read(&path)?;
    let report = report(&directory(&arguments.place)?, &path, &trusted)?;
    if arguments.json {
        output::json(&report)?;
    } else {
        output::data(page(&report).as_bytes())?;
    }
    Ok(Answer::Yes)
}

/// The trust file, or an empty one where there is none.
fn read(path: &Path) -> Result<TrustFile, Failure> {
    if !path.exists() {
        return Ok(TrustFile::default());
    }
    TrustFile::read(path).map_err(super::of_argument)
}

fn report(directory: &Path, path: &Path, trusted: &TrustFile) -> Result<Report, Failure> {
    let now_ms = SystemClock.now_ms();
    let signers = trusted.signers.iter().map(|signer| SignerReport {
        name: signer.name.clone(),
        id: signer.key.id().to_string(),
        public_key: signer.key.to_string(),
        standing: standing(trusted, signer.key.id(), now_ms),
        namespaces: signer
            .namespaces
            .as_ref()
            .map(|all| all.iter().map(|one| one.as_str().to_owned()).collect()),
        kinds: signer.kinds.as_ref().map(|all| all.iter().map(|kind| kind.name()).collect()),
    });
    let revoked = trusted.revoked.iter().map(|revoked| RevokedReport {
        id: revoked.id.to_string(),
        reason: revoked.reason.clone(),
        date: revoked.date.clone(),
    });
    Ok(Report {
        keys: own(directory, trusted, now_ms)?,
        trust_file: path.display().to_string(),
        signers: signers.collect(),
        revoked: revoked.collect(),
    })
}

/// The keys in `directory`, by name. One that cannot be read is said, and left out.
fn own(directory: &Path, trusted: &TrustFile, now_ms: u64) -> Result<Vec<OwnReport>, Failure> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(Vec::new()) };
    let mut keys = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension() != Some(OsStr::new(SUFFIX)) {
            continue;
        }
        match SigningKey::read(&path) {
            Ok(key) => keys.push(OwnReport {
                name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
                id: key.public().id().to_string(),
                public_key: key.public().to_string(),
                standing: standing(trusted, key.public().id(), now_ms),
            }),
            Err(error) => output::note(format_args!("warning: {error}")),
        }
    }
    keys.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(keys)
}

fn page(report: &Report) -> String {
    let mut rows = vec![["", "name", "id", "standing", "public key"].map(str::to_owned).to_vec()];
    let mut row = |what: &str, name: &str, id: &str, standing: &str, public_key: &str| {
        let name = name.escape_debug().to_string();
        let cells = [what, &name, id, standing, public_key];
        rows.push(cells.map(str::to_owned).to_vec());
    };
    for key in &report.keys {
        row("key", &key.name, &key.id, &key.standing, &key.public_key);
    }
    for signer in &report.signers {
        row("signer", &signer.name, &signer.id, &signer.standing, &signer.public_key);
    }
    for revoked in &report.revoked {
        row("revoked", "", &revoked.id, &revoked.reason, "");
    }
    if rows.len() == 1 {
        return "no keys, and nobody is trusted; `pilotlight keys new` makes one\n".to_owned();
    }
    output::table(&rows, Last::Text)
}

/// What an entry's signature says, and whether it is taken here.
#[derive(Serialize)]
struct EntryReport {
    is_taken: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
}

fn entry(key: &OsStr, arguments: &KeysShow) -> Result<Answer, Failure> {
    let mut names = environment::signing();
    names.trust = Some(trust_file(&arguments.trust)?);
    let mut signing = Signing::of_names(&names);
    signing.trusted = read(&trust_file(&arguments.trust)?)?;
    // What is wrong with the rest has no part in this.
    signing.problems.clear();
    let client = client(signing)?;
    let found = client.signers_of(&[key.as_bytes()]).pop().flatten();
    let report = match found {
        None => {
            if let Some(notice) = client.notice() {
                return Err(Failure::new(notice));
            }
            output::note("no entry under this key");
            return Ok(Answer::No);
        }
        Some(Ok(signed)) => EntryReport {
            is_taken: true,
            reason: None,
            what: format!(
                "signed by `{}` ({}) for namespace `{}`",
                signed.name.escape_debug(),
                signed.signer,
                signed.namespace.as_str().escape_debug()
            ),
            signer: Some(signed.signer.to_string()),
            hint: None,
        },
        Some(Err(Error::Unverified(refusal))) => EntryReport {
            is_taken: false,
            reason: Some(refusal.reason().name()),
            what: refusal.to_string(),
            signer: refusal.signer().map(|id| id.to_string()),
            hint: Some(refusal.reason().hint()),
        },
        Some(Err(error)) => return Err(error.into()),
    };
    if arguments.json {
        output::json(&report)?;
    } else {
        let verdict = if report.is_taken { "taken" } else { "not taken" };
        output::line(format_args!("{verdict}: {}", report.what))?;
        if let Some(hint) = report.hint {
            output::note(format_args!("hint: {hint}"));
        }
        if !report.is_taken {
            output::note(format_args!("this host's clock says {} (UTC)", day_of(SystemClock.now_ms())));
        }
    }
    Ok(if report.is_taken { Answer::Yes } else { Answer::No })
}

/// A client for the cache that jobs here use.
pub(in crate::commands) fn client(signing: Signing) -> Result<Client, Failure> {
    let url =
        environment::variable("PILOTLIGHT_URL").unwrap_or_else(|| "pilotlight://127.0.0.1:6379".to_owned());
    Client::signing(&url, Settings::default(), signing)
        .map_err(|error| Failure::of_address("PILOTLIGHT_URL", &error))
}
