use pilotlight_cache::leases::LeaseCounts;
use serde::{Deserialize, Serialize};

/// Who compiled for others, and who waited: since the server started, but for `open` and `waiting`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of `LeaseCounts`, under the same names")]
pub struct LeasesReport {
    pub open: u64,
    pub waiting: u64,
    pub granted: u64,
    pub followed: u64,
    pub looked: u64,
    pub alone: u64,
    pub timed_out: u64,
    pub given_up: u64,
    pub gone: u64,
    pub expired: u64,
    pub waited_seconds: f64,
    pub saved_seconds: f64,
}

impl From<LeaseCounts> for LeasesReport {
    fn from(counts: LeaseCounts) -> Self {
        Self {
            open: counts.open,
            waiting: counts.waiting,
            granted: counts.granted,
            followed: counts.followed,
            looked: counts.looked,
            alone: counts.alone,
            timed_out: counts.timed_out,
            given_up: counts.given_up,
            gone: counts.gone,
            expired: counts.expired,
            waited_seconds: counts.waited_ms as f64 / 1e3,
            saved_seconds: counts.saved_ms as f64 / 1e3,
        }
    }
}
