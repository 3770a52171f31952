mod path;

pub use path::Path;

use std::{collections::HashMap, fmt};

use super::{Parent, Record, RecordId, joined::Joined};

/// A session's turns in commit order, each with its parent resolved.
///
/// Append-only: a log that was loaded in part is extended with what came after. What every request asks of a long
/// log stands beside the turns, so that it is read in a row: the turns themselves are not looked at.
#[derive(Clone, Default)]
pub struct Log {
    turns: Vec<Record>,
    /// One for each turn.
    steps: Vec<Step>,
    /// The messages of all turns.
    text: Joined,
    /// How many turns are envelopes.
    envelopes: usize,
    /// How many turns were trimmed from the start. A turn's number is its place before that.
    trimmed: usize,
    /// The numbers of the turns below `indexed`: made when a turn names a parent.
    numbers: HashMap<RecordId, usize>,
    indexed: usize,
}

/// What the paths through a log are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// The parent's number.
    parent: Option<usize>,
    /// Where its messages begin in the log's text.
    begin: u64,
    /// How many bytes they take.
    pub(super) bytes: usize,
    messages: u32,
    pub(super) opens_with_user: bool,
    opens_with_result: bool,
    calls: bool,
    instructs: bool,
}

impl Log {
    /// A log without turns.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The turns, in commit order.
    #[must_use]
    pub fn turns(&self) -> &[Record] {
        &self.turns
    }

    /// The newest turn.
    #[must_use]
    pub fn head(&self) -> Option<&Record> {
        self.turns.last()
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// The history: the turns from the root to the head.
    #[must_use]
    pub fn path(&self) -> Path<'_> {
        self.path_to((self.trimmed + self.turns.len()).checked_sub(1))
    }

    /// The history without its newest turn: the turns from the root to the head's parent.
    #[must_use]
    pub fn path_before_head(&self) -> Path<'_> {
        self.path_to(self.steps.last().and_then(|step| step.parent))
    }

    /// How many bytes of memory a turn takes in a log, beside its own.
    pub(crate) fn weight(turn: &Record) -> usize {
        size_of::<Record>() + size_of::<Step>() + Joined::copied(turn.message_bytes().len())
    }

    /// Whether a turn is an [envelope](Record::envelope).
    #[must_use]
    pub(crate) fn holds_envelopes(&self) -> bool {
        self.envelopes > 0
    }

    /// Adds a turn.
    pub(crate) fn push(&mut self, turn: Record) {
        let parent = self.number_of(turn.parent());
        self.steps.push(Step {
            parent,
            begin: self.text.push(turn.message_bytes()),
            bytes: turn.message_bytes().len(),
            messages: u32::try_from(turn.len()).unwrap_or(u32::MAX),
            opens_with_user: turn.opens_with_user(),
            opens_with_result: turn.opens_with_result(),
            calls: turn.about().next_back().is_some_and(|reply| !reply.calls.is_empty()),
            instructs: !turn.instruction_bytes().is_empty(),
        });
        self.envelopes += usize::from(turn.envelope().is_some());
        self.turns.push(turn);
    }

    /// Forgets the oldest turns. What continued them is a root.
    pub(crate) fn trim(&mut self, count: usize) {
        let count = count.min(self.turns.len());
        self.trimmed += count;
        for turn in self.turns.drain(..count) {
            self.numbers.remove(&turn.id());
            self.envelopes -= usize::from(turn.envelope().is_some());
        }
        self.steps.drain(..count);
        self.indexed = self.indexed.max(self.trimmed);
        self.text.trim(self.steps.first().map(|step| step.begin));
    }

    fn path_to(&self, mut number: Option<usize>) -> Path<'_> {
        // As many as there can be, or as many as cost little if there are few.
        let most = number.map_or(0, |number| (number + 1).saturating_sub(self.trimmed)).min(4096);
        let mut places = Vec::with_capacity(most);
        while let Some(place) = number.and_then(|number| number.checked_sub(self.trimmed)) {
            places.push(place);
            number = self.steps[place].parent;
        }
        places.reverse();
        Path { log: self, places }
    }

    /// The number of the parent of a turn that is about to be added. A parent that is not in the log (a bound
    /// on turns has trimmed it) makes the turn a root.
    fn number_of(&mut self, parent: Parent) -> Option<usize> {
        match parent {
            Parent::Previous => (!self.turns.is_empty()).then(|| self.trimmed + self.turns.len() - 1),
            Parent::Root => None,
            Parent::Turn(id) => {
                let new = self.turns[self.indexed - self.trimmed..].iter().map(Record::id);
                self.numbers.extend(new.zip(self.indexed..));
                self.indexed = self.trimmed + self.turns.len();
                self.numbers.get(&id).copied()
            }
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("turns", &self.turns)
            .field("trimmed", &self.trimmed)
            .finish_non_exhaustive()
    }
}

impl Extend<Record> for Log {
    fn extend<I: IntoIterator<Item = Record>>(&mut self, turns: I) {
        turns.into_iter().for_each(|turn| self.push(turn));
    }
}

impl FromIterator<Record> for Log {
    fn from_iter<I: IntoIterator<Item = Record>>(turns: I) -> Self {
        let mut log = Self::new();
        log.extend(turns);
        log
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::fixtures::{assistant, turn, user};

    fn ids(path: &Path<'_>) -> Vec<RecordId> {
        path.turns().map(|turn| turn.id()).collect()
    }

    fn log(turns: &[&Record]) -> Log {
        turns.iter().map(|turn| (*turn).clone()).collect()
    }

    #[test]
    fn turns_line_up_in_commit_order_unless_they_name_a_parent() {
        let first = turn(Parent::Previous, &[user("1")], assistant("1"));
        let second = turn(Parent::Previous, &[user("2")], assistant("2"));
        let edit = turn(Parent::Turn(first.id()), &[user("2'")], assistant("2'"));
        let next = turn(Parent::Previous, &[user("3")], assistant("3"));
        let again = turn(Parent::Root, &[user("x")], assistant("x"));

        let mut log = log(&[&first, &second, &edit, &next]);
        assert_eq!(ids(&log.path()), [first.id(), edit.id(), next.id()]);
        assert_eq!(ids(&log.path_before_head()), [first.id(), edit.id()]);
        log.extend([again.clone()]);
        assert_eq!(ids(&log.path()), [again.id()]);
        assert!(log.path_before_head().is_empty());
        assert_eq!(log.turns().len(), 5, "abandoned branches stay in the log");
    }

    #[test]
    fn a_turn_whose_parent_was_trimmed_is_a_root() {
        let first = turn(Parent::Previous, &[user("1")], assistant("1"));
        let edit = turn(Parent::Turn(first.id()), &[user("2")], assistant("2"));
        let second = turn(Parent::Previous, &[user("3")], assistant("3"));
        assert_eq!(ids(&log(&[&second, &edit]).path()), [edit.id()]);
        assert_eq!(ids(&log(&[&second]).path()), [second.id()]);
    }
}
