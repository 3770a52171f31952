//! The real binary on every store: one suite, and a place in each kind of store to run it on.
//!
//! The servers are started here (`tests/servers`), one of each kind for all tests. `SESSION_MEMORY_TURNS` sets
//! how many turns a store `replicas` and `cache` hold; see there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(clippy::print_stdout, reason = "the counts are the result")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../servers/mod.rs"]
mod servers;

#[macro_use]
mod place;

mod durability;
mod reconcile;
mod replicas;
mod sealed;
mod secrets;
mod sequences;
