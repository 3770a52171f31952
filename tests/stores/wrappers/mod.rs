//! The wrappers around stores: the conformance suite through each, and what each promises beyond it.

#![allow(clippy::panic)]

mod cached;
mod compressed;
pub(crate) mod conformance;
mod encrypted;
pub(crate) mod inside;
mod support;
mod traffic;
mod versions;
