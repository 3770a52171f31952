//! What is measured of the library, one operation at a time: for `micro`, which takes the time, and for `cost`, which
//! counts instructions and allocations.
//!
//! Only the public API is used, so that figures of two versions are of the same thing.

#![allow(dead_code, reason = "each benchmark uses its own part")]
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod fixtures;
mod layer;
mod log;
mod memory;
mod operation;
mod record;
mod reply;
mod request;

pub(crate) use operation::Operation;

/// All of them. Their names are those of the committed figures.
pub(crate) fn all() -> Vec<Operation> {
    [request::all(), reply::all(), record::all(), log::all(), memory::all(), layer::all()]
        .into_iter()
        .flatten()
        .collect()
}
