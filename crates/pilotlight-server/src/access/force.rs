//! The users in force, and how others come into force while the server runs.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use super::attempts::Attempts;
use super::audit::Audit;
use super::file::UsersError;
use super::users::Users;

/// Longer than any users file, in bytes.
const FILE_LEN_MAX: u64 = 16 << 20;
/// Bits of a file's mode by which others than its owner may write it.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Who may what, now.
#[derive(Debug)]
pub struct Access {
    users: RwLock<Arc<Users>>,
    /// Grows when the users were exchanged: a connection that sees another one looks itself up again.
    generation: AtomicU64,
    source: Option<Source>,
    /// Whether other machines can reach the server: then nobody may write who proves nothing.
    is_reachable: AtomicBool,
    pub(crate) attempts: Attempts,
    /// Where it is noted who did what.
    pub audit: Audit,
    wake: Wake,
}

/// Where the users come from.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    password: Option<String>,
    /// The file as it was when it was last looked at.
    seen: Mutex<Option<Stamp>>,
}

/// What changes with a file. A file that is renamed into place has another number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified_ns: i128,
    number: u64,
    len: u64,
}

/// Why a users file does not come into force.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It cannot be read.
    #[error("could not read the users file `{}`", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others could make themselves users.
    #[error("the users file `{}` can be written by others than its owner", path.display())]
    Unsafe {
        /// Which.
        path: PathBuf,
    },
    /// Other machines can reach the server, and could write then.
    #[error("by the users file `{}`, `default`, who needs no secret, may write on a server that others can reach", path.display())]
    OpenDoor {
        /// Which.
        path: PathBuf,
    },
    /// It cannot be understood.
    #[error("could not understand the users file `{}`", path.display())]
    Wrong {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: UsersError,
    },
}

impl AccessError {
    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreadable { .. } => {
                Some("make one with `pilotlight users add NAME --file FILE`".to_owned())
            }
            Self::Unsafe { path } => Some(format!("`chmod go-w {}`", path.display())),
            Self::OpenDoor { .. } => Some("take the right `w` from it".to_owned()),
            Self::Wrong { source, .. } => source.hint().map(str::to_owned),
        }
    }
}

/// What ends the wait of [`Access::watch`].
#[derive(Debug, Default)]
struct Wake {
    state: Mutex<Woken>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Woken {
    #[default]
    No,
    /// To look at the file now, whether or not it seems to have changed.
    ToReload,
    ToEnd,
}

impl Access {
    /// Of a server without a users file.
    #[must_use]
    pub fn of_password(password: Option<&str>) -> Self {
        Self::new(Users::of_password(password), None)
    }

    /// By the users file at `path`; with a password, `default` is who gives it.
    ///
    /// # Errors
    /// When the file cannot be read or understood, or others could write it.
    pub fn of_file(path: &Path, password: Option<&str>) -> Result<Self, AccessError> {
        let source =
            Source { path: path.to_owned(), password: password.map(str::to_owned), seen: Mutex::default() };
        let users = source.read()?;
        Ok(Self::new(users, Some(source)))
    }

    fn new(users: Users, source: Option<Source>) -> Self {
        Self {
            users: RwLock::new(Arc::new(users)),
            generation: AtomicU64::new(0),
            source,
            is_reachable: AtomicBool::new(false),
            attempts: Attempts::default(),
            audit: Audit::default(),
            wake: Wake::default(),
        }
    }

    /// The same, noting who did what.
    #[must_use]
    pub fn with_audit(mut self, audit: Audit) -> Self {
        self.audit = audit;
        self
    }

    /// From here on refuses users of whom one who proves nothing may write: what the start would have refused, no reload brings.
    pub fn keep_strangers_out(&self) {
        self.is_reachable.store(true, Ordering::Relaxed);
    }

    /// The users in force.
    pub fn users(&self) -> Arc<Users> {
        Arc::clone(&self.users.read())
    }

    /// Which users are in force. Ask for this first, then for them: so a change in between is noticed next time.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether there is a file to be looked after.
    pub(super) fn has_file(&self) -> bool {
        self.source.is_some()
    }

    /// Brings what the users file says into force.
    ///
    /// # Errors
    /// Why not: then the users before stay.
    pub fn reload(&self) -> Result<(), AccessError> {
        let Some(source) = &self.source else { return Ok(()) };
        let users = Arc::new(source.read()?);
        if self.is_reachable.load(Ordering::Relaxed) && users.anybody_writes() {
            return Err(AccessError::OpenDoor { path: source.path.clone() });
        }
        users.succeed(&self.users());
        *self.users.write() = users;
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// The same, if the file is another than it was; `None` if it is not.
    pub(super) fn reload_if_changed(&self) -> Option<Result<(), AccessError>> {
        self.source.as_ref()?.is_changed().then(|| self.reload())
    }

    /// What `SIGHUP` asks for: looks at the users file again, and begins a new audit log. Returns at once.
    pub fn hang_up(&self) {
        self.audit.reopen();
        self.wake(Woken::ToReload);
    }

    pub(super) fn wake(&self, why: Woken) {
        let mut state = self.wake.state.lock();
        // An end is final.
        if *state != Woken::ToEnd {
            *state = why;
        }
        self.wake.changed.notify_all();
    }

    /// Waits for so long, or until something else is to be done.
    pub(super) fn wait(&self, duration: Duration) -> Woken {
        let until = Instant::now() + duration;
        let mut state = self.wake.state.lock();
        while *state == Woken::No {
            if self.wake.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        match *state {
            Woken::ToEnd => Woken::ToEnd,
            _ => std::mem::take(&mut state),
        }
    }
}

impl Source {
    fn read(&self) -> Result<Users, AccessError> {
        let fail = |source| AccessError::Unreadable { path: self.path.clone(), source };
        // First: what is changed while it is read is looked at again.
        *self.seen.lock() = Stamp::of(&self.path);
        let mut file = File::open(&self.path).map_err(fail)?;
        if file.metadata().map_err(fail)?.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(AccessError::Unsafe { path: self.path.clone() });
        }
        let mut text = String::new();
        file.by_ref().take(FILE_LEN_MAX).read_to_string(&mut text).map_err(fail)?;
        Users::parse(&text, self.password.as_deref())
            .map_err(|source| AccessError::Wrong { path: self.path.clone(), source })
    }

    fn is_changed(&self) -> bool {
        *self.seen.lock() != Stamp::of(&self.path)
    }
}

impl Stamp {
    /// `None` of a file that is not there.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let modified_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Some(Self { modified_ns, number: metadata.ino(), len: metadata.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Secret;

    fn write(path: &Path, text: &str) {
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    #[test]
    fn a_file_that_changed_comes_into_force_and_a_wrong_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.toml");
        let secret = Secret::generate().unwrap();
        assert!(matches!(Access::of_file(&path, None), Err(AccessError::Unreadable { .. })));
        write(&path, &format!("[users.ci]\nsecret = \"{}\"\n", secret.hash()));
        let access = Access::of_file(&path, None).unwrap();
        let is_known = || access.users().by_secret(secret.as_str().as_bytes()).is_some();
        assert!(is_known() && access.reload_if_changed().is_none());
        for wrong in ["[users.ci]\n", "nonsense", ""] {
            let generation = access.generation();
            write(&path, wrong);
            let reloaded = access.reload_if_changed().unwrap();
            assert_eq!(reloaded.is_ok(), wrong.is_empty(), "{wrong}: {reloaded:?}");
            assert_eq!(access.generation() > generation, wrong.is_empty());
            assert_eq!(is_known(), !wrong.is_empty(), "{wrong}");
            // Said once, not every few seconds.
            assert!(access.reload_if_changed().is_none());
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(access.reload_if_changed(), Some(Err(AccessError::Unreadable { .. }))));
        assert!(access.reload_if_changed().is_none());
    }

    #[test]
    fn what_the_start_would_have_refused_no_reload_brings() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.toml");
        write(&path, "[users.default]\ngrants = [\"r *\"]\n");
        let access = Access::of_file(&path, None).unwrap();
        write(&path, "[users.default]\ngrants = [\"rw *\"]\n");
        access.keep_strangers_out();
        assert!(matches!(access.reload(), Err(AccessError::OpenDoor { .. })));
        assert!(!access.users().anybody_writes());
        write(&path, "[users.default]\ngrants = []\n");
        access.reload().unwrap();
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.toml");
        write(&path, "");
        for (mode, is_safe) in [(0o600, true), (0o644, true), (0o620, false), (0o602, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let access = Access::of_file(&path, None);
            assert_eq!(access.is_ok(), is_safe, "{mode:o}");
            assert!(
                access.is_ok_and(|_| true) || AccessError::Unsafe { path: path.clone() }.hint().is_some()
            );
        }
    }

    #[test]
    fn a_wait_ends_for_a_reload_and_for_good() {
        let access = Access::of_password(None);
        assert_eq!(access.wait(Duration::ZERO), Woken::No);
        access.hang_up();
        assert_eq!(access.wait(Duration::from_secs(3600)), Woken::ToReload);
        assert_eq!(access.wait(Duration::ZERO), Woken::No);
        access.wake(Woken::ToEnd);
        access.hang_up();
        assert_eq!(access.wait(Duration::from_secs(3600)), Woken::ToEnd);
        assert_eq!(access.wait(Duration::from_secs(3600)), Woken::ToEnd);
    }
}
