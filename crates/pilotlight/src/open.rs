//! Opens the store. The only module that names its type.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use pilotlight_cache::{Backend, Blocking, Hot, Maintenance, MemoryBackend};

use crate::failure::Failure;

/// When a put is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    Relaxed,
    Batch,
    Always,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relaxed => "relaxed (kill -9 loses nothing; synced every second)",
            Self::Batch => "batch (synced before the answer, together with other puts)",
            Self::Always => "always (synced before the answer)",
        })
    }
}

/// What to open, and how.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) dir: PathBuf,
    pub(crate) bytes_max: u64,
    /// 0 for no memory tier.
    pub(crate) memory_bytes: u64,
    pub(crate) durability: Durability,
    pub(crate) blocking: Arc<dyn Blocking>,
}

/// An open store with its tiers.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) maintenance: Option<Arc<dyn Maintenance>>,
}

/// Opens `store`. The order of the layers is decided here: memory in front of the disk, as what is hot is asked first.
pub(crate) fn open(store: Store) -> Result<Opened, Failure> {
    // Until `DiskBackend` lands: entries are kept in memory, and the directory only has to be usable.
    let Store { dir, bytes_max, memory_bytes, durability, blocking } = store;
    tracing::warn!(?durability, ?blocking, "entries are kept in memory only: this build has no disk store");
    std::fs::create_dir_all(&dir).map_err(|error| {
        Failure::new(format!("could not create the data directory `{}`", dir.display()))
            .because(&error)
            .with_hint("choose another with `--data-dir DIR`")
    })?;
    let disk: Arc<dyn Backend> = Arc::new(MemoryBackend::new(bytes_max));
    let backend = if memory_bytes == 0 { disk } else { Arc::new(Hot::new(disk, memory_bytes)) };
    Ok(Opened { backend, maintenance: None })
}
