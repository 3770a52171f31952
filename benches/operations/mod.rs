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
mod record;
mod reply;
mod request;

/// Something that the library does.
pub(crate) struct Operation {
    pub(crate) name: String,
    /// Only timed, not counted: what others do in its place, the least that can be done, and what takes long.
    pub(crate) only_timed: bool,
    /// How often it may be done before it is prepared anew: what it leaves behind must not change what it costs.
    pub(crate) rounds: usize,
    prepare: Box<dyn Fn() -> Round + Sync>,
}

/// Does it once.
pub(crate) type Round = Box<dyn FnMut()>;

impl Operation {
    /// An operation that leaves nothing behind.
    fn new(name: impl Into<String>, prepare: impl Fn() -> Round + Sync + 'static) -> Self {
        Self { name: name.into(), only_timed: false, rounds: 200, prepare: Box::new(prepare) }
    }

    fn only_timed(self) -> Self {
        Self { only_timed: true, ..self }
    }

    fn rounds(self, rounds: usize) -> Self {
        Self { rounds, ..self }
    }

    pub(crate) fn prepare(&self) -> Round {
        (self.prepare)()
    }
}

/// All of them. Their names are those of the committed figures.
pub(crate) fn all() -> Vec<Operation> {
    [request::all(), reply::all(), record::all(), log::all(), memory::all(), layer::all()]
        .into_iter()
        .flatten()
        .collect()
}
