//! What benchmarks with a `main` of their own have in common.

#![allow(dead_code, reason = "each benchmark uses its own part")]

pub(crate) mod cpu;
pub(crate) mod machine;
pub(crate) mod stats;
