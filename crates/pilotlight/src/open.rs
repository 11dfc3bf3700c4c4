//! Opens the store. The only module that names its type.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pilotlight_cache::origin::Origin;
use pilotlight_cache::trust::Signers;
use pilotlight_cache::{
    Backend, Blocking, Collect, Collected, DiskBackend, DiskOptions, Durability, Examination, Flight, Hot,
    Inline, Maintenance, Namespace, OpenError, Recorder, Repaired, SystemClock, Tiered, TieredOptions,
    TraceSink, VerifyReport,
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
    /// Whose entries are taken; anybody's if absent.
    pub(crate) signers: Option<Arc<Signers>>,
    /// Where uses are noted, if anywhere.
    pub(crate) trace: Option<Arc<dyn TraceSink>>,
    /// What is behind the disk, if anything, and how.
    pub(crate) origin: Option<(Arc<dyn Origin>, TieredOptions)>,
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
    pub(crate) tiers: Option<Arc<Tiered>>,
}

/// What a repair of a directory did.
#[derive(Debug)]
pub(crate) struct Mended {
    pub(crate) repaired: Repaired,
    pub(crate) verified: VerifyReport,
    pub(crate) rewritten: u64,
    pub(crate) collected: Collected,
}

/// Mends the store in `dir`: rebuilds entries, checks all of them, and rewrites what is damaged of the log. In that order: what
/// is damaged is set aside before its place in the log goes.
pub(crate) fn repair(dir: &Path, progress: &mut dyn FnMut(&VerifyReport)) -> Result<Mended, Failure> {
    let options = DiskOptions {
        dir: dir.to_owned(),
        max_bytes: DiskOptions::UNBOUNDED,
        durability: Durability::Relaxed,
        clock: Arc::new(SystemClock),
        blocking: Arc::new(Inline),
        signers: None,
    };
    let (disk, repaired) = DiskBackend::open_repaired(options).map_err(|error| not_opened(dir, &error))?;
    let verified = disk.verify(&mut |report| {
        progress(report);
        ControlFlow::Continue(())
    })?;
    let rewritten = disk.rewrite_damaged(&repaired)?;
    let collected = disk.collect(Collect::Run, &mut |_| ControlFlow::Continue(()))?;
    Ok(Mended { repaired, verified, rewritten, collected })
}

/// Looks at the structure of a stopped directory.
pub(crate) fn examine(dir: &Path) -> Result<Examination, OpenError> {
    DiskBackend::examine(dir)
}

fn not_opened(dir: &Path, error: &OpenError) -> Failure {
    Failure::new(format!("could not open the store in `{}`", dir.display()))
        .because(error)
        .with_hint(error.hint())
}

/// Opens `store`. The order of the layers is decided here, each with its reason.
pub(crate) fn open(store: Store) -> Result<Opened, Failure> {
    let Store { dir, bytes_max, quotas, memory_bytes, durability, blocking, signers, trace, origin, purpose } =
        store;
    let options = DiskOptions {
        dir: dir.clone(),
        max_bytes: bytes_max,
        durability,
        clock: Arc::new(SystemClock),
        blocking,
        signers,
    };
    let opened = match purpose {
        Purpose::Use | Purpose::Fill => DiskBackend::open(options),
        Purpose::Look => DiskBackend::look(options),
    };
    let disk = opened.map_err(|error| not_opened(&dir, &error))?;
    let maintenance: Arc<dyn Maintenance> = disk.clone();
    for (namespace, quota_bytes) in quotas {
        maintenance.set_quota(&namespace, quota_bytes)?;
    }
    let mut backend: Arc<dyn Backend> = disk.clone();
    // Whoever evicts is told of every use, the memory tier's too: there the trace is whole.
    if let Some(trace) = trace {
        backend = Arc::new(Recorder::new(backend, trace));
    }
    // In front of what the trace is of: what the origin brings is a put there. Behind the flight: its fetches are the slow ones.
    let tiers = match origin {
        None => None,
        Some((origin, options)) => {
            let tiers = Tiered::start(backend, disk, origin, options).map_err(|error| {
                Failure::new(format!(
                    "could not read what waits to be sent in `{}`",
                    dir.join("origin").display()
                ))
                .because(&error)
                .with_hint(
                    "move that directory away to start without it: what waits stays on the disk alone then",
                )
            })?;
            let tiers = Arc::new(tiers);
            backend = tiers.clone();
            Some(tiers)
        }
    };
    // Many ranks ask for one entry at once. Behind the memory tier, which needs no help with what it has.
    backend = Arc::new(Flight::new(backend));
    if memory_bytes != 0 {
        backend = Arc::new(Hot::new(backend, memory_bytes));
    }
    Ok(Opened { backend, maintenance: Some(maintenance), tiers })
}
