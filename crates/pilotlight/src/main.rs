//! The `pilotlight` command.

fn main() {}
