//! The stores through the library: the conformance suite on each store and wrapper, and what only a file, a server or a
//! network does to each.
//!
//! The tests start the servers, on free ports of the loopback address.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../common/lines.rs"]
mod lines;
#[path = "../common/partial_store.rs"]
mod partial_store;
#[path = "../common/servers/mod.rs"]
mod servers;
#[path = "../common/talk.rs"]
mod talk;
#[path = "../common/turns.rs"]
mod turns;

mod custom;
mod in_memory;
mod postgres;
mod redis;
mod sabotage;
mod second_format;
mod sqlite;
mod wrappers;
