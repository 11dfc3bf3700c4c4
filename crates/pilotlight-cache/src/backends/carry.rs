//! Entries out of the embedded store and into it, as they stand in a portable file.

use std::num::NonZeroU32;
use std::ops::ControlFlow;

use pilotlight_store::{Stat, Store, Stored};

use super::disk::{Acknowledged, DiskBackend, from_store, head, open_stored, put_stored, set_aside};
use super::groups::group;
use crate::portable::Portable;
use crate::{
    Conflict, Cursor, Entry, Error, Exported, Found, Head, Imported, Key, Namespace, Put, Result, When,
    envelope,
};

/// Tries to import an entry that others put meanwhile.
const TRIES: usize = 8;

impl DiskBackend {
    pub(super) fn export_page(
        &self,
        namespace: &Namespace,
        cursor: Cursor,
        limit: usize,
        is_wanted: &dyn Fn(&Key, &Head) -> bool,
        each: &mut dyn FnMut(&Portable) -> ControlFlow<()>,
    ) -> Result<Exported> {
        let page = self.store.scan(namespace.as_str().as_bytes(), cursor.0, limit).map_err(from_store)?;
        let mut exported = Exported { next: Cursor(page.next), damaged: 0 };
        for (bytes, stat) in page.keys {
            let key = Key::in_namespace(namespace.clone(), bytes);
            if !is_wanted(&key, &head(&stat)) {
                continue;
            }
            match whole(&self.store, &key) {
                Ok(Some((stat, found))) => {
                    let expires_ms = found.entry.metadata.expires_ms;
                    let group = stat.group.filter(|number| group(&key) != Some(*number));
                    let sealed = envelope::seal(&found.entry)?;
                    let is_pinned = stat.is_pinned;
                    if each(&Portable { key, expires_ms, is_pinned, group, sealed }).is_break() {
                        return Ok(exported);
                    }
                }
                // Gone meanwhile.
                Ok(None) => {}
                Err(Error::Corrupt { .. }) => exported.damaged += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(exported)
    }

    pub(super) fn import(&self, portable: &Portable, conflict: Conflict) -> Result<Imported> {
        let Portable { key, expires_ms, is_pinned, group: joined, sealed } = portable;
        if expires_ms.is_some_and(|expires_ms| expires_ms <= self.clock.now_ms()) {
            return Ok(Imported::Expired);
        }
        let entry = envelope::read(sealed, envelope::ARTIFACT_LEN_MAX)?.expiring_at(*expires_ms);
        self.admit(key, &entry)?;
        entry.artifact.verify()?;
        for _ in 0..TRIES {
            let there = match whole(&self.store, key) {
                // It was set aside; the import mends it.
                Err(Error::Corrupt { .. }) => None,
                there => there?,
            };
            let (when, imported) = match &there {
                None => (When::Absent, Imported::New),
                Some((_, found)) if is_as_good(&found.entry, &entry) => {
                    self.join_if(*joined, key)?;
                    self.pin_if(*is_pinned, key)?;
                    return Ok(Imported::Unchanged);
                }
                Some((_, found)) if conflict == Conflict::NewerStays && is_newer(&found.entry, &entry) => {
                    return Ok(Imported::NewerStayed);
                }
                Some((_, found)) => (When::Version(found.version), Imported::Replaced),
            };
            match put_stored(&self.store, key, &entry, when, group(key).or(*joined), Acknowledged::Now)? {
                Put::Unmet => {}
                Put::Stored(_) => {
                    self.pin_if(*is_pinned, key)?;
                    return Ok(imported);
                }
            }
        }
        Ok(Imported::NewerStayed)
    }

    /// One that is in another group already stays there.
    fn join_if(&self, group: Option<NonZeroU32>, key: &Key) -> Result<()> {
        let Some(group) = group else { return Ok(()) };
        let joined = self.store.join(key.namespace().as_str().as_bytes(), key.bytes(), group, &[]);
        joined.map(drop).map_err(from_store)
    }

    /// What does not fit under the half that may be pinned stays unpinned: it is there all the same.
    fn pin_if(&self, is_pinned: bool, key: &Key) -> Result<()> {
        if !is_pinned {
            return Ok(());
        }
        match self.store.pin(key.namespace().as_str().as_bytes(), key.bytes()) {
            Ok(_) | Err(pilotlight_store::StoreError::PinnedFull { .. }) => Ok(()),
            Err(error) => Err(from_store(error)),
        }
    }
}

/// The entry under `key`, every check of it passed, and what the store knows of it. One that is damaged is set aside.
fn whole(store: &Store, key: &Key) -> Result<Option<(Stat, Found)>> {
    let stored = store.peek(key.namespace().as_str().as_bytes(), key.bytes()).map_err(from_store)?;
    let Some(stored): Option<Stored> = stored else { return Ok(None) };
    let stat = stored.stat;
    let found = open_stored(store, key, stored)?;
    let verified = found.entry.artifact.verify();
    verified.inspect_err(|error| set_aside(store, key, error, found.version.0))?;
    Ok(Some((stat, found)))
}

#[cfg(feature = "origin")]
#[async_trait::async_trait]
impl crate::Peek for DiskBackend {
    async fn peek(&self, key: &Key) -> Result<Option<Found>> {
        let key = key.clone();
        self.offload(move |store| Ok(whole(store, &key)?.map(|(_, found)| found))).await
    }
}

/// Whether it is there already: also signed, if the other is.
fn is_as_good(there: &Entry, other: &Entry) -> bool {
    let is_signed = |entry: &Entry| entry.artifact.signed().is_some();
    there.artifact.is_same(&other.artifact) && (is_signed(there) || !is_signed(other))
}

/// A signature is worth a put, whatever the time.
fn is_newer(there: &Entry, other: &Entry) -> bool {
    there.metadata.created_ms >= other.metadata.created_ms && !there.artifact.is_same(&other.artifact)
}
