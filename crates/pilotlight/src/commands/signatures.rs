//! What the doctor has to say about signatures: the settings of jobs on this host, and the entries that they would get.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pilotlight_cache::client::{Client, Signing, SigningNames};
use pilotlight_cache::trust::{KeyId, Policy, PublicKey, Reason, Refusal, TrustFile};
use pilotlight_cache::{Clock, Error, Kind, SystemClock};
use pilotlight_server::report::FindingReport;

use super::keys;
use crate::access;
use crate::cli::Target;
use crate::environment;

const SUBJECT: &str = "signatures";
/// Entries looked at: enough to meet every signer that matters, and less than a second's work.
const ENTRIES_MAX: usize = 256;
/// A signer that expires within so many days is worth a word.
const SOON_MS: u64 = 14 * 24 * 3600 * 1000;

/// What is found, if jobs on this host are told anything about signatures.
pub(super) fn examine(target: &Target) -> Vec<FindingReport> {
    let names = environment::signing();
    if names.key.is_none() && names.verify.is_none() && names.trust.is_none() {
        return Vec::new();
    }
    let signing = Signing::of_names(&names);
    let see = "docs/signing.md says how the settings belong together";
    let mut found: Vec<FindingReport> =
        signing.problems.iter().map(|problem| FindingReport::problem(SUBJECT, problem, see)).collect();
    found.extend(names.key.as_deref().and_then(of_permissions));
    let policy = signing.policy;
    let trusted = trusted(&names);
    if let Some(key) = &signing.key {
        found.extend(of_own_key(key.public(), policy, &trusted));
    }
    if target.data_dir.is_none() && names.trust.is_some() {
        let client = keys::client(Signing { trusted, problems: Vec::new(), ..signing });
        found.extend(client.map(|client| of_entries(&client, policy, target)).unwrap_or_default());
    }
    found
}

/// Also under the policy `off`, for which jobs do not read it.
fn trusted(names: &SigningNames) -> TrustFile {
    names.trust.as_deref().and_then(|path| TrustFile::read(path).ok()).unwrap_or_default()
}

fn of_permissions(path: &Path) -> Option<FindingReport> {
    let mode = path.metadata().ok()?.permissions().mode() & 0o777;
    let finding = || format!("others may read the signing key in `{}` (mode {mode:o})", path.display());
    let hint = "whoever reads it can sign as you: `chmod 600` it, and rotate it if others are on this host";
    (mode & 0o077 != 0).then(|| FindingReport::problem(SUBJECT, finding(), hint))
}

/// Whether what is put here is taken here.
fn of_own_key(key: PublicKey, policy: Policy, trusted: &TrustFile) -> Option<FindingReport> {
    let (id, now_ms) = (key.id(), SystemClock.now_ms());
    let standing = keys::standing(trusted, id, now_ms);
    let signer = trusted.signers.iter().find(|signer| signer.key == key);
    let expires_ms = signer.and_then(|signer| signer.expires_ms);
    let is_taken = trusted.revocation(id).is_none()
        && signer.is_some()
        && expires_ms.is_none_or(|expires_ms| expires_ms >= now_ms);
    if !is_taken && policy != Policy::Off {
        let finding = format!("what is put here is signed by {id}, which is {standing} here");
        let hint = match signer {
            None => format!("`pilotlight keys trust {key} --name NAME`"),
            Some(_) => "`pilotlight keys rotate`, then sign with the new key".to_owned(),
        };
        return Some(FindingReport::problem(SUBJECT, finding, hint));
    }
    let is_soon = is_taken && expires_ms.is_some_and(|expires_ms| expires_ms - now_ms < SOON_MS);
    is_soon.then(|| {
        let finding = format!("the signing key here, {id}, is {standing}");
        FindingReport::note(SUBJECT, finding, "`pilotlight keys rotate`, and distribute the trust file")
    })
}

/// Why entries of compilers would not be taken, by reason and signer.
fn of_entries(client: &Client, policy: Policy, target: &Target) -> Vec<FindingReport> {
    let keys = keys_of(target);
    let names: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
    let answers = client.signers_of(&names);
    let mut refusals: BTreeMap<(&str, Option<KeyId>), (usize, Refusal)> = BTreeMap::new();
    let mut seen = 0usize;
    for answer in answers.into_iter().flatten() {
        seen += 1;
        if let Err(Error::Unverified(refusal)) = answer {
            let place = (refusal.reason().name(), refusal.signer());
            refusals.entry(place).or_insert((0, refusal)).0 += 1;
        }
    }
    let finding = |(count, refusal): (usize, Refusal)| {
        let hint = match (refusal.reason(), refusal.signer()) {
            (Reason::UnknownSigner, Some(id)) => format!(
                "if signer {id} is yours: `pilotlight keys trust PUBLIC_KEY --name NAME` with its public key, which \
                 `pilotlight keys show` prints where it signs"
            ),
            (reason, _) => reason.hint().to_owned(),
        };
        let finding = format!("{count} of {seen} entries looked at: {refusal}");
        match policy {
            Policy::Off => FindingReport::note(SUBJECT, finding, hint),
            Policy::Warn | Policy::Require => FindingReport::problem(SUBJECT, finding, hint),
        }
    };
    refusals.into_values().map(finding).collect()
}

/// Some keys of compilers' entries where jobs of this host look; none where that cannot be found out, which others say.
fn keys_of(target: &Target) -> Vec<String> {
    let page = || {
        let namespace = access::namespace(target)?;
        access::open(target)?.entries(&namespace, 0, ENTRIES_MAX)
    };
    let entries = page().map(|page| page.entries).unwrap_or_default();
    let is_of_compilers = |key: &String| Kind::of_key(key.as_bytes()).is_compile_cache();
    entries.into_iter().map(|entry| entry.key).filter(is_of_compilers).collect()
}
