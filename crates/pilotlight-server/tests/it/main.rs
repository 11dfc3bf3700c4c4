//! One test binary: linking is what tests cost.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests say what they expect by panicking, and their helpers stand outside #[test]"
)]

mod client;
mod faults;
mod limits;
mod resp;
mod resp_connections;
mod resp_differential;
mod resp_envelopes;
mod resp_failures;
mod resp_groups;
mod resp_isolation;
mod resp_leases;
mod resp_logins;
mod resp_operators;
mod resp_rights;
mod resp_signers;
mod tls;
mod users;
mod weight;
