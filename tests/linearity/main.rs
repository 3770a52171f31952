//! Several replicas on one store behave like one, whatever happens to them: histories of concurrent clients with
//! faults on, checked by a complete checker, which is shown to catch deliberately wrong stores.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "the counts are the result")]
#![allow(unreachable_pub, missing_docs, reason = "a test binary exports nothing")]

mod backend;
mod checker;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod history;
mod replica;
mod runs;
mod sabotage;
#[path = "../servers/mod.rs"]
mod servers;
mod world;
