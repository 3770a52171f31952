//! The layer as a Tower service: its contract with the services around it, with bodies, and with a store
//! that misbehaves. No network.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::disallowed_methods, reason = "the tests await their tasks")]

mod bodies;
mod contract;
mod failures;
mod leaving;
mod support;
