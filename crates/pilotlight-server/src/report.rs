//! What operators are told, as data: the JSON of `/api/...` and of `pilotlight ... --json`.
//!
//! Declared once, read and written by both sides, so that a command prints the same against a server and against a
//! stopped directory.

mod disk;
mod doctor;
mod leases;
mod origin;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use pilotlight_cache::{
    Cache, Error, ErrorKind, Head, Key, Kind, Outcome, Snapshot, SweepProgress, Usage, VerifyReport,
};
use serde::{Deserialize, Serialize};

pub use self::disk::{
    CollectedReport, ImportedReport, PurgedReport, RefusedReport, SetAsideReport, StoreReport,
};
pub use self::doctor::{FindingReport, MendedReport};
pub use self::leases::LeasesReport;
pub use self::origin::OriginReport;

/// The state and the counters of a cache.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsReport {
    /// Version of the program that answers.
    pub version: String,
    /// Seconds since the server started; 0 of a stopped directory.
    pub uptime_seconds: u64,
    /// The backend and its layers.
    pub stack: String,
    /// How much is kept.
    pub usage: UsageReport,
    /// Counters by kind of artifact since start.
    pub kinds: BTreeMap<String, KindReport>,
    /// Their sum.
    pub total: KindReport,
    /// Puts that were not kept and that no client was told an error of, by reason. Reasons never seen are left out.
    pub refused_puts: BTreeMap<String, u64>,
    /// Gets that failed and were answered as a miss, by reason.
    pub absorbed_gets: BTreeMap<String, u64>,
    /// Who compiled for others, and who waited.
    #[serde(default)]
    pub leases: LeasesReport,
    /// Compile time of the graphs that stock clients got. They run g++ again for C++ kernels, so at most this was saved; it is
    /// not part of `total`.
    #[serde(default)]
    pub stock_graphs_seconds: f64,
    /// The origin, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginReport>,
    /// The front-ends.
    pub connections: ConnectionsReport,
}

/// How much is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of `Usage`, under the same names")]
pub struct UsageReport {
    pub entries: u64,
    pub logical_bytes: u64,
    pub stored_bytes: u64,
    pub bound_bytes: Option<u64>,
    pub evicted: u64,
    pub expired: u64,
    pub quarantined: u64,
    pub deduplicated: u64,
    #[serde(default)]
    pub recompressed: u64,
    #[serde(default)]
    pub recompressed_bytes: u64,
    #[serde(default)]
    pub deltas: u64,
    #[serde(default)]
    pub orphans: u64,
    #[serde(default)]
    pub sweep: Option<SweepReport>,
    #[serde(default)]
    pub shared_fetches: u64,
}

/// How far the search for what a crash left is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of `SweepProgress`, under the same names")]
pub struct SweepReport {
    pub looked_at: u64,
    pub files: u64,
}

/// The counters of one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the words of the design, with units")]
pub struct KindReport {
    pub hits: u64,
    pub misses: u64,
    pub puts: u64,
    pub exceptions: u64,
    /// Hits by lookups; absent before the first lookup.
    pub hit_rate: Option<f64>,
    pub bytes_served: u64,
    pub bytes_received: u64,
    /// Compile time that hits made unnecessary: that of `aot-autograd` and `cpp-kernel` stands with their graphs.
    pub saved_seconds: f64,
}

/// The front-ends' own counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of `ServerStats`, under the same names")]
pub struct ConnectionsReport {
    pub open: u64,
    pub total: u64,
    pub commands: u64,
    pub http_requests: u64,
    pub protocol_errors: u64,
    pub timeouts: u64,
    #[serde(default)]
    pub logins_failed: u64,
    #[serde(default)]
    pub logins_delayed: u64,
    #[serde(default)]
    pub denied: u64,
    #[serde(default)]
    pub throttled: u64,
    /// Of [`crate::access::Audit`].
    #[serde(default)]
    pub audit_dropped: u64,
}

/// One entry, without its artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryReport {
    /// The key as text; bytes that are not UTF-8 are replaced, and `key_base64` has them.
    pub key: String,
    /// The key's bytes, where `key` cannot show them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// What sort of artifact the key names.
    pub kind: String,
    /// Length of the artifact as the client put it.
    pub artifact_bytes: u64,
    /// What it takes where it is kept.
    pub stored_bytes: u64,
    /// When it was put, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it expires.
    pub expires_ms: Option<u64>,
    /// When it was last put or got.
    pub accessed_ms: u64,
    /// How often it was got.
    pub hits: u32,
    /// What its compile took; 0 when unknown.
    pub compile_ms: u32,
    /// Whether it is kept from eviction.
    #[serde(default)]
    pub is_pinned: bool,
    /// The group that it is evicted with: a number that means something within its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
}

/// Who asks, as the server takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserReport {
    /// Its name.
    pub name: String,
    /// The namespace that it calls database 0.
    pub home: String,
    /// What it may.
    pub grants: Vec<String>,
}

/// A part of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntriesReport {
    /// The entries, in no meaningful order.
    pub entries: Vec<EntryReport>,
    /// Where to go on; 0 after the last page.
    pub next_cursor: u64,
}

/// One line of what takes its time: progress while it runs, then the report or an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobLine<T> {
    /// So far. Of a verification, `damaged` is left empty until the end.
    Progress(T),
    /// In the end.
    Report(T),
    /// The run failed.
    Error(Problem),
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedReport {
    /// Entries there when the run began.
    pub entries_total: u64,
    /// Entries read and checked.
    pub entries_checked: u64,
    /// Stored bytes read.
    pub bytes_checked: u64,
    /// How many failed.
    pub damaged_count: u64,
    /// Which, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamageReport>,
}

/// An entry that failed its check and was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageReport {
    /// The key as text.
    pub key: String,
    /// What was wrong.
    pub reason: String,
}

/// What went wrong, as every HTTP error answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The cause.
    pub error: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl StatsReport {
    /// The report of `cache`. The front-ends' part stays empty.
    ///
    /// # Errors
    /// The backend's, when asked for its usage.
    pub async fn of(cache: &Cache) -> Result<Self, Error> {
        let usage = cache.usage(None).await?;
        let counted = cache.stats().snapshot();
        let by_kind = Kind::ALL.map(|kind| (kind.name().to_owned(), KindReport::of(&counted, kind)));
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: 0,
            stack: cache.backend().to_string(),
            usage: usage.into(),
            kinds: by_kind.into(),
            total: KindReport::total(&counted),
            refused_puts: by_reason(&counted.refused_puts),
            absorbed_gets: by_reason(&counted.absorbed_gets),
            leases: cache.leases().counts().into(),
            stock_graphs_seconds: counted.stock_graphs_ms as f64 / 1000.0,
            origin: None,
            connections: ConnectionsReport::default(),
        })
    }
}

fn by_reason(counts: &[u64; ErrorKind::ALL.len()]) -> BTreeMap<String, u64> {
    ErrorKind::ALL
        .iter()
        .zip(counts)
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| (reason.name().to_owned(), *count))
        .collect()
}

impl KindReport {
    #[expect(clippy::indexing_slicing, reason = "indices are enum numbers, arrays are sized by the enum")]
    fn of(counted: &Snapshot, kind: Kind) -> Self {
        let outcome = |outcome: Outcome| counted.cache[kind as usize][outcome as usize];
        Self {
            hits: outcome(Outcome::Hit),
            misses: outcome(Outcome::Miss),
            puts: outcome(Outcome::Put),
            exceptions: outcome(Outcome::Exception),
            hit_rate: None,
            bytes_served: counted.bytes_served[kind as usize],
            bytes_received: counted.bytes_received[kind as usize],
            saved_seconds: counted.saved_ms[kind as usize] as f64 / 1000.0,
        }
        .rated()
    }

    /// The sum over all kinds.
    #[must_use]
    pub fn total(counted: &Snapshot) -> Self {
        let mut sum = Self::default();
        for part in Kind::ALL.map(|kind| Self::of(counted, kind)) {
            sum.hits += part.hits;
            sum.misses += part.misses;
            sum.puts += part.puts;
            sum.exceptions += part.exceptions;
            sum.bytes_served += part.bytes_served;
            sum.bytes_received += part.bytes_received;
            sum.saved_seconds += part.saved_seconds;
        }
        sum.rated()
    }

    fn rated(mut self) -> Self {
        let lookups = self.hits + self.misses;
        self.hit_rate = (lookups > 0).then(|| self.hits as f64 / lookups as f64);
        self
    }
}

impl From<Usage> for UsageReport {
    fn from(usage: Usage) -> Self {
        // Taken apart, so that a field added to `Usage` cannot be forgotten here.
        let Usage {
            entries,
            logical_bytes,
            stored_bytes,
            bound_bytes,
            evicted,
            expired,
            quarantined,
            deduplicated,
            recompressed,
            recompressed_bytes,
            deltas,
            orphans,
            sweep,
            shared_fetches,
        } = usage;
        Self {
            entries,
            logical_bytes,
            stored_bytes,
            bound_bytes,
            evicted,
            expired,
            quarantined,
            deduplicated,
            recompressed,
            recompressed_bytes,
            deltas,
            orphans,
            sweep: sweep.map(|SweepProgress { looked_at, files }| SweepReport { looked_at, files }),
            shared_fetches,
        }
    }
}

impl EntryReport {
    /// The report of one scanned entry.
    #[must_use]
    pub fn of(key: &Key, head: &Head) -> Self {
        let text = String::from_utf8_lossy(key.bytes()).into_owned();
        let is_exact = text.as_bytes() == &key.bytes()[..];
        Self {
            key: text,
            key_base64: (!is_exact).then(|| base64_simd::STANDARD.encode_to_string(key.bytes())),
            kind: key.kind().name().to_owned(),
            artifact_bytes: head.artifact_len,
            stored_bytes: head.stored_bytes,
            created_ms: head.created_ms,
            expires_ms: head.expires_ms,
            accessed_ms: head.accessed_ms,
            hits: head.hits,
            compile_ms: head.compile_ms,
            is_pinned: head.is_pinned,
            group: head.group.map(NonZeroU32::get),
        }
    }
}

impl CheckedReport {
    /// How far a run is, without the list of what it found.
    #[must_use]
    pub fn progress(report: &VerifyReport) -> Self {
        Self {
            entries_total: report.entries_total,
            entries_checked: report.entries_checked,
            bytes_checked: report.bytes_checked,
            damaged_count: report.damaged.len() as u64,
            damaged: Vec::new(),
        }
    }

    /// The whole report.
    #[must_use]
    pub fn of(report: &VerifyReport) -> Self {
        let damaged = report.damaged.iter().map(|(key, reason)| DamageReport {
            key: String::from_utf8_lossy(key.bytes()).into_owned(),
            reason: reason.clone(),
        });
        Self { damaged: damaged.collect(), ..Self::progress(report) }
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        Self { error: error.to_string(), hint: error.hint().map(str::to_owned) }
    }
}
