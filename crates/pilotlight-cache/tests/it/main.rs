//! What the crate promises, by subject.

/// The backend contract, on every backend and every layer.
mod contract;
/// The behaviours PyTorch's `test_remote_cache.py` demands of the controller.
mod controller;
