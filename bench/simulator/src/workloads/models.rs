//! Models, and what they compile to.

use crate::random::Random;
use crate::trace::Item;

/// What a kind of artifact is like: sizes and costs of half of them lie below these.
struct Kind {
    size_bytes: f64,
    /// Of the logarithms, as is usual for sizes of files.
    size_spread: f64,
    cost_ms: f64,
    cost_spread: f64,
}

// Sizes as the store keeps them, compressed: medians of real entries (five FX graphs of 49 to 77 KB, three AOTAutograd entries
// of 40 to 94 KB), and of C++ kernels (gpt2's eleven take 206 KB). Eight entries of mid-sized models show the middle and not
// the spread: a fleet has tiny graphs and huge ones, so a factor of e^0.8 for a standard deviation is assumed. Costs: what the
// first calls of such models took, by part; of an AOTAutograd entry what is spent outside its graphs.
const GRAPH: Kind = Kind { size_bytes: 63_000.0, size_spread: 0.8, cost_ms: 5_000.0, cost_spread: 1.0 };
const AUTOGRAD: Kind = Kind { size_bytes: 51_000.0, size_spread: 0.8, cost_ms: 1_500.0, cost_spread: 0.8 };
const KERNEL: Kind = Kind { size_bytes: 18_000.0, size_spread: 0.6, cost_ms: 900.0, cost_spread: 0.7 };
/// How far a larger artifact costs more: weakly. What takes long is a search, or g++ over a small loop nest.
const COST_FOLLOWS_SIZE: f64 = 0.3;

/// Graphs a model breaks into, and kernels a graph compiles to, on average.
const GRAPHS: f64 = 4.0;
const KERNELS: f64 = 4.0;
/// Graphs that only some starts reach: other shapes, other branches. Such a start is one in three.
const RARE_GRAPHS: f64 = 0.3;
const RARE_STARTS: f64 = 0.33;
/// What a new version of a model leaves as it is.
const UNCHANGED_GRAPHS: f64 = 0.2;

/// A version of a model: the graphs it breaks into.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    graphs: Vec<Graph>,
}

/// A graph, with all it compiles to. It is of use only whole.
#[derive(Debug, Clone)]
struct Graph {
    /// By number.
    items: Vec<u32>,
    is_rare: bool,
}

/// All artifacts so far.
#[derive(Debug)]
pub(crate) struct Artifacts {
    pub(crate) items: Vec<Item>,
    random: Random,
    groups: u32,
}

impl Artifacts {
    pub(crate) fn new(seed: u64) -> Self {
        Self { items: Vec::new(), random: Random::new(seed), groups: 0 }
    }

    pub(crate) fn model(&mut self) -> Model {
        let graphs = (0..self.random.geometric(GRAPHS)).map(|_| self.graph()).collect();
        Model { graphs }
    }

    /// A program of one graph, as tests are.
    pub(crate) fn small_model(&mut self) -> Model {
        Model { graphs: vec![self.graph()] }
    }

    /// The model after its code, or what compiles it, changed.
    pub(crate) fn next_version(&mut self, model: &Model) -> Model {
        let next = |graph: &Graph| {
            if self.random.chance(UNCHANGED_GRAPHS) { graph.clone() } else { self.graph() }
        };
        Model { graphs: model.graphs.iter().map(next).collect() }
    }

    fn graph(&mut self) -> Graph {
        self.groups += 1;
        let mut items = vec![self.item(&AUTOGRAD), self.item(&GRAPH)];
        let kernels = self.random.geometric(KERNELS);
        items.extend((0..kernels).map(|_| self.item(&KERNEL)));
        Graph { items, is_rare: self.random.chance(RARE_GRAPHS) }
    }

    fn item(&mut self, kind: &Kind) -> u32 {
        let random = &mut self.random;
        let size = random.normal();
        let own = (1.0 - COST_FOLLOWS_SIZE * COST_FOLLOWS_SIZE).sqrt();
        let cost = COST_FOLLOWS_SIZE * size + own * random.normal();
        let size_bytes = (kind.size_bytes * (kind.size_spread * size).exp()).clamp(500.0, 64e6) as u32;
        let cost_ms = (kind.cost_ms * (kind.cost_spread * cost).exp()).clamp(1.0, 3.6e6) as u32;
        self.items.push(Item { key: random.next(), size_bytes, cost_ms, group: self.groups });
        (self.items.len() - 1) as u32
    }
}

impl Model {
    /// What a start of it asks for, in order.
    pub(crate) fn start(&self, random: &mut Random) -> Vec<u32> {
        let mut asked = Vec::new();
        for graph in &self.graphs {
            if !graph.is_rare || random.chance(RARE_STARTS) {
                asked.extend(&graph.items);
            }
        }
        asked
    }
}
