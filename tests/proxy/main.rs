//! The program as a process, between clients and an upstream: its settings, its limits, hostile and slow peers, its end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "threads of a test may sleep")]

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod canary;
mod concurrency;
mod config;
mod demo;
mod drain;
mod hostile;
mod load;
mod pass;
mod slow;
mod upstream;
