//! A users file and the secrets of those in it, for tests.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pilotlight_server::Config;
use pilotlight_server::access::{Access, Audit, Secret};

use crate::client::{Client, Running, config};

/// A users file in a directory of its own.
pub(crate) struct UsersFile {
    directory: tempfile::TempDir,
    secrets: BTreeMap<&'static str, Secret>,
}

impl UsersFile {
    /// A file with this text, in which `SECRET(name)` stands for the hash of a new secret of that name.
    pub(crate) fn new(text: &str, names: &[&'static str]) -> Self {
        let secrets = names.iter().map(|name| (*name, Secret::generate().unwrap())).collect();
        let file = Self { directory: tempfile::tempdir().unwrap(), secrets };
        file.write(text);
        file
    }

    /// Exchanges the text.
    pub(crate) fn write(&self, text: &str) {
        let mut text = text.to_owned();
        for (name, secret) in &self.secrets {
            text = text.replace(&format!("SECRET({name})"), &secret.hash().to_string());
        }
        let new = self.directory.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("users.toml")
    }

    pub(crate) fn audit_log(&self) -> PathBuf {
        self.directory.path().join("audit.jsonl")
    }

    pub(crate) fn secret(&self, name: &str) -> &str {
        self.secrets[name].as_str()
    }

    pub(crate) fn serve(&self) -> Running {
        self.serve_with(config())
    }

    pub(crate) fn serve_with(&self, config: Config) -> Running {
        let access = Access::of_file(&self.path(), config.password.as_deref()).unwrap();
        Running::for_users(access, config)
    }

    pub(crate) fn serve_audited(&self) -> Running {
        let audit = Audit::open(&self.audit_log()).unwrap();
        let access = Access::of_file(&self.path(), None).unwrap().with_audit(audit);
        Running::for_users(access, config())
    }

    /// A connection that is logged in, with the secret of the same name.
    pub(crate) fn log_in(&self, running: &Running, name: &str) -> Client<std::net::TcpStream> {
        let mut client = running.connect();
        assert_eq!(client.ask(&format!("AUTH {name} {}", self.secret(name))), "+OK\r\n");
        client
    }
}
