//! The Python module `pilotlight._native`: pilotlight-cache's blocking client, and nothing else.
//!
//! It converts, releases the GIL, calls the client, and converts back. `pilotlight/_native.pyi` is the contract.

mod client;
mod entry;

/// What the Rust side offers to the Python side.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::client::{Candidates, Client, Lease};
    #[pymodule_export]
    use crate::entry::Entry;

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
