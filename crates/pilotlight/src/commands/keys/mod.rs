//! `pilotlight keys`.

mod edit;
mod show;

pub(super) use self::show::client;

use std::fs;
use std::path::{Path, PathBuf};

use pilotlight_cache::trust::{KeyId, NewKey, PublicKey, SigningKey, TrustFile, Trusted, day_of, expiry_of};
use pilotlight_cache::{Clock, Kind, Namespace, SystemClock};

use crate::cli::{Keys, KeysIn, KeysNew, KeysRevoke, KeysRotate, KeysTrust, Trusting};
use crate::environment::{self, TRUST_FILE};
use crate::failure::Failure;
use crate::output::{self, Answer};

const SUFFIX: &str = "key";

pub(super) fn run(action: &Keys) -> Result<Answer, Failure> {
    match action {
        Keys::New(arguments) => new(arguments),
        Keys::Show(arguments) => show::run(arguments),
        Keys::Trust(arguments) => trust(arguments),
        Keys::Revoke(arguments) => revoke(arguments),
        Keys::Rotate(arguments) => rotate(arguments),
    }
}

fn new(arguments: &KeysNew) -> Result<Answer, Failure> {
    let path = path_of(&directory(&arguments.place)?, &arguments.name)?;
    let public = make(&path)?;
    output::line(public)?;
    output::note(format_args!("made signer {}, in {}", public.id(), path.display()));
    output::note("to sign with it, where jobs put:");
    output::note(format_args!("  export PILOTLIGHT_SIGNING_KEY={}", path.display()));
    output::note("to trust it, where jobs get:");
    output::note(format_args!("  pilotlight keys trust {public} --name {}", arguments.name));
    Ok(Answer::Yes)
}

fn trust(arguments: &KeysTrust) -> Result<Answer, Failure> {
    let KeysTrust { public_key, name, expires, namespaces, kinds, trust } = arguments;
    let key: PublicKey = public_key.parse().map_err(of_argument)?;
    let expires_ms = expires.as_deref().map(moment).transpose()?;
    let namespaces: Vec<Namespace> =
        namespaces.iter().map(|name| Namespace::new(name)).collect::<Result<_, _>>()?;
    let kinds: Vec<Kind> =
        Kind::ALL.into_iter().filter(|kind| kinds.iter().any(|name| kind.name() == name)).collect();
    let signer = Trusted {
        name: name.clone(),
        key,
        expires_ms,
        namespaces: (!namespaces.is_empty()).then_some(namespaces),
        kinds: (!kinds.is_empty()).then_some(kinds),
    };
    let path = trust_file(trust)?;
    let before = edit::read(&path)?;
    if let Some(known) = before.parsed.signers.iter().find(|known| known.key == key) {
        return Err(Failure::new(format!("signer {} is trusted already, as `{}`", key.id(), known.name))
            .with_hint(format!("edit its entry in `{}`", path.display())));
    }
    edit::write(&path, &before.with_signer(&signer, expires.as_deref())?)?;
    output::note(format_args!("signer {} is trusted as `{name}`, in {}", key.id(), path.display()));
    if before.parsed.revocation(key.id()).is_some() {
        output::note("warning: it is revoked in the same file, and that counts");
    }
    Ok(Answer::Yes)
}

fn revoke(arguments: &KeysRevoke) -> Result<Answer, Failure> {
    let id: KeyId = arguments.id.parse().map_err(of_argument)?;
    let path = trust_file(&arguments.trust)?;
    let before = edit::read(&path)?;
    if before.parsed.revocation(id).is_some() {
        output::note(format_args!("signer {id} is revoked already, in {}", path.display()));
        return Ok(Answer::Yes);
    }
    let today = day_of(SystemClock.now_ms());
    edit::write(&path, &before.with_revoked(id, &arguments.reason, &today)?)?;
    output::note(format_args!("signer {id} is revoked, in {}", path.display()));
    output::note("distribute that file to every reader and server; a process reads it when it starts");
    if !before.parsed.signers.iter().any(|signer| signer.key.id() == id) {
        output::note("warning: no trusted signer has this id");
    }
    Ok(Answer::Yes)
}

fn rotate(arguments: &KeysRotate) -> Result<Answer, Failure> {
    let KeysRotate { name, overlap, place, trust } = arguments;
    let directory = directory(place)?;
    let old_path = path_of(&directory, name)?;
    let old = SigningKey::read(&old_path).map_err(|error| {
        Failure::new("could not read the key to replace")
            .because(&error)
            .with_hint("`--name` names it; `pilotlight keys show` lists the keys that are here")
    })?;
    let path = trust_file(trust)?;
    let before = edit::read(&path)?;
    let Some(known) = before.parsed.signers.iter().find(|signer| signer.key == old.public()) else {
        return Err(Failure::new(format!(
            "signer {} is not trusted, so nobody takes what it signs",
            old.public().id()
        ))
        .with_hint(format!("trust it first: `pilotlight keys trust {} --name {name}`", old.public())));
    };
    let now_ms = SystemClock.now_ms();
    let overlap_ms = u64::try_from(overlap.as_millis()).unwrap_or(u64::MAX);
    let last_day = day_of(now_ms.saturating_add(overlap_ms).min(LAST_MS));
    // One that expires earlier is not trusted for longer by being replaced.
    let expires = known.expires_ms.map_or(last_day.clone(), |ms| day_of(ms).min(last_day));
    let new = NewKey::generate().map_err(of_argument)?;
    let new_path = path_of(&directory, &format!("{name}-{}", new.public().id()))?;
    let signer = Trusted { key: new.public(), expires_ms: None, ..known.clone() };
    let after = before.with_expiry(old.public(), &expires)?.with_signer(&signer, None)?;
    // In this order: a key that nobody knows of does no harm.
    new.write(&new_path).map_err(of_argument)?;
    edit::write(&path, &after)?;
    output::line(new.public())?;
    output::note(format_args!("made signer {}, in {}", new.public().id(), new_path.display()));
    output::note(format_args!("signer {} is trusted until {expires}", old.public().id()));
    output::note("1. distribute the trust file to every reader and server, and start them anew:");
    output::note(format_args!("  {}", path.display()));
    output::note("2. then sign with the new key:");
    output::note(format_args!("  export PILOTLIGHT_SIGNING_KEY={}", new_path.display()));
    Ok(Answer::Yes)
}

/// The last moment of the year 9999: what lasts longer cannot be written.
const LAST_MS: u64 = 253_402_300_799_000;

fn make(path: &Path) -> Result<PublicKey, Failure> {
    let directory = path.parent().unwrap_or(path);
    fs::create_dir_all(directory)
        .map_err(|error| Failure::new(format!("could not make `{}`", directory.display())).because(&error))?;
    let new = NewKey::generate().map_err(of_argument)?;
    new.write(path).map_err(|error| {
        let is_there = path.exists();
        let failure = Failure::new("the key was not made").because(&error);
        failure.with_hint_if(is_there.then_some("choose another `--name`, or `pilotlight keys rotate`"))
    })?;
    Ok(new.public())
}

fn of_argument(error: pilotlight_cache::trust::TrustError) -> Failure {
    Failure::new(error.to_string()).because(&error)
}

fn moment(text: &str) -> Result<u64, Failure> {
    let ms = expiry_of(text).ok_or_else(|| {
        Failure::new(format!("`--expires` is `{}`", text.escape_debug()))
            .with_hint("write a day, `2027-01-31`, or a moment, `2027-01-31T12:00:00Z`")
    })?;
    if ms < SystemClock.now_ms() {
        return Err(Failure::new(format!("`--expires` is `{text}`, which has passed")));
    }
    Ok(ms)
}

fn directory(place: &KeysIn) -> Result<PathBuf, Failure> {
    place.dir.clone().or_else(environment::keys_directory).ok_or_else(|| {
        Failure::new("there is no directory for keys: neither XDG_CONFIG_HOME nor HOME is set")
            .with_hint("choose one with `--dir DIR`")
    })
}

fn path_of(directory: &Path, name: &str) -> Result<PathBuf, Failure> {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_.@".contains(character);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
        return Err(Failure::new(format!("the name `{}` cannot be a file's", name.escape_debug()))
            .with_hint("use letters, digits, `-`, `_`, `.` and `@`"));
    }
    Ok(directory.join(format!("{name}.{SUFFIX}")))
}

fn trust_file(trust: &Trusting) -> Result<PathBuf, Failure> {
    let named = trust.file.clone().or_else(|| environment::variable("PILOTLIGHT_TRUST").map(PathBuf::from));
    let usual = || environment::keys_directory().map(|directory| directory.join(TRUST_FILE));
    named.or_else(usual).ok_or_else(|| {
        Failure::new("there is no place for the trust file: neither XDG_CONFIG_HOME nor HOME is set")
            .with_hint("choose one with `--file FILE`")
    })
}

/// How a signer stands by `trusted`, in a word or two.
pub(super) fn standing(trusted: &TrustFile, id: KeyId, now_ms: u64) -> String {
    if let Some(revoked) = trusted.revocation(id) {
        let reason = if revoked.reason.is_empty() { "" } else { ": " };
        return format!("revoked{reason}{}", revoked.reason.escape_debug());
    }
    match trusted.signers.iter().find(|signer| signer.key.id() == id).map(|signer| signer.expires_ms) {
        None => "not trusted".to_owned(),
        Some(None) => "trusted".to_owned(),
        Some(Some(expires_ms)) if expires_ms < now_ms => format!("expired on {}", day_of(expires_ms)),
        Some(Some(expires_ms)) => format!("trusted until {}", day_of(expires_ms)),
    }
}
