use serde::{Deserialize, Serialize};

use super::RecordId;

/// Place that a turn continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parent {
    /// The turn before it in the log, whichever that is when it is committed: an ordinary turn, so that
    /// concurrent turns of one session line up in commit order.
    #[default]
    Previous,
    /// None: the conversation starts again.
    Root,
    /// A place in the log: an edit, a regeneration, a superseded retry.
    At(Place),
}

/// Place in a log: a turn, and how many of its items are kept. A branch may leave a turn at any item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The turn.
    pub turn: RecordId,
    /// How many of its items are kept, from the first; 1 or more. More than the turn has means all.
    pub items: u32,
}

impl Parent {
    /// Id of the record that must be in the log, for a turn that names one.
    #[must_use]
    pub fn record(self) -> Option<RecordId> {
        match self {
            Self::Previous | Self::Root => None,
            Self::At(place) => Some(place.turn),
        }
    }
}
