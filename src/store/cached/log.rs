use std::{mem, slice, sync::Arc, time::SystemTime};

use super::super::{
    Cursor, Loaded, Records,
    head::{CursorPlace, Head},
};
use crate::history::{Log, Record, RecordId};

/// A session's whole log, as the store answered at one moment.
#[derive(Clone)]
pub(super) struct CachedLog {
    cursor: Cursor,
    trimmed: u64,
    /// Shared with the loads that are looked at: what they see does not change.
    log: Arc<Log>,
    weight: u64,
}

/// Where a turn was added.
pub(super) struct AddedTurn {
    /// The log's end then, which is the turn.
    pub(super) cursor: Cursor,
    pub(super) before: RecordId,
}

impl CachedLog {
    /// The log of a load from the start; `None` if that is no whole log.
    pub(super) fn whole(loaded: &Loaded) -> Option<Self> {
        let log: Log = loaded.records.iter().map(Record::detached).collect();
        let weight = weight(log.records()) + (mem::size_of::<Self>() + mem::size_of::<Log>()) as u64;
        Self { cursor: loaded.cursor, trimmed: loaded.trimmed, log: Arc::new(log), weight }.checked()
    }

    /// The log with what a load after its cursor found; `None` if that does not continue it.
    ///
    /// In place, unless it is shared.
    pub(super) fn extended(mut self, loaded: &Loaded) -> Option<Self> {
        let continues = loaded.cursor.epoch == self.cursor.epoch
            && self.cursor.count.checked_add(loaded.records.len() as u64) == Some(loaded.cursor.count);
        let excess = usize::try_from(loaded.trimmed.checked_sub(self.trimmed)?).ok()?;
        if !continues {
            return None;
        }
        if !loaded.records.is_empty() || excess > 0 {
            let log = Arc::make_mut(&mut self.log);
            let before = log.records().len();
            log.extend(loaded.records.iter().map(Record::detached));
            let excess = excess.min(log.records().len());
            // Only what comes and goes is weighed: the log may be long.
            self.weight = self.weight + weight(&log.records()[before..]) - weight(&log.records()[..excess]);
            log.trim(excess);
        }
        Self { cursor: loaded.cursor, trimmed: loaded.trimmed, ..self }.checked()
    }

    /// Whether a turn was added right behind this log.
    pub(super) fn is_followed_by(&self, added: &AddedTurn) -> bool {
        let AddedTurn { cursor, before } = added;
        self.cursor.newest == Some(*before)
            && (self.cursor.epoch, self.cursor.count.saturating_add(1)) == (cursor.epoch, cursor.count)
    }

    /// Adds a detached turn that was added right behind this log. Not while an answer to a load shares the log: all of it
    /// would have to be copied, and a load asks the store anyway.
    pub(super) fn push(&mut self, turn: Record, added: &AddedTurn) {
        let is_it = added.cursor.newest == Some(turn.id());
        if is_it
            && self.is_followed_by(added)
            && let Some(log) = Arc::get_mut(&mut self.log)
        {
            self.weight += weight(slice::from_ref(&turn));
            log.extend([turn]);
            self.cursor = added.cursor;
        }
    }

    /// Whether its newest turn was made before this time.
    pub(super) fn is_older_than(&self, time: SystemTime) -> bool {
        self.log.records().last().is_some_and(|newest| newest.at() < time)
    }

    /// The log, if its turns are those that its cursor counts.
    fn checked(self) -> Option<Self> {
        let kept = self.cursor.count.checked_sub(self.trimmed)?;
        let newest = self.log.records().last().map(Record::id);
        let whole =
            kept == self.log.records().len() as u64 && (newest.is_none() || newest == self.cursor.newest);
        whole.then_some(self)
    }

    /// Whether both are one log in memory.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.log, &other.log)
    }

    pub(super) fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Bytes of memory.
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    pub(super) fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    /// What a store that holds this log answers to a load.
    pub(super) fn after(&self, after: Option<&Cursor>) -> Loaded {
        let Self { cursor, trimmed, .. } = *self;
        let head =
            Head { epoch: cursor.epoch, fresh: false, count: cursor.count, trimmed, newest: cursor.newest };
        let known = match head.place(after) {
            CursorPlace::Unknown => None,
            CursorPlace::Start => Some(0),
            CursorPlace::After(count, id) => {
                let known = usize::try_from(count - trimmed).unwrap_or(usize::MAX);
                self.log.records().get(known - 1).filter(|turn| turn.id() == id).map(|_| known)
            }
        };
        let turns = Records::shared(Arc::clone(&self.log), known.unwrap_or(0));
        Loaded { cursor, records: turns, from_start: known.is_none(), trimmed }
    }
}

/// What turns take, their part of the log included.
fn weight(turns: &[Record]) -> u64 {
    turns.iter().map(|turn| turn.weight() + Log::weight(turn)).sum::<usize>() as u64
}
