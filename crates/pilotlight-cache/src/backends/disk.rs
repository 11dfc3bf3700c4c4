//! The embedded store as a backend.

use std::fmt::Debug;

/// Runs a job that may block, somewhere it may: the server gives its thread pool, a client without a runtime runs it on
/// the spot.
pub trait Blocking: Send + Sync + Debug {
    /// Runs `job`, now or soon, exactly once.
    fn run(&self, job: Box<dyn FnOnce() + Send>);
}

/// Runs jobs at once on the calling thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inline;

impl Blocking for Inline {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}
