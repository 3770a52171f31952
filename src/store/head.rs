use super::{Cursor, Epoch};
use crate::history::RecordId;

/// Where a live log or tombstone stands: what decides on cursors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) epoch: Epoch,
    /// Whether no deletion stands before the log's first turn. Then a turn that was built on "no session"
    /// belongs to it as well: two first turns raced.
    pub(crate) fresh: bool,
    /// How many turns were ever appended; 0 for a tombstone.
    pub(crate) count: u64,
    /// How many of these are kept no more.
    pub(crate) trimmed: u64,
    pub(crate) newest: Option<RecordId>,
}

/// Which part of a log answers a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CursorPlace {
    /// The cursor is of another log, or of a part that is no longer kept.
    Unknown,
    /// The cursor stands at the start of the log.
    Start,
    /// After this number of turns, provided that the last of them has this id.
    After(u64, RecordId),
}

impl Head {
    /// A log that begins without a deletion before it.
    pub(crate) fn fresh() -> Self {
        Self { epoch: Epoch::random(), fresh: true, count: 0, trimmed: 0, newest: None }
    }

    /// What a deletion leaves.
    pub(crate) fn tombstone() -> Self {
        Self { fresh: false, ..Self::fresh() }
    }

    /// Where the log ends.
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, count: self.count, newest: self.newest }
    }

    /// Whether a turn that was built on this cursor may join the log.
    pub(crate) fn accepts(&self, at: &Cursor) -> bool {
        at.epoch == self.epoch || (self.fresh && at.epoch == Epoch::UNBORN)
    }

    /// Where the turns begin that a load after this cursor asks for.
    pub(crate) fn place(&self, after: Option<&Cursor>) -> CursorPlace {
        match after {
            Some(at) if at.epoch == self.epoch => match at.newest {
                None if at.count == 0 && self.trimmed == 0 => CursorPlace::Start,
                Some(id) if at.count > self.trimmed && at.count <= self.count => {
                    CursorPlace::After(at.count, id)
                }
                _ => CursorPlace::Unknown,
            },
            _ => CursorPlace::Unknown,
        }
    }

    /// The head after one more turn.
    pub(crate) fn with(self, id: RecordId) -> Self {
        Self { count: self.count + 1, newest: Some(id), ..self }
    }
}
