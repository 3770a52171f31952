/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    /// A load without the cache: the whole log.
    Whole,
    /// A load of a log that is cached and has not changed.
    Unchanged,
    /// A load of a log that is cached, after another replica has added a turn.
    OneNew,
    /// An append.
    Append,
}

impl Operation {
    pub(crate) const ALL: [Self; 4] = [Self::Whole, Self::Unchanged, Self::OneNew, Self::Append];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Whole => "load, no cache",
            Self::Unchanged => "load, cached, nothing new",
            Self::OneNew => "load, cached, one new turn",
            Self::Append => "append",
        }
    }
}
