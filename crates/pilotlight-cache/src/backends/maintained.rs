//! What an operator asks of the embedded store.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::disk::{DiskBackend, DiskOptions, from_store, open_stored, set_aside};
use super::groups::group_of;
use crate::portable::Portable;
use crate::{
    Checkup, Collect, Collected, Conflict, Cursor, Examination, Exported, Head, Imported, Key, Maintenance,
    Namespace, Purged, RecompressReport, Repaired, Result, SetAside, StoreAbout, VerifyReport, Version,
};
use pilotlight_store::media::Disk;
use pilotlight_store::{OpenError, Stat, Store};

impl DiskBackend {
    /// Opens the store and rebuilds what can be rebuilt of it. What is left is to verify it, and to rewrite what is damaged.
    ///
    /// # Errors
    /// As [`DiskBackend::open`].
    pub fn open_repaired(options: DiskOptions) -> Result<(Arc<Self>, Repaired), OpenError> {
        let mut repaired = Repaired::default();
        let open = |options| Store::open_repaired(options).map(|(store, did)| (store, repaired = did).0);
        let backend = Self::open_with(Arc::new(Disk), options, open)?;
        Ok((backend, repaired))
    }

    /// Looks at the structure of a directory that nobody has open as a store.
    ///
    /// # Errors
    /// For one that is no store, or cannot be read.
    pub fn examine(dir: &Path) -> Result<Examination, OpenError> {
        pilotlight_store::examine(&Disk, dir)
    }

    /// Rewrites the log up to what a repair found damaged; gives how many segments that were.
    ///
    /// # Errors
    /// When the disk fails; all that is whole is there then.
    pub fn rewrite_damaged(&self, repaired: &Repaired) -> Result<u64> {
        repaired.damaged_through.map_or(Ok(0), |id| self.store.rewrite_through(id).map_err(from_store))
    }
}

impl Maintenance for DiskBackend {
    fn verify(&self, progress: &mut dyn FnMut(&VerifyReport) -> ControlFlow<()>) -> Result<VerifyReport> {
        let mut report =
            VerifyReport { entries_total: self.store.usage(None).entries, ..VerifyReport::default() };
        for space in self.store.spaces() {
            let namespace = Namespace::new(&String::from_utf8_lossy(&space))?;
            let mut cursor = 0;
            loop {
                let page = self.store.scan(&space, cursor, 256).map_err(from_store)?;
                for (key, stat) in page.keys {
                    let key = Key::in_namespace(namespace.clone(), key);
                    if let Err(error) = self.verify_entry(&space, &key, &stat, &mut report) {
                        report.damaged.push((key, error.to_string()));
                    }
                    if progress(&report).is_break() {
                        return Ok(report);
                    }
                }
                cursor = page.next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(report)
    }

    fn recompress(
        &self,
        idle_before_ms: u64,
        progress: &mut dyn FnMut(&RecompressReport) -> ControlFlow<()>,
    ) -> Result<RecompressReport> {
        self.recompressor.run(&self.store, idle_before_ms, progress)
    }

    fn pin(&self, key: &Key) -> Result<bool> {
        self.store.pin(key.namespace().as_str().as_bytes(), key.bytes()).map_err(from_store)
    }

    fn unpin(&self, key: &Key) -> Result<bool> {
        self.store.unpin(key.namespace().as_str().as_bytes(), key.bytes()).map_err(from_store)
    }

    fn group(&self, leader: &Key, keys: &[Key]) -> Result<usize> {
        let Some(group) = group_of(leader.bytes()) else { return Ok(0) };
        let namespace = leader.namespace();
        let keys: Vec<&[u8]> =
            keys.iter().filter(|key| key.namespace() == namespace).map(|key| &key.bytes()[..]).collect();
        self.store.join(namespace.as_str().as_bytes(), leader.bytes(), group, &keys).map_err(from_store)
    }

    fn set_quota(&self, namespace: &Namespace, bytes_max: u64) -> Result<()> {
        self.store.set_quota(namespace.as_str().as_bytes(), Some(bytes_max)).map_err(from_store)
    }

    fn set_aside(&self, key: &Key, version: Version, reason: &str) -> Result<bool> {
        let space = key.namespace().as_str().as_bytes();
        self.store.set_aside(space, key.bytes(), version.0, reason).map_err(from_store)
    }

    fn quarantine(&self) -> Result<Vec<SetAside>> {
        Ok(self.store.quarantine().into_iter().map(set_aside_of).collect())
    }

    fn purge_quarantine(&self, before_ms: Option<u64>) -> Result<Purged> {
        self.store.purge_quarantine(before_ms).map_err(from_store)
    }

    fn collect(
        &self,
        what: Collect,
        progress: &mut dyn FnMut(&Collected) -> ControlFlow<()>,
    ) -> Result<Collected> {
        self.store.collect(what, progress).map_err(from_store)
    }

    fn checkup(&self) -> Result<Checkup> {
        self.store.checkup().map_err(from_store)
    }

    fn about(&self) -> Result<StoreAbout> {
        let names = self.store.spaces().into_iter();
        let namespaces = names.map(|name| Namespace::new(&String::from_utf8_lossy(&name)));
        Ok(StoreAbout { id: self.store.id(), namespaces: namespaces.collect::<Result<_>>()? })
    }

    fn export_page(
        &self,
        namespace: &Namespace,
        cursor: Cursor,
        limit: usize,
        is_wanted: &dyn Fn(&Key, &Head) -> bool,
        each: &mut dyn FnMut(&Portable) -> ControlFlow<()>,
    ) -> Result<Exported> {
        self.export_page(namespace, cursor, limit, is_wanted, each)
    }

    fn import(&self, portable: &Portable, conflict: Conflict) -> Result<Imported> {
        self.import(portable, conflict)
    }

    fn sync(&self) -> Result<()> {
        self.store.sync().map_err(from_store)
    }
}

impl DiskBackend {
    fn verify_entry(&self, space: &[u8], key: &Key, stat: &Stat, report: &mut VerifyReport) -> Result<()> {
        report.entries_checked += 1;
        report.bytes_checked += stat.stored_bytes;
        let Some(stored) = self.store.peek(space, key.bytes()).map_err(from_store)? else { return Ok(()) };
        let found = open_stored(&self.store, key, stored)?;
        let verified = found.entry.artifact.verify();
        verified.map(|_| ()).inspect_err(|error| set_aside(&self.store, key, error, found.version.0))
    }
}

fn set_aside_of(aside: pilotlight_store::SetAside) -> SetAside {
    let pilotlight_store::SetAside { number, name, when_ms, bytes, is_kept, reason } = aside;
    let key = name.and_then(|(space, key)| {
        let namespace = Namespace::new(&String::from_utf8_lossy(&space)).ok()?;
        Some(Key::in_namespace(namespace, key))
    });
    SetAside { number, key, set_aside_ms: when_ms, bytes, is_kept, reason }
}
