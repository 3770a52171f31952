//! What tests of stores and services need (feature `testing`).

pub mod upstream;
