//! What operators are told of the disk tier.

use pilotlight_cache::portable::Portable;
use pilotlight_cache::{
    Collected, Conflict, Error, Imported, Maintenance, Purged, Result, SetAside, StoreAbout,
};
use serde::{Deserialize, Serialize};

/// An entry that was set aside and is still there, or noted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAsideReport {
    /// Grows from one to the next.
    pub number: u64,
    /// The key as text, where it is known.
    pub key: Option<String>,
    /// The namespace of the key.
    pub namespace: Option<String>,
    /// What sort of artifact the key names.
    pub kind: Option<String>,
    /// When, milliseconds since the Unix epoch, where it is known.
    pub set_aside_ms: Option<u64>,
    /// What it took.
    pub bytes: u64,
    /// Whether its bytes are kept for a person to look at.
    pub is_kept: bool,
    /// What was wrong.
    pub reason: String,
}

/// What a purge removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of `Purged`, under the same names")]
pub struct PurgedReport {
    pub count: u64,
    pub freed_bytes: u64,
}

/// What a collection found, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of `Collected`, under the same names")]
pub struct CollectedReport {
    pub before_bytes: u64,
    pub after_bytes: u64,
    pub expired: u64,
    pub orphans: u64,
    pub orphan_bytes: u64,
    pub dead_bytes: u64,
    pub segments: u64,
    pub segments_total: u64,
}

impl From<Collected> for CollectedReport {
    fn from(collected: Collected) -> Self {
        let Collected {
            before_bytes,
            after_bytes,
            expired,
            orphans,
            orphan_bytes,
            dead_bytes,
            segments,
            segments_total,
        } = collected;
        Self {
            before_bytes,
            after_bytes,
            expired,
            orphans,
            orphan_bytes,
            dead_bytes,
            segments,
            segments_total,
        }
    }
}

impl SetAsideReport {
    /// The report of one entry.
    #[must_use]
    pub fn of(aside: &SetAside) -> Self {
        let SetAside { number, key, set_aside_ms, bytes, is_kept, reason } = aside;
        Self {
            number: *number,
            key: key.as_ref().map(|key| String::from_utf8_lossy(key.bytes()).into_owned()),
            namespace: key.as_ref().map(|key| key.namespace().as_str().to_owned()),
            kind: key.as_ref().map(|key| key.kind().name().to_owned()),
            set_aside_ms: *set_aside_ms,
            bytes: *bytes,
            is_kept: *is_kept,
            reason: reason.clone(),
        }
    }
}

impl From<Purged> for PurgedReport {
    fn from(purged: Purged) -> Self {
        let Purged { count, freed_bytes } = purged;
        Self { count, freed_bytes }
    }
}

/// Which store it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreReport {
    /// Names this store and no other.
    pub store: String,
    /// The namespaces that hold, or held, entries; the default one has no name.
    pub namespaces: Vec<String>,
}

impl StoreReport {
    /// The report of a store.
    #[must_use]
    pub fn of(about: &StoreAbout) -> Self {
        let StoreAbout { id, namespaces } = about;
        let namespaces = namespaces.iter().map(|namespace| namespace.as_str().to_owned());
        Self { store: format!("{id:016x}"), namespaces: namespaces.collect() }
    }
}

/// What an import did, so far or in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedReport {
    /// Entries that are new in the store.
    pub imported: u64,
    /// Entries that took the place of another artifact.
    pub replaced: u64,
    /// Entries that were there already.
    pub unchanged: u64,
    /// Entries whose place a newer one has.
    pub newer_stayed: u64,
    /// Entries whose time has passed.
    pub expired: u64,
    /// Entries that the store does not take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedReport>,
}

/// An entry that a store does not take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedReport {
    /// The key as text.
    pub key: String,
    /// Why.
    pub reason: String,
}

impl ImportedReport {
    /// Has `disk` take an entry in whose artifact is at most `bytes_max` long, and counts what became of it.
    ///
    /// # Errors
    /// The disk's, but for an entry that is too large or that none of the signers signed: that is refused, and counted.
    pub fn take_in(
        &mut self,
        disk: &dyn Maintenance,
        portable: &Portable,
        conflict: Conflict,
        bytes_max: u64,
    ) -> Result<()> {
        let size_bytes = portable.sealed.len() as u64;
        let imported = if size_bytes > bytes_max.saturating_add(HEAD_BYTES) {
            Err(Error::TooLarge { what: "entry", size_bytes, max_bytes: bytes_max })
        } else {
            disk.import(portable, conflict)
        };
        match imported {
            Ok(Imported::New) => self.imported += 1,
            Ok(Imported::Replaced) => self.replaced += 1,
            Ok(Imported::Unchanged) => self.unchanged += 1,
            Ok(Imported::NewerStayed) => self.newer_stayed += 1,
            Ok(Imported::Expired) => self.expired += 1,
            Err(error @ (Error::TooLarge { .. } | Error::Unverified(_))) => {
                self.refuse(portable, error.to_string())
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Counts an entry that was not taken.
    pub fn refuse(&mut self, portable: &Portable, reason: String) {
        let key = String::from_utf8_lossy(portable.key.bytes()).into_owned();
        self.refused.push(RefusedReport { key, reason });
    }

    /// Adds what another batch came to.
    pub fn add(&mut self, other: Self) {
        let Self { imported, replaced, unchanged, newer_stayed, expired, refused } = other;
        self.imported += imported;
        self.replaced += replaced;
        self.unchanged += unchanged;
        self.newer_stayed += newer_stayed;
        self.expired += expired;
        self.refused.extend(refused);
    }
}

/// What an envelope takes beside its payload, at most.
const HEAD_BYTES: u64 = 256 << 10;
