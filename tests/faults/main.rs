//! Deaths, dropped calls, deletions and networks that fail, at random and in numbers; and minutes of load.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "the counts are the result")]
#![allow(unreachable_pub, missing_docs, reason = "a test binary exports nothing")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/partial_store.rs"]
mod partial_store;

mod kill;
mod linearity;
mod soak;
mod storm;

use common::{servers, turns};
