//! One test binary: linking is what tests cost.

mod client;
mod faults;
mod resp;
mod resp_connections;
mod resp_differential;
mod resp_failures;
