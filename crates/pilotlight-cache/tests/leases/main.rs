//! Leases: a model of all orders, and the guards.

#![expect(clippy::indexing_slicing, reason = "tests say what they expect by panicking")]

mod guards;
mod model;
