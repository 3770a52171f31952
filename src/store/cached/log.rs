use std::{mem, sync::Arc};

use super::super::{
    Cursor, Loaded,
    head::{Head, Place},
};
use crate::history::Turn;

/// A session's whole log, as the store answered at one moment. Never changed: loads that overlap each make
/// their own.
pub(super) struct CachedLog {
    cursor: Cursor,
    trimmed: u64,
    turns: Vec<Turn>,
    weight: u64,
}

impl CachedLog {
    /// The log of a load from the start; `None` if that is no whole log.
    pub(super) fn whole(loaded: &Loaded) -> Option<Self> {
        let turns: Vec<Turn> = loaded.turns.iter().map(Turn::detached).collect();
        let weight = weight(&turns) + mem::size_of::<Self>() as u64;
        Self { cursor: loaded.cursor, trimmed: loaded.trimmed, turns, weight }.checked()
    }

    /// The log with what a load after its cursor found; `None` if that does not continue it.
    pub(super) fn extended(self: Arc<Self>, loaded: &Loaded) -> Option<Arc<Self>> {
        if loaded.cursor == self.cursor && loaded.trimmed == self.trimmed && loaded.turns.is_empty() {
            return Some(self);
        }
        let continues = loaded.cursor.epoch == self.cursor.epoch
            && self.cursor.count.checked_add(loaded.turns.len() as u64) == Some(loaded.cursor.count);
        let trimmed = usize::try_from(loaded.trimmed.checked_sub(self.trimmed)?).ok()?;
        if !continues {
            return None;
        }
        let new: Vec<Turn> = loaded.turns.iter().map(Turn::detached).collect();
        // Only what comes and goes is weighed: the log may be long.
        let weight = self.weight + weight(&new) - weight(self.turns.iter().chain(&new).take(trimmed));
        let turns = self.turns.iter().cloned().chain(new).skip(trimmed).collect();
        Self { cursor: loaded.cursor, trimmed: loaded.trimmed, turns, weight }.checked().map(Arc::new)
    }

    /// The log, if its turns are those that its cursor counts.
    fn checked(self) -> Option<Self> {
        let kept = self.cursor.count.checked_sub(self.trimmed)?;
        let newest = self.turns.last().map(Turn::id);
        let whole = kept == self.turns.len() as u64 && (newest.is_none() || newest == self.cursor.newest);
        whole.then_some(self)
    }

    pub(super) fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Bytes of memory.
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// What a store that holds this log answers to a load.
    pub(super) fn after(&self, after: Option<&Cursor>) -> Loaded {
        let Self { cursor, trimmed, .. } = *self;
        let head =
            Head { epoch: cursor.epoch, fresh: false, count: cursor.count, trimmed, newest: cursor.newest };
        let known = match head.place(after) {
            Place::Unknown => None,
            Place::Start => Some(0),
            Place::After(count, id) => {
                let known = usize::try_from(count - trimmed).unwrap_or(usize::MAX);
                self.turns.get(known - 1).filter(|turn| turn.id() == id).map(|_| known)
            }
        };
        let turns = self.turns[known.unwrap_or(0)..].to_vec();
        Loaded { cursor, turns, from_start: known.is_none(), trimmed }
    }
}

fn weight<'a>(turns: impl IntoIterator<Item = &'a Turn>) -> u64 {
    turns.into_iter().map(Turn::weight).sum::<usize>() as u64
}
