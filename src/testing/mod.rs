//! What tests of stores and services need (feature `testing`).

mod clock;
pub mod conformance;
pub mod upstream;

pub use clock::ManualClock;
