//! The wrappers around stores: the conformance suite through each, and what each promises beyond it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cached;
mod compressed;
mod conformance;
mod encrypted;
mod inside;
#[path = "../servers/mod.rs"]
mod servers;
mod support;
mod traffic;
#[path = "../turns/mod.rs"]
mod turns;
mod versions;
