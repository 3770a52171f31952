//! The layer as a Tower service: its contract with the services around it, with bodies, and with a store
//! that misbehaves. No network.

#![allow(clippy::disallowed_methods, unreachable_pub)]

mod bodies;
mod contract;
mod failures;
mod heads;
mod identity;
mod leaving;
pub mod support;
