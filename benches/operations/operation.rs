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
    pub(super) fn new(name: impl Into<String>, prepare: impl Fn() -> Round + Sync + 'static) -> Self {
        Self { name: name.into(), only_timed: false, rounds: 200, prepare: Box::new(prepare) }
    }

    pub(super) fn only_timed(self) -> Self {
        Self { only_timed: true, ..self }
    }

    pub(super) fn rounds(self, rounds: usize) -> Self {
        Self { rounds, ..self }
    }

    pub(crate) fn prepare(&self) -> Round {
        (self.prepare)()
    }
}
