//! Opens the store. The only module that names its type.

use std::path::PathBuf;
use std::sync::Arc;

use pilotlight_cache::{
    Backend, Blocking, DiskBackend, DiskOptions, Durability, Hot, Maintenance, Namespace, Recorder,
    SystemClock, TraceSink,
};

use crate::failure::Failure;

/// What to open, and how.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) dir: PathBuf,
    pub(crate) bytes_max: u64,
    pub(crate) quotas: Vec<(Namespace, u64)>,
    /// 0 for no memory tier.
    pub(crate) memory_bytes: u64,
    pub(crate) durability: Durability,
    pub(crate) blocking: Arc<dyn Blocking>,
    /// Where uses are noted, if anywhere.
    pub(crate) trace: Option<Arc<dyn TraceSink>>,
}

/// An open store with its tiers.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) maintenance: Option<Arc<dyn Maintenance>>,
}

/// Opens `store`. The order of the layers is decided here: memory in front of the disk, as what is hot is asked first.
pub(crate) fn open(store: Store) -> Result<Opened, Failure> {
    let Store { dir, bytes_max, quotas, memory_bytes, durability, blocking, trace } = store;
    let options = DiskOptions {
        dir: dir.clone(),
        max_bytes: bytes_max,
        durability,
        clock: Arc::new(SystemClock),
        blocking,
    };
    let disk = DiskBackend::open(options).map_err(|error| {
        Failure::new(format!("could not open the store in `{}`", dir.display()))
            .because(&error)
            .with_hint(error.hint())
    })?;
    let maintenance: Arc<dyn Maintenance> = disk.clone();
    for (namespace, quota_bytes) in quotas {
        maintenance.set_quota(&namespace, quota_bytes)?;
    }
    let mut backend: Arc<dyn Backend> = disk;
    // Whoever evicts is told of every use, the memory tier's too: there the trace is whole.
    if let Some(trace) = trace {
        backend = Arc::new(Recorder::new(backend, trace));
    }
    if memory_bytes != 0 {
        backend = Arc::new(Hot::new(backend, memory_bytes));
    }
    Ok(Opened { backend, maintenance: Some(maintenance) })
}
