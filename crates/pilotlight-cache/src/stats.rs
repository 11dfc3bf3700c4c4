//! The counters of a cache. Every counter is declared once, in [`Stats::families`]: `/metrics`, `stats`, `INFO` and the
//! reference page iterate over it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::{ErrorKind, Kind, Outcome};

const KINDS: usize = Kind::ALL.len();
const OUTCOMES: usize = Outcome::ALL.len();
const REASONS: usize = ErrorKind::ALL.len();
/// Counters are kept in this many copies, one a thread as far as they go, so that cores do not fight over a cache line.
const STRIPES: usize = 16;
/// Tiers told apart in the counters; slower ones count as the last.
const TIERS: usize = 4;

/// What one family counts, as a Prometheus counter: `name` ends in its unit and `_total`.
#[derive(Debug, Clone)]
pub struct Family {
    /// `pilotlight_..._total`.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Label names and values, and the value.
    pub samples: Vec<(Vec<(&'static str, &'static str)>, f64)>,
}

/// How a hit's artifact leaves the cache: what of its compile is spared depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handed {
    /// In its envelope, to our own client, which fetches a graph's C++ kernels as well.
    Envelope,
    /// By itself. Stock PyTorch, which takes it so, runs g++ again for each C++ kernel of a graph.
    Artifact,
}

/// The counters of one cache, at both of PyTorch's levels: the cache's own and its backend's.
#[derive(Debug, Default)]
pub struct Stats {
    stripes: [Stripe; STRIPES],
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe {
    cache: [[AtomicU64; OUTCOMES]; KINDS],
    backend: [AtomicU64; OUTCOMES],
    bytes_served: [AtomicU64; KINDS],
    bytes_received: [AtomicU64; KINDS],
    saved_ms: [AtomicU64; KINDS],
    stock_graphs_ms: AtomicU64,
    refused_puts: [AtomicU64; REASONS],
    absorbed_gets: [AtomicU64; REASONS],
    tier_hits: [AtomicU64; TIERS],
}

/// A sum over all threads at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Operations by kind and outcome, as the cache saw them.
    pub cache: [[u64; OUTCOMES]; KINDS],
    /// Operations by outcome, as the backend answered them.
    pub backend: [u64; OUTCOMES],
    /// Artifact bytes of hits, by kind.
    pub bytes_served: [u64; KINDS],
    /// Artifact bytes of puts, by kind.
    pub bytes_received: [u64; KINDS],
    /// Compile milliseconds that hits made unnecessary, by kind. Those of AOTAutograd's entries and of C++ kernels stand with their
    /// graphs', those of graphs for stock clients in `stock_graphs_ms`.
    pub saved_ms: [u64; KINDS],
    /// What the graphs took that left without their envelope, in milliseconds: at most this was saved.
    pub stock_graphs_ms: u64,
    /// Puts that were not kept and answered as unmet, by reason.
    pub refused_puts: [u64; REASONS],
    /// Gets that failed and answered as a miss, by reason.
    pub absorbed_gets: [u64; REASONS],
    /// Hits by tier.
    pub tier_hits: [u64; TIERS],
}

// Indices below are `repr(u8)` enum numbers into arrays sized by the same enums' `ALL`.
#[expect(clippy::indexing_slicing, reason = "indices are enum numbers, arrays are sized by the enum")]
impl Stats {
    /// Counts one operation as the cache saw it.
    pub fn count(&self, kind: Kind, outcome: Outcome) {
        self.stripe().cache[kind as usize][outcome as usize].fetch_add(1, Relaxed);
    }

    /// Counts one operation as the backend answered it.
    pub fn count_backend(&self, outcome: Outcome) {
        self.stripe().backend[outcome as usize].fetch_add(1, Relaxed);
    }

    /// Adds a hit's artifact bytes, saved compile time and tier.
    pub fn add_served(&self, kind: Kind, bytes: u64, compile_ms: u32, tier: u8, handed: Handed) {
        let stripe = self.stripe();
        stripe.bytes_served[kind as usize].fetch_add(bytes, Relaxed);
        let compile_ms = u64::from(compile_ms);
        match (kind, handed) {
            // What an AOTAutograd entry took contains what its graphs took, and that what g++ took for their kernels. They are
            // looked up together.
            (Kind::AotAutograd | Kind::CppKernel, _) => {}
            (Kind::FxGraph, Handed::Artifact) => {
                stripe.stock_graphs_ms.fetch_add(compile_ms, Relaxed);
            }
            _ => {
                stripe.saved_ms[kind as usize].fetch_add(compile_ms, Relaxed);
            }
        }
        stripe.tier_hits[usize::from(tier).min(TIERS - 1)].fetch_add(1, Relaxed);
    }

    /// Adds a put's artifact bytes.
    pub fn add_received(&self, kind: Kind, bytes: u64) {
        self.stripe().bytes_received[kind as usize].fetch_add(bytes, Relaxed);
    }

    /// Counts a put that was not kept, and of which no client was told an error.
    pub fn count_refused_put(&self, reason: ErrorKind) {
        self.stripe().refused_puts[reason as usize].fetch_add(1, Relaxed);
    }

    /// Counts a failed get that was answered as a miss.
    pub fn count_absorbed_get(&self, reason: ErrorKind) {
        self.stripe().absorbed_gets[reason as usize].fetch_add(1, Relaxed);
    }

    /// The sums at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut sum = Snapshot::default();
        for stripe in &self.stripes {
            for (into, from) in sum.cache.iter_mut().zip(&stripe.cache) {
                add(into, from);
            }
            add(&mut sum.backend, &stripe.backend);
            add(&mut sum.bytes_served, &stripe.bytes_served);
            add(&mut sum.bytes_received, &stripe.bytes_received);
            add(&mut sum.saved_ms, &stripe.saved_ms);
            sum.stock_graphs_ms += stripe.stock_graphs_ms.load(Relaxed);
            add(&mut sum.refused_puts, &stripe.refused_puts);
            add(&mut sum.absorbed_gets, &stripe.absorbed_gets);
            add(&mut sum.tier_hits, &stripe.tier_hits);
        }
        sum
    }

    /// Every counter with its name, help, labels and value.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let sum = self.snapshot();
        let by_kind = |values: &[u64; KINDS], scale: f64| {
            Kind::ALL
                .iter()
                .map(|kind| (vec![("kind", kind.name())], values[*kind as usize] as f64 / scale))
                .collect()
        };
        let by_reason = |values: &[u64; REASONS]| {
            ErrorKind::ALL
                .iter()
                .map(|reason| (vec![("reason", reason.name())], values[*reason as usize] as f64))
                .collect()
        };
        let operations = Kind::ALL
            .iter()
            .flat_map(|kind| {
                let of_kind = sum.cache[*kind as usize];
                Outcome::ALL.map(|outcome| {
                    (
                        vec![("kind", kind.name()), ("outcome", outcome.name())],
                        of_kind[outcome as usize] as f64,
                    )
                })
            })
            .collect();
        let backend = Outcome::ALL
            .iter()
            .map(|outcome| (vec![("outcome", outcome.name())], sum.backend[*outcome as usize] as f64))
            .collect();
        let tiers = ["0", "1", "2", "3"]
            .iter()
            .zip(sum.tier_hits)
            .map(|(tier, hits)| (vec![("tier", *tier)], hits as f64))
            .collect();
        let family = |name, help, samples| Family { name, help, samples };
        vec![
            family("pilotlight_operations_total", "Cache operations by kind and outcome", operations),
            family("pilotlight_backend_operations_total", "Backend operations by outcome", backend),
            family(
                "pilotlight_tier_hits_total",
                "Hits by the tier that answered, 0 being the fastest",
                tiers,
            ),
            family(
                "pilotlight_served_bytes_total",
                "Artifact bytes of hits",
                by_kind(&sum.bytes_served, 1.0),
            ),
            family(
                "pilotlight_received_bytes_total",
                "Artifact bytes of puts",
                by_kind(&sum.bytes_received, 1.0),
            ),
            family(
                "pilotlight_compile_saved_seconds_total",
                "Compile time that hits made unnecessary; that of C++ kernels stands with their graphs",
                by_kind(&sum.saved_ms, 1000.0),
            ),
            family(
                "pilotlight_stock_graphs_seconds_total",
                "Compile time of graphs that stock clients got, who run g++ again: at most this was saved",
                vec![(Vec::new(), sum.stock_graphs_ms as f64 / 1000.0)],
            ),
            family(
                "pilotlight_refused_puts_total",
                "Puts of compile-cache kinds that were not kept and answered nil",
                by_reason(&sum.refused_puts),
            ),
            family(
                "pilotlight_absorbed_gets_total",
                "Gets of compile-cache kinds that failed and answered as a miss",
                by_reason(&sum.absorbed_gets),
            ),
        ]
    }

    fn stripe(&self) -> &Stripe {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static MINE: usize = NEXT.fetch_add(1, Relaxed) % STRIPES);
        &self.stripes[MINE.with(|mine| *mine)]
    }
}

fn add<const N: usize>(into: &mut [u64; N], from: &[AtomicU64; N]) {
    for (into, from) in into.iter_mut().zip(from) {
        *into += from.load(Relaxed);
    }
}
