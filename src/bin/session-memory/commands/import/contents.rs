//! Contents of a source: its sessions, and the entries of one session.

use std::collections::BTreeMap;

use super::{
    piece::Entry,
    report::{Skipped, Why},
};

/// The sessions of a source by their ids; `None` for an id that the source holds twice.
pub(super) type Sessions = BTreeMap<Vec<u8>, Option<Location>>;

/// Location of a session in its source.
pub(super) enum Location {
    Keys(Keys),
    Rows,
}

/// Redis keys of one session.
pub(super) enum Keys {
    NewestFirst(Vec<u8>),
    OldestFirst(Vec<u8>),
    Documents(Vec<Vec<u8>>),
}

/// Entries of one session.
pub(super) struct Session {
    /// Oldest first.
    pub(super) entries: Vec<Entry>,
    /// Entries that the source itself keeps back.
    pub(super) left: Vec<(usize, Why)>,
}

/// Limits of one session.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl Bounds {
    /// 100,000 entries and 256 MiB: above any conversation, and small enough to be held in memory a few times.
    pub(super) const ALL: Self = Self { entries: 100_000, bytes: 256 << 20 };

    /// The reason to skip a session that is larger.
    pub(super) fn refuse(self, entries: u64, bytes: u64) -> Option<Skipped> {
        (entries > self.entries || bytes > self.bytes).then_some(Skipped::TooLarge { entries, bytes })
    }
}
