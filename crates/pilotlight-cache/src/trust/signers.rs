//! Whose entries a server takes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::verifier::{check, unsigned};
use super::{TrustError, TrustFile};
use crate::{Entry, Key, Result};

/// The signers that a server takes entries of compile-cache kinds from, by a trust file. Others' are refused at the put; keys of
/// other kinds are nobody's artifacts, and are put as ever.
///
/// It keeps a writer without a key from filling the cache with what readers would refuse. It does not free readers from checking:
/// whoever owns the server, or its disk, has put what they read.
#[derive(Debug)]
pub struct Signers {
    path: PathBuf,
    trusted: RwLock<Arc<TrustFile>>,
}

impl Signers {
    /// Those in the trust file at `path`.
    ///
    /// # Errors
    /// As [`TrustFile::read`].
    pub fn read(path: &Path) -> Result<Self, TrustError> {
        let trusted = RwLock::new(Arc::new(TrustFile::read(path)?));
        Ok(Self { path: path.to_owned(), trusted })
    }

    /// Reads the file again; puts that are checked already are not checked anew.
    ///
    /// # Errors
    /// As [`TrustFile::read`]; what was read before counts on then.
    pub fn reload(&self) -> Result<(), TrustError> {
        *self.trusted.write() = Arc::new(TrustFile::read(&self.path)?);
        Ok(())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.trusted.read().signers.len()
    }

    /// Whether `entry` may be put under `key`: some 100 us, and nothing is unpacked.
    pub(crate) fn check(&self, key: &Key, entry: &Entry, now_ms: u64) -> Result<()> {
        if !key.kind().is_compile_cache() {
            return Ok(());
        }
        let head = entry.artifact.signed().ok_or_else(unsigned)?;
        let trusted = Arc::clone(&self.trusted.read());
        check(&trusted, key.namespace(), key.bytes(), head, now_ms).map(drop)
    }
}
