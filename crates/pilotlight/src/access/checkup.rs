//! What is wrong with the directory of a stopped server, and with whoever looks at it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use pilotlight_cache::client::DIRECTORY_ROOT;
use pilotlight_cache::{OpenError, disk_room};
use pilotlight_server::report::FindingReport;

use super::Access;
use super::directory::Directory;
use crate::failure::Failure;
use crate::open::{self, Purpose};

/// The lock that a process has on a store while it is open.
const LOCK: &str = "LOCK";
/// What others than the owner may not do with a store.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Whether a store's directory is in use, and by whom, as far as the system tells.
pub(super) fn holder(dir: &Path) -> Option<String> {
    let file = fs::File::open(dir.join(LOCK)).ok()?;
    match file.try_lock_shared() {
        Err(fs::TryLockError::WouldBlock) => {}
        Ok(()) | Err(fs::TryLockError::Error(_)) => return None,
    }
    let inode = file.metadata().ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let process = locks.lines().find_map(|line| process_in(line, inode));
    let Some(process) = process else { return Some("another process".to_owned()) };
    let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let command: String = command.trim().escape_debug().take(80).collect();
    Some(if command.is_empty() {
        format!("process {process}")
    } else {
        format!("process {process} ({command})")
    })
}

/// The process that holds a lock on this inode, by a line like `1: FLOCK  ADVISORY  WRITE 4711 fe:01:123 0 EOF`.
fn process_in(line: &str, inode: u64) -> Option<u32> {
    let mut fields = line.split_whitespace().skip(4);
    let process = fields.next()?.parse().ok()?;
    let is_it = fields.next()?.rsplit(':').next()?.parse() == Ok(inode);
    is_it.then_some(process)
}

/// Refuses a directory that cannot be looked into: one that a server has open, or that is none of a server's.
pub(super) fn refuse_others(dir: &Path) -> Result<(), Failure> {
    refuse_shared(dir)?;
    match holder(dir) {
        Some(holder) => Err(Failure::new(format!("`{}` is in use by {holder}", dir.display()))
            .with_hint("ask the server there, with `--server URL`, or stop it first")),
        None => Ok(()),
    }
}

/// Refuses a directory that clients use as a cache by themselves.
fn refuse_shared(dir: &Path) -> Result<(), Failure> {
    if !dir.join(DIRECTORY_ROOT).is_dir() {
        return Ok(());
    }
    let shown = dir.display();
    Err(Failure::new(format!("`{shown}` is a directory that jobs share (`file://{shown}`), and no server's"))
        .with_hint(
            "jobs keep it by themselves; `--data-dir` takes the directory that `serve` named at its start",
        ))
}

/// Everything that is found without changing anything.
pub(super) fn examine(dir: &Path) -> Result<Vec<FindingReport>, Failure> {
    refuse_shared(dir)?;
    let mut found = of_permissions(dir)?;
    found.extend(disk_room(dir).and_then(|room| FindingReport::of_room(room, 0)));
    if let Some(holder) = holder(dir) {
        let hint = "ask the server there, with `pilotlight doctor --server URL`, or stop it first";
        found.push(FindingReport::problem("directory", format!("it is in use by {holder}"), hint));
        return Ok(found);
    }
    match open::examine(dir) {
        Ok(examination) => found.extend(FindingReport::of_examination(&examination)),
        Err(error) => {
            found.push(of_refusal(dir, &error));
            return Ok(found);
        }
    }
    if let Ok(directory) = Directory::open(dir, Purpose::Look) {
        found.extend(FindingReport::of_quarantine(directory.quarantine()?.len() as u64));
    }
    Ok(found)
}

fn of_refusal(dir: &Path, error: &OpenError) -> FindingReport {
    let has_log = dir.join("log").is_dir();
    let hint = match error {
        OpenError::NotAStore { .. } if has_log => {
            "FORMAT has the seed of every check: put it back from a backup. Without it nothing in here can be checked, so \
             nothing is mended; move the directory away and start with a new one"
                .to_owned()
        }
        error => error.hint(),
    };
    FindingReport::problem("directory", error.to_string(), hint)
}

fn of_permissions(dir: &Path) -> Result<Vec<FindingReport>, Failure> {
    let mut found = Vec::new();
    let metadata = dir.metadata().map_err(|error| {
        Failure::new(format!("could not look at `{}`", dir.display()))
            .because(&error)
            .with_hint("`--data-dir` takes the directory that `serve` was given or named at its start")
    })?;
    if !metadata.is_dir() {
        return Err(Failure::new(format!("`{}` is no directory", dir.display())));
    }
    let mode = metadata.mode() & 0o777;
    if mode & WRITABLE_BY_OTHERS != 0 {
        let hint = "whoever can write here can run code on every reader: `chmod go-w` it";
        let finding = format!("others than its owner may write it (mode {mode:o})");
        found.push(FindingReport::problem("permissions", finding, hint).mendable());
    }
    for name in ["", "log", "blobs", "quarantine"] {
        let path = dir.join(name);
        let listed = fs::read_dir(&path).map(|_| ());
        let access = listed
            .and_then(|()| rustix::fs::access(&path, rustix::fs::Access::WRITE_OK).map_err(io::Error::from));
        match access {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let finding = format!("we may not write `{}`", path.display());
                let hint = "run this as the user that the server runs as, or give the directory to it with `chown -R`";
                found.push(FindingReport::problem("permissions", finding, hint));
            }
            // What is missing is another's to find.
            _ => {}
        }
    }
    Ok(found)
}

/// Takes the right to write from others.
pub(super) fn mend_permissions(dir: &Path) -> Result<bool, Failure> {
    let failed = |error: &io::Error| {
        Failure::new(format!("could not change who may write `{}`", dir.display())).because(error)
    };
    let mode = dir.metadata().map_err(|error| failed(&error))?.mode();
    if mode & WRITABLE_BY_OTHERS == 0 {
        return Ok(false);
    }
    let permissions = fs::Permissions::from_mode(mode & 0o7777 & !WRITABLE_BY_OTHERS);
    fs::set_permissions(dir, permissions).map_err(|error| failed(&error))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_by_the_locks_inode() {
        let line = "17: FLOCK  ADVISORY  WRITE 4711 fe:01:123 0 EOF";
        assert_eq!(process_in(line, 123), Some(4711));
        assert_eq!(process_in(line, 12), None);
        assert_eq!(process_in("17: -> FLOCK", 123), None);
    }
}
