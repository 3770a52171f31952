//! For tests of stores and services.

mod clock;
pub mod conformance;

pub use clock::ManualClock;
