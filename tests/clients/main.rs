//! Programs that others wrote: the official clients, and the packages whose conversations are imported.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "the counts are the result")]

#[path = "../common/mod.rs"]
mod common;

mod import;
mod sdk;

use common::servers;
