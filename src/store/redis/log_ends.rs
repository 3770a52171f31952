//! The bytes at which logs ended when this process read or wrote them last.
//!
//! Saves: a load of what is new by three `GETRANGE`s, at a fifth of the server's time that a script takes, and an append
//! by a script that only compares and writes.
//! Without it: a cursor names a place by its turn, and a script walks the log to find that turn.
//! Held by: the tests of this file, and the conformance suite, whose loads and appends go both ways.
//!
//! What is kept here is never trusted: a place that is forgotten or wrong costs a script, and no more.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::history::RecordId;

/// Where a log's newest turn stands. All in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogEnd {
    /// The length of the log's header.
    pub(super) head: usize,
    /// Where the newest turn's frame begins.
    pub(super) last: usize,
    /// Where it ends.
    pub(super) end: usize,
    /// What else the header says; nothing where this version would not have written all of it.
    pub(super) rest: Option<HeaderRest>,
}

/// What a log's header says beside its cursor and where the log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeaderRest {
    /// Whether no deletion stands before the log's first turn.
    pub(super) fresh: bool,
    /// How many of its turns are kept no more.
    pub(super) trimmed: u64,
    /// When the newest was appended, in microseconds since 1970.
    pub(super) at: u64,
    /// When the first was.
    pub(super) created: u64,
    /// How many bytes of ids of trimmed turns follow the header.
    pub(super) ids: usize,
    /// Where the oldest turn that is kept begins.
    pub(super) first: usize,
    /// Where the newest turn begins that opens an exchange.
    pub(super) opened: usize,
    /// Where the newest turn begins that names a model, and that gives a title; 0 for none.
    pub(super) model: usize,
    pub(super) title: usize,
}

/// The number of logs that are known at least, and half of the most: less than 9 MiB.
const LOGS: usize = 16 * 1024;

/// What is known of logs, by their newest turns; what was not asked for longest goes first.
#[derive(Default)]
pub(super) struct LogEnds(Mutex<Generations>);

/// When the young ones have reached the limit, they become the old ones.
#[derive(Default)]
struct Generations {
    young: HashMap<RecordId, LogEnd>,
    old: HashMap<RecordId, LogEnd>,
}

impl LogEnds {
    /// Where the log ends whose newest turn this was.
    pub(super) fn of(&self, newest: RecordId) -> Option<LogEnd> {
        let mut known = self.known();
        if let Some(end) = known.young.get(&newest) {
            return Some(*end);
        }
        let end = known.old.remove(&newest)?;
        known.put(newest, end);
        Some(end)
    }

    /// Keeps where a log ends, and forgets where it ended before.
    pub(super) fn put(&self, newest: RecordId, end: LogEnd, before: Option<RecordId>) {
        let mut known = self.known();
        for turn in [Some(newest), before].into_iter().flatten() {
            known.young.remove(&turn);
            known.old.remove(&turn);
        }
        known.put(newest, end);
    }

    fn known(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn put(&mut self, newest: RecordId, end: LogEnd) {
        if self.young.len() >= LOGS {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(newest, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> RecordId {
        RecordId::from_bytes((number as u128).to_be_bytes())
    }

    fn end(number: usize) -> LogEnd {
        LogEnd { head: 1, last: number, end: number + 1, rest: None }
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_is_bounded() {
        let ends = LogEnds::default();
        for number in 0..10 * LOGS {
            ends.put(id(number), end(number), None);
            assert_eq!(ends.of(id(0)), Some(end(0)), "asked for all the while");
        }
        assert_eq!(ends.of(id(1)), None, "forgotten");
        assert_eq!(ends.of(id(10 * LOGS - 1)), Some(end(10 * LOGS - 1)));
        let kept = ends.known();
        assert!(kept.young.len() + kept.old.len() <= 2 * LOGS);
    }

    #[test]
    fn what_is_put_again_does_not_come_back_as_it_was_before() {
        let ends = LogEnds::default();
        ends.put(id(1), end(1), None);
        (2..LOGS + 2).for_each(|number| ends.put(id(number), end(number), None));
        ends.put(id(1), end(7), None);
        ends.put(id(LOGS + 2), end(0), Some(id(1)));
        assert_eq!(ends.of(id(1)), None);
    }

    #[test]
    fn a_log_that_grew_is_known_by_its_newest_turn_alone() {
        let ends = LogEnds::default();
        ends.put(id(1), end(1), None);
        ends.put(id(2), end(2), Some(id(1)));
        assert_eq!((ends.of(id(1)), ends.of(id(2))), (None, Some(end(2))));
    }
}
