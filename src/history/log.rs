mod path;

pub use path::Path;

use std::{collections::HashMap, fmt};

use super::{Format, Parent, Record, RecordId, Turn, joined::Joined};

/// A session's records in commit order, each turn with its parent resolved.
///
/// Append-only: a log that was loaded in part is extended with what came after. What every request asks of a long
/// log stands beside the records, so that it is read in a row: the records themselves are not looked at.
///
/// A record that is no turn is kept and is on no path.
#[derive(Clone, Default)]
pub struct Log {
    records: Vec<Record>,
    /// One for each record.
    steps: Vec<Step>,
    /// The items of all turns.
    text: Joined,
    /// How many records are envelopes.
    envelopes: usize,
    /// How many records were trimmed from the start. A record's number is its place before that.
    trimmed: usize,
    /// The number of the newest turn.
    head: Option<usize>,
    /// The format of its first turn.
    format: Option<Format>,
    /// Whether a turn has had another format.
    is_mixed: bool,
    /// The numbers of the turns below `indexed`: made when a turn names a parent.
    numbers: HashMap<RecordId, usize>,
    indexed: usize,
}

/// What the paths through a log are made of.
#[derive(Debug, Clone, Copy)]
struct Step {
    parent: Option<Link>,
    /// Where its items begin in the log's text.
    begin: u64,
    /// How many bytes they take.
    bytes: usize,
    items: u32,
    opens: bool,
    opens_with_result: bool,
    calls: bool,
    instructs: bool,
}

/// A place in a log by the number of its turn.
#[derive(Debug, Clone, Copy)]
struct Link {
    number: usize,
    /// How many items of the turn are kept: no more than it has.
    items: u32,
}

impl Log {
    /// A log without records.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The records, in commit order.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The turns among the records, in commit order.
    pub fn turns(&self) -> impl DoubleEndedIterator<Item = Turn<'_>> {
        self.records.iter().filter_map(Record::turn)
    }

    /// The newest turn.
    #[must_use]
    pub fn head(&self) -> Option<Turn<'_>> {
        self.records[self.head? - self.trimmed].turn()
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether all of its turns are in this format.
    #[must_use]
    pub(crate) fn has_only(&self, format: Format) -> bool {
        !self.is_mixed && self.format.is_none_or(|first| first == format)
    }

    /// How many bytes of memory a record takes in a log, beside its own.
    pub(crate) fn weight(record: &Record) -> usize {
        let items = record.turn().map_or(0, |turn| Joined::copied(turn.item_bytes().len()));
        size_of::<Record>() + size_of::<Step>() + items
    }

    /// Whether a record is an [envelope](Record::envelope).
    #[must_use]
    pub(crate) fn holds_envelopes(&self) -> bool {
        self.envelopes > 0
    }

    /// Adds a record.
    pub(crate) fn push(&mut self, record: Record) {
        let step = match record.turn() {
            Some(turn) => self.step(turn),
            None => Step::of_no_turn(),
        };
        if record.turn().is_some() {
            self.head = Some(self.trimmed + self.records.len());
        }
        self.steps.push(step);
        self.envelopes += usize::from(record.envelope().is_some());
        self.records.push(record);
    }

    /// Forgets the oldest records. A turn that continued one of them is a root.
    pub(crate) fn trim(&mut self, count: usize) {
        let count = count.min(self.records.len());
        self.trimmed += count;
        for record in self.records.drain(..count) {
            self.numbers.remove(&record.id());
            self.envelopes -= usize::from(record.envelope().is_some());
        }
        self.steps.drain(..count);
        self.head = self.head.filter(|head| *head >= self.trimmed);
        self.indexed = self.indexed.max(self.trimmed);
        self.text.trim(self.steps.iter().find(|step| step.items > 0).map(|step| step.begin));
    }

    fn step(&mut self, turn: Turn<'_>) -> Step {
        self.is_mixed |= *self.format.get_or_insert(turn.format()) != turn.format();
        let mut about = turn.about();
        let opening = about.next();
        Step {
            parent: self.link(turn.record().parent()),
            begin: self.text.push(turn.item_bytes()),
            bytes: turn.item_bytes().len(),
            items: u32::try_from(turn.len()).unwrap_or(u32::MAX),
            opens: opening.is_some_and(|about| about.opens),
            opens_with_result: opening.is_some_and(|about| !about.answers.is_empty()),
            calls: turn.about().skip(turn.sent()).any(|about| !about.calls.is_empty()),
            instructs: !turn.instruction_bytes().is_empty(),
        }
    }

    /// All items of the turn with this number.
    fn whole(&self, number: usize) -> Link {
        Link { number, items: self.steps[number - self.trimmed].items }
    }

    /// The place that a turn, which is about to be added, continues. A parent that is not in the log (a bound on its
    /// size has trimmed it) makes the turn a root.
    fn link(&mut self, parent: Parent) -> Option<Link> {
        match parent {
            Parent::Previous => self.head.map(|number| self.whole(number)),
            Parent::Root => None,
            Parent::At(place) => {
                let new = self.records[self.indexed - self.trimmed..].iter().map(Record::id);
                self.numbers.extend(new.zip(self.indexed..));
                self.indexed = self.trimmed + self.records.len();
                let named = *self.numbers.get(&place.turn)?;
                // A record that is no turn stands for the end of the turn before it.
                let is_turn = |number: &usize| self.steps[*number - self.trimmed].items > 0;
                let number = (self.trimmed..=named).rev().find(is_turn)?;
                let whole = self.whole(number);
                Some(if number == named {
                    Link { items: place.items.min(whole.items), ..whole }
                } else {
                    whole
                })
            }
        }
    }
}

impl Step {
    fn of_no_turn() -> Self {
        Self {
            parent: None,
            begin: 0,
            bytes: 0,
            items: 0,
            opens: false,
            opens_with_result: false,
            calls: false,
            instructs: false,
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("records", &self.records)
            .field("trimmed", &self.trimmed)
            .finish_non_exhaustive()
    }
}

impl Extend<Record> for Log {
    fn extend<I: IntoIterator<Item = Record>>(&mut self, records: I) {
        records.into_iter().for_each(|record| self.push(record));
    }
}

impl FromIterator<Record> for Log {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Self {
        let mut log = Self::new();
        log.extend(records);
        log
    }
}

#[cfg(test)]
mod tests;
