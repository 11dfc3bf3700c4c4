//! Pilotlight's embedded store.

mod clock;

pub use crate::clock::{Clock, ManualClock, SystemClock};
