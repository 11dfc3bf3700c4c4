//! The directory of a stopped server, opened in this process.

use std::future::Future;
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use pilotlight_cache::portable::{Frame, Mark, Portable};
use pilotlight_cache::{
    Cache, Clock, Collect, Conflict, Cursor, DiskOptions, Durability, Entry, Inline, Key, Maintenance,
    Namespace, Put, SystemClock, When,
};
use pilotlight_server::Selection;
use pilotlight_server::report::{
    CheckedReport, CollectedReport, EntriesReport, EntryReport, ImportedReport, PurgedReport, SetAsideReport,
    StatsReport, StoreReport,
};

use super::{Access, EXPORT_PAGE, checkup};
use crate::failure::Failure;
use crate::open::{Opened, Purpose, Store, open};

pub(super) struct Directory {
    cache: Cache,
    opened: Opened,
}

impl Directory {
    pub(super) fn open(dir: &Path, purpose: Purpose) -> Result<Self, Failure> {
        if !dir.is_dir() && purpose != Purpose::Fill {
            return Err(Failure::new(format!("there is no directory `{}`", dir.display()))
                .with_hint("`--data-dir` takes the directory that `serve` was given or named at its start"));
        }
        checkup::refuse_others(dir)?;
        let opened = open(Store {
            dir: dir.to_owned(),
            // Looking at a directory must not evict from it because some other bound was said here.
            bytes_max: DiskOptions::UNBOUNDED,
            quotas: Vec::new(),
            memory_bytes: 0,
            signers: None,
            trace: None,
            origin: None,
            durability: if purpose == Purpose::Fill { Durability::Relaxed } else { Durability::Batch },
            blocking: Arc::new(Inline),
            purpose,
        })?;
        let cache = Cache::new(Arc::clone(&opened.backend)).with_maintenance(opened.maintenance.clone());
        Ok(Self { cache, opened })
    }

    fn maintenance(&self) -> Result<&dyn Maintenance, Failure> {
        self.opened.maintenance.as_deref().ok_or_else(|| Failure::new("this store keeps nothing on a disk"))
    }
}

impl Access for Directory {
    fn stats(&self) -> Result<StatsReport, Failure> {
        let mut report = wait(StatsReport::of(&self.cache))?;
        // The bound is the server's to say, and there is none running.
        report.usage.bound_bytes =
            report.usage.bound_bytes.filter(|bound_bytes| *bound_bytes < DiskOptions::UNBOUNDED);
        Ok(report)
    }

    fn entries(&self, namespace: &Namespace, cursor: u64, limit: usize) -> Result<EntriesReport, Failure> {
        let page = wait(self.opened.backend.scan(namespace, Cursor(cursor), limit))?;
        let entries = page.keys.iter().map(|(key, head)| EntryReport::of(key, head)).collect();
        Ok(EntriesReport { entries, next_cursor: page.next.0 })
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, Failure> {
        let found = wait(self.cache.peek(key))?;
        Ok(found.map(|found| found.entry.artifact.into_bytes().into()))
    }

    fn put(&self, key: &Key, artifact: Vec<u8>, ttl: Option<Duration>) -> Result<(), Failure> {
        let expires_ms = ttl.map(|ttl| {
            SystemClock.now_ms().saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
        });
        let entry = Entry::new(artifact).expiring_at(expires_ms);
        match wait(self.opened.backend.put(key, entry, When::Always))? {
            Put::Stored(_) => Ok(wait(self.opened.backend.sync())?),
            Put::Unmet => Err(Failure::new("the entry was not kept")),
        }
    }

    fn delete(&self, key: &Key) -> Result<bool, Failure> {
        let is_deleted = wait(self.opened.backend.delete(key, When::Always))?;
        wait(self.opened.backend.sync())?;
        Ok(is_deleted)
    }

    fn pin(&self, key: &Key) -> Result<bool, Failure> {
        Ok(self.maintenance()?.pin(key)?)
    }

    fn unpin(&self, key: &Key) -> Result<bool, Failure> {
        Ok(self.maintenance()?.unpin(key)?)
    }

    fn clear(&self, namespace: &Namespace) -> Result<u64, Failure> {
        let deleted = wait(self.opened.backend.clear(namespace))?;
        wait(self.opened.backend.sync())?;
        Ok(deleted)
    }

    fn verify(&self, progress: &mut dyn FnMut(&CheckedReport)) -> Result<CheckedReport, Failure> {
        let report = self.maintenance()?.verify(&mut |report| {
            progress(&CheckedReport::progress(report));
            ControlFlow::Continue(())
        })?;
        Ok(CheckedReport::of(&report))
    }

    fn about(&self) -> Result<StoreReport, Failure> {
        Ok(StoreReport::of(&self.maintenance()?.about()?))
    }

    fn export_page(
        &self,
        namespace: &Namespace,
        cursor: Cursor,
        selection: &Selection,
        each: &mut dyn FnMut(&Frame) -> Result<(), Failure>,
    ) -> Result<Mark, Failure> {
        let mut failure = None;
        let exported = self.maintenance()?.export_page(
            namespace,
            cursor,
            EXPORT_PAGE,
            &|key, head| selection.holds(key, head),
            &mut |portable| match each(&portable.to_frame()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            },
        )?;
        match failure {
            Some(failure) => Err(failure),
            None => Ok(Mark { namespace: namespace.clone(), next: exported.next, damaged: exported.damaged }),
        }
    }

    fn import(&self, batch: &[Frame], conflict: Conflict, is_last: bool) -> Result<ImportedReport, Failure> {
        let disk = self.maintenance()?;
        let mut report = ImportedReport::default();
        for frame in batch {
            report.take_in(disk, &Portable::of_frame(frame)?, conflict, u64::MAX)?;
        }
        if is_last {
            disk.sync()?;
        }
        Ok(report)
    }

    fn quarantine(&self) -> Result<Vec<SetAsideReport>, Failure> {
        Ok(self.maintenance()?.quarantine()?.iter().map(SetAsideReport::of).collect())
    }

    fn purge_quarantine(&self, before_ms: Option<u64>) -> Result<PurgedReport, Failure> {
        Ok(self.maintenance()?.purge_quarantine(before_ms)?.into())
    }
}

/// Collects what nobody needs in `dir`. What expires in the background of the open store counts among it, so that is looked at
/// first.
pub(super) fn collect(
    dir: &Path,
    what: Collect,
    progress: &mut dyn FnMut(&CollectedReport),
) -> Result<CollectedReport, Failure> {
    let run = |purpose: Purpose, what: Collect, progress: &mut dyn FnMut(&CollectedReport)| {
        let directory = Directory::open(dir, purpose)?;
        let found = directory.maintenance()?.collect(what, &mut |found| {
            progress(&CollectedReport::from(*found));
            ControlFlow::Continue(())
        })?;
        Ok::<_, Failure>(CollectedReport::from(found))
    };
    let planned = run(Purpose::Look, Collect::Plan, &mut |_| {})?;
    if what == Collect::Plan {
        return Ok(planned);
    }
    let found = run(Purpose::Use, Collect::Run, progress)?;
    Ok(CollectedReport {
        before_bytes: planned.before_bytes,
        expired: found.expired.max(planned.expired),
        ..found
    })
}

/// Drives `future` on this thread. The store needs no runtime: only a wake-up.
fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
