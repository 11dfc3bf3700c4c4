//! The files that TLS needs: read at the start, at SIGHUP and when they change.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pilotlight_server::{ClientCertificates, Tls, TlsError, TlsFiles};

use crate::failure::Failure;
use crate::settings::TlsSettings;

/// How often the files are looked at. Whoever renews certificates does so days ahead.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Above any chain or bundle of authorities: what is larger is another file.
const FILE_LEN_MAX: u64 = 16 << 20;

/// A server's TLS, and the files that it comes from.
#[derive(Debug)]
pub(crate) struct Certificates {
    settings: TlsSettings,
    tls: Arc<Tls>,
    /// How the files looked when they were last read, whatever came of it: what is wrong is said once.
    seen: Mutex<Vec<Stamp>>,
}

/// What changes when a file does: also when another takes its place under an old date, as a link that is turned does.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(Option<(u64, u64, i64, i64, u64)>);

/// The contents of the files.
struct Contents {
    certificates: Vec<u8>,
    key: Vec<u8>,
    client_authority: Option<Vec<u8>>,
}

impl Certificates {
    pub(super) fn open(settings: &TlsSettings) -> Result<Self, Failure> {
        let settings = settings.clone();
        let seen = Mutex::new(stamps(&settings));
        warn_of_readers(&settings.key);
        let contents = Contents::read(&settings)?;
        let tls = Tls::new(&contents.files(&settings)).map_err(|error| unusable(&settings, &error))?;
        Ok(Self { settings, tls: Arc::new(tls), seen })
    }

    pub(super) fn tls(&self) -> &Arc<Tls> {
        &self.tls
    }

    /// Reads the files again if they changed since that was done last.
    pub(super) fn reload_if_changed(&self) {
        if stamps(&self.settings) != *self.seen.lock() {
            self.reload();
        }
    }

    /// Has new connections begin with what the files hold now. If that cannot be used, what there was stays.
    pub(super) fn reload(&self) {
        // Before they are read: what changes meanwhile is seen next time.
        *self.seen.lock() = stamps(&self.settings);
        let replaced = Contents::read(&self.settings).and_then(|contents| {
            let replaced = self.tls.replace(&contents.files(&self.settings));
            replaced.map_err(|error| unusable(&self.settings, &error))
        });
        match replaced {
            Ok(()) => {
                warn_of_readers(&self.settings.key);
                tracing::info!("the TLS certificates were read again");
            }
            Err(failure) => {
                let cause = failure.to_string().trim_end().replace('\n', " ");
                tracing::error!("the TLS certificates stay as they were: {cause}");
            }
        }
    }
}

impl Contents {
    fn read(settings: &TlsSettings) -> Result<Self, Failure> {
        Ok(Self {
            certificates: contents(&settings.certificate, "certificate")?,
            key: contents(&settings.key, "key")?,
            client_authority: settings
                .client_authority
                .as_deref()
                .map(|path| contents(path, "authorities for clients"))
                .transpose()?,
        })
    }

    fn files(&self, settings: &TlsSettings) -> TlsFiles<'_> {
        let clients = match &self.client_authority {
            None => ClientCertificates::Ignored,
            Some(authority) if settings.are_clients_required => ClientCertificates::Required(authority),
            Some(authority) => ClientCertificates::Optional(authority),
        };
        TlsFiles { certificates: &self.certificates, key: &self.key, clients }
    }
}

fn contents(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes));
    let what = || format!("could not read the {what} in `{}`", path.display());
    match read {
        Ok(len) if len as u64 > FILE_LEN_MAX => {
            Err(Failure::new(what()).with_hint("it is far larger than any: is this the right file?"))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure::new(what()).because(&error)),
    }
}

/// Names the file that is to blame.
fn unusable(settings: &TlsSettings, error: &TlsError) -> Failure {
    let (flag, path) = match error {
        TlsError::NoKey | TlsError::EncryptedKey | TlsError::KeyMismatch => {
            ("--tls-key", Some(&settings.key))
        }
        TlsError::NoAuthority
        | TlsError::NoCertificate { what: "authority" }
        | TlsError::BadCertificate { what: "authority" } => {
            ("--tls-client-ca", settings.client_authority.as_ref())
        }
        _ => ("--tls-cert", Some(&settings.certificate)),
    };
    let path = path.unwrap_or(&settings.certificate).display();
    Failure::new(format!("`{path}` of {flag} cannot be used")).because(error).with_hint_if(error.hint())
}

fn stamps(settings: &TlsSettings) -> Vec<Stamp> {
    let files = [Some(&settings.certificate), Some(&settings.key), settings.client_authority.as_ref()];
    let stamp = |path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
    };
    files.into_iter().flatten().map(|path| Stamp(stamp(path))).collect()
}

fn warn_of_readers(key: &Path) {
    const READABLE_BY_ALL: u32 = 0o004;
    if fs::metadata(key).is_ok_and(|metadata| metadata.mode() & READABLE_BY_ALL != 0) {
        tracing::warn!(
            "everybody on this machine can read the TLS key in `{}`; `chmod o-r` it",
            key.display()
        );
    }
}
