//! Opens the store. The only module that names its type.

use std::path::PathBuf;
use std::sync::Arc;

use pilotlight_cache::{
    Backend, Blocking, DiskBackend, DiskOptions, Durability, Hot, Maintenance, Namespace, SystemClock,
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
    pub(crate) purpose: Purpose,
}

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Use,
    /// To fill it with much at a time: it is made if it is not there, and synced in the end.
    Fill,
    /// To look into it: nothing changes.
    Look,
}

/// An open store with its tiers.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) maintenance: Option<Arc<dyn Maintenance>>,
}

/// Opens `store`. The order of the layers is decided here: memory in front of the disk, as what is hot is asked first.
pub(crate) fn open(store: Store) -> Result<Opened, Failure> {
    let Store { dir, bytes_max, quotas, memory_bytes, durability, blocking, purpose } = store;
    let options = DiskOptions {
        dir: dir.clone(),
        max_bytes: bytes_max,
        durability,
        clock: Arc::new(SystemClock),
        blocking,
    };
    let opened = match purpose {
        Purpose::Use | Purpose::Fill => DiskBackend::open(options),
        Purpose::Look => DiskBackend::look(options),
    };
    let disk = opened.map_err(|error| {
        Failure::new(format!("could not open the store in `{}`", dir.display()))
            .because(&error)
            .with_hint(error.hint())
    })?;
    let maintenance: Arc<dyn Maintenance> = disk.clone();
    for (namespace, quota_bytes) in quotas {
        maintenance.set_quota(&namespace, quota_bytes)?;
    }
    let backend: Arc<dyn Backend> =
        if memory_bytes == 0 { disk } else { Arc::new(Hot::new(disk, memory_bytes)) };
    Ok(Opened { backend, maintenance: Some(maintenance) })
}
