//! Generated traces: what a fleet asks of its compile cache, in five ways.
//!
//! A cache sees starts of models: each asks for all that the model's graphs compile to, in order. What differs is which model
//! starts when, and when its keys change.

mod fleet;
mod models;

pub(crate) use fleet::generate;

/// What the fleet does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Models start by popularity, which does not change.
    Zipf,
    /// The same, and now and then somebody goes once through models that nobody else uses.
    Scans,
    /// The same, and now and then every model gets a new version, whose keys are new; a few starts are still of the old one.
    Deploys,
    /// The same by day; by night thousands of small programs run once, some of them twice in a row.
    Nightly,
    /// All of it: popularity drifts, jobs have up to 8 processes that ask one after the other, models get new versions each at
    /// its own time, scans, nights.
    Fleet,
}

impl Workload {
    pub(crate) const ALL: [Self; 5] = [Self::Zipf, Self::Scans, Self::Deploys, Self::Nightly, Self::Fleet];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zipf => "zipf",
            Self::Scans => "scans",
            Self::Deploys => "deploys",
            Self::Nightly => "nightly",
            Self::Fleet => "fleet",
        }
    }
}
