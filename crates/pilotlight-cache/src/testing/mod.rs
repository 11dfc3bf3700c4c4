//! For whoever writes a backend or a layer: the checks of the contract.

pub mod conformance;
