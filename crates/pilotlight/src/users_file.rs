//! Changes a users file in place: a person's comments stay, but for those in the lines that change.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use pilotlight_server::access::{Secret, SecretHash, Users};
use rustix::fs::{FlockOperation, flock};
use toml_edit::{Array, DocumentMut, Item, Table, value};

use crate::failure::Failure;

/// Of a file that was not there. Its hashes are of no use to anybody, but who knows the users knows whom to ask.
const MODE: u32 = 0o600;
/// Others may never write it: the server would refuse it.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A users file that is being changed. Nobody else changes it by this meanwhile.
#[derive(Debug)]
pub(crate) struct UsersFile {
    path: PathBuf,
    document: DocumentMut,
    /// Locked for as long as it is open.
    _directory: File,
}

/// What a new user gets.
#[derive(Debug, Default)]
pub(crate) struct NewUser<'a> {
    pub(crate) home: Option<&'a str>,
    pub(crate) grants: &'a [String],
    pub(crate) certificate: Option<&'a str>,
    pub(crate) rate: Option<&'a str>,
}

impl UsersFile {
    /// Opens the file at `path`, or begins one.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        // What the file is, not what leads there: a link is to stay one.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let fail = |error: &dyn std::error::Error| {
            Failure::new(format!("could not open the users file `{}`", path.display())).because(error)
        };
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(|error| fail(&error))?;
        let directory = File::open(directory).map_err(|error| fail(&error))?;
        flock(&directory, FlockOperation::LockExclusive).map_err(|error| fail(&error))?;
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(fail(&error)),
        };
        // As the server reads it: what is wrong is said with its line, and a hint.
        checked(&path, &text)?;
        let document = text.parse().map_err(|error: toml_edit::TomlError| fail(&error))?;
        Ok(Self { path, document, _directory: directory })
    }

    /// Adds a user with a new secret.
    pub(crate) fn add(&mut self, name: &str, new: &NewUser<'_>) -> Result<Secret, Failure> {
        if self.user(name).is_some() {
            return Err(Failure::new(format!("user `{name}` is there already"))
                .with_hint(format!("`pilotlight users rotate {name}` gives it another secret")));
        }
        let secret = new_secret()?;
        let mut table = Table::new();
        table.insert("secret", value(secret.hash().to_string()));
        for (key, text) in [("home", new.home), ("certificate", new.certificate), ("rate", new.rate)] {
            if let Some(text) = text {
                table.insert(key, value(text));
            }
        }
        table.insert("grants", value(new.grants.iter().map(String::as_str).collect::<Array>()));
        let users = self.document.entry("users").or_insert_with(|| {
            let mut users = Table::new();
            // `[users.NAME]` says it.
            users.set_implicit(true);
            Item::Table(users)
        });
        let Some(users) = users.as_table_like_mut() else { return Err(self.no_table()) };
        users.insert(name, Item::Table(table));
        Ok(secret)
    }

    /// Removes a user.
    pub(crate) fn remove(&mut self, name: &str) -> Result<(), Failure> {
        let users = self.document.get_mut("users").and_then(Item::as_table_like_mut);
        match users.and_then(|users| users.remove(name)) {
            Some(_) => Ok(()),
            None => Err(self.unknown(name)),
        }
    }

    /// Gives a user a new secret beside those it has.
    pub(crate) fn rotate(&mut self, name: &str) -> Result<Secret, Failure> {
        let secret = new_secret()?;
        let mut secrets = self.secrets(name)?;
        secrets.insert(0, secret.hash());
        self.set_secrets(name, &secrets)?;
        Ok(secret)
    }

    /// Takes all secrets from a user but the one that was added last, and says how many those were.
    pub(crate) fn drop_old(&mut self, name: &str) -> Result<usize, Failure> {
        let secrets = self.secrets(name)?;
        let (newest, old) = secrets.split_at(secrets.len().min(1));
        if !old.is_empty() {
            self.set_secrets(name, newest)?;
        }
        Ok(old.len())
    }

    /// Writes the file anew, if the server would take it: whole or not at all, and on the disk when this returns.
    pub(crate) fn save(&self) -> Result<(), Failure> {
        let text = self.document.to_string();
        checked(&self.path, &text)?;
        self.replace(&text).map_err(|error| {
            Failure::new(format!("could not write the users file `{}`", self.path.display())).because(&error)
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let before = std::fs::metadata(&self.path).ok();
        let mode = before.as_ref().map_or(MODE, |before| before.mode() & 0o777 & !WRITABLE_BY_OTHERS);
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = self.path.with_file_name(name);
        // What an earlier run left that was killed.
        let _ = std::fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&new)?;
        let written = (|| {
            file.write_all(text.as_bytes())?;
            if let Some(before) = before {
                let own = file.metadata()?;
                // Whoever edits it as root must not take it from the server.
                if (own.uid(), own.gid()) != (before.uid(), before.gid()) {
                    fchown(&file, Some(before.uid()), Some(before.gid()))?;
                }
            }
            file.set_permissions(Permissions::from_mode(mode))?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)?;
            self._directory.sync_all()
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        written
    }

    fn user(&self, name: &str) -> Option<&Item> {
        self.document.get("users")?.get(name)
    }

    fn secrets(&self, name: &str) -> Result<Vec<SecretHash>, Failure> {
        let user = self.user(name).ok_or_else(|| self.unknown(name))?;
        let several = user.get("secrets").and_then(Item::as_array);
        let one = user.get("secret").and_then(Item::as_str);
        let texts = several.into_iter().flatten().filter_map(toml_edit::Value::as_str).chain(one);
        // The file was checked when it was opened.
        Ok(texts.filter_map(|text| text.parse().ok()).collect())
    }

    fn set_secrets(&mut self, name: &str, secrets: &[SecretHash]) -> Result<(), Failure> {
        let users = self.document.get_mut("users").and_then(|users| users.get_mut(name));
        let Some(user) = users.and_then(Item::as_table_like_mut) else { return Err(self.unknown(name)) };
        let texts: Vec<String> = secrets.iter().map(SecretHash::to_string).collect();
        // In place where the key is there already, so that comments before it stay.
        match texts.as_slice() {
            [one] => {
                user.remove("secrets");
                user.insert("secret", value(one));
            }
            several => {
                user.remove("secret");
                user.insert("secrets", value(several.iter().map(String::as_str).collect::<Array>()));
            }
        }
        Ok(())
    }

    fn unknown(&self, name: &str) -> Failure {
        Failure::new(format!("there is no user `{name}` in `{}`", self.path.display()))
            .with_hint("`pilotlight users list` shows who is there")
    }

    fn no_table(&self) -> Failure {
        Failure::new(format!("`users` in `{}` is no table", self.path.display()))
    }
}

/// The users of a file with this text.
pub(crate) fn checked(path: &Path, text: &str) -> Result<Users, Failure> {
    Users::parse(text, None).map_err(|error| {
        Failure::new(format!("could not understand the users file `{}`", path.display()))
            .because(&error)
            .with_hint_if(error.hint())
    })
}

fn new_secret() -> Result<Secret, Failure> {
    Secret::generate().map_err(|error| Failure::new("could not make a secret").because(&error))
}
