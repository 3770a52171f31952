//! Turns of a log that continue one another.

use std::ops::Range;

use bytes::Bytes;

use super::{Link, Log, Step};
use crate::history::{About, Format, Item, Place, RecordId, Turn};

/// Turns of a log that continue one another, the oldest first. Of each, as many items as the next one continues.
#[derive(Debug, Clone)]
pub struct Path<'a> {
    log: &'a Log,
    stretches: Vec<Stretch>,
}

/// A turn on a path, or the beginning of one. Every request copies those of a whole session, so they are small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    at: u32,
    /// How many of its items are on the path.
    items: u32,
}

impl Stretch {
    /// The first items of the turn that stands at `at` in the log.
    fn new(at: usize, items: u32) -> Self {
        // A log of this number of records has outgrown every memory.
        Self { at: u32::try_from(at).unwrap_or(u32::MAX), items }
    }

    /// Where the turn stands in the log.
    fn at(self) -> usize {
        self.at as usize
    }
}

/// What a window must know of a turn on a path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) bytes: usize,
    pub(crate) opens: bool,
}

impl Log {
    /// The history: the turns from the root to the head.
    #[must_use]
    pub fn path(&self) -> Path<'_> {
        self.path_to(self.head.map(|number| self.whole(number)))
    }

    /// The history without its newest turn: from the root to the head's parent.
    #[must_use]
    pub(crate) fn path_before_head(&self) -> Path<'_> {
        self.path_to(self.head.and_then(|number| self.steps[number - self.trimmed].parent))
    }

    fn path_to(&self, mut link: Option<Link>) -> Path<'_> {
        // As many as there can be, or as many as cost little if there are few.
        let most = link.map_or(0, |link| (link.number + 1).saturating_sub(self.trimmed)).min(4096);
        let mut stretches = Vec::with_capacity(most);
        while let Some(Link { number, items }) = link
            && let Some(at) = number.checked_sub(self.trimmed)
        {
            stretches.push(Stretch::new(at, items));
            link = self.steps[at].parent;
        }
        stretches.reverse();
        Path { log: self, stretches }
    }
}

impl<'a> Path<'a> {
    /// The turns, the oldest first.
    pub fn turns(&self) -> impl DoubleEndedIterator<Item = Turn<'a>> {
        self.stretches.iter().filter_map(|stretch| self.log.records[stretch.at()].turn())
    }

    /// How many turns it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stretches.len()
    }

    /// Whether it has no turns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    /// How many items it has, instructions not counted.
    #[must_use]
    pub fn items(&self) -> usize {
        self.stretches.iter().map(|stretch| stretch.items as usize).sum()
    }

    /// The newest instructions on it, as they are inserted.
    #[must_use]
    pub fn instructions(&self) -> Option<&'a Bytes> {
        self.instructing_turn().map(Turn::instruction_bytes)
    }

    /// Whether these are the newest instructions on it, byte for byte.
    #[must_use]
    pub(crate) fn has_instructions(&self, instructions: &[Item]) -> bool {
        self.instructing_turn().is_some_and(|turn| {
            turn.instructions().map(|item| item.raw().clone()).eq(instructions.iter().map(Item::raw))
        })
    }

    /// The formats of its turns, in order.
    pub(crate) fn formats(&self) -> impl Iterator<Item = Format> {
        self.turns().map(Turn::format)
    }

    /// Leaves out the turns at these places of the path, which are given from the last to the first.
    pub(crate) fn leave_out(&mut self, places: &[usize]) {
        let mut places = places.iter().rev().copied().peekable();
        let mut all = 0..;
        self.stretches.retain(|_| places.next_if_eq(&all.next().unwrap_or_default()).is_none());
    }

    /// Leaves out the first turns.
    pub(crate) fn leave_out_first(&mut self, count: usize) {
        self.stretches.drain(..count);
    }

    /// Some turns of the path, by their places on it.
    pub(crate) fn part(&self, places: Range<usize>) -> Self {
        Self { log: self.log, stretches: self.stretches[places].to_vec() }
    }

    /// The path up to this turn, and as many of that one's items.
    pub(crate) fn before(&self, turn: usize, items: usize) -> Self {
        let mut stretches = self.stretches[..turn].to_vec();
        if items > 0
            && let Some(stretch) = self.stretches.get(turn)
        {
            let items = u32::try_from(items).unwrap_or(u32::MAX).min(stretch.items);
            stretches.push(Stretch { items, ..*stretch });
        }
        Self { log: self.log, stretches }
    }

    /// Its items as they are inserted, in pieces: each raw items joined by single commas.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Bytes> {
        let follows = |before: &Stretch, next: &Stretch| {
            before.at + 1 == next.at && before.items == self.log.steps[before.at()].items
        };
        self.stretches.chunk_by(follows).flat_map(|run| {
            let (first, last) = (&self.log.steps[run[0].at()], &run[run.len() - 1]);
            let end = self.log.steps[last.at()].begin + self.bytes(last) as u64;
            self.log.text.pieces(first.begin..end)
        })
    }

    /// What a window must know of its turns.
    pub(crate) fn extents(&self) -> impl Iterator<Item = Extent> {
        self.stretches
            .iter()
            .map(|stretch| Extent { bytes: self.bytes(stretch), opens: self.log.steps[stretch.at()].opens })
    }

    /// The turn at this place of the path, and how many of its items are on it.
    pub(crate) fn turn(&self, at: usize) -> Option<(Turn<'a>, usize)> {
        let stretch = self.stretches.get(at)?;
        Some((self.log.records[stretch.at()].turn()?, stretch.items as usize))
    }

    /// The place at which it ends.
    pub(crate) fn end(&self) -> Option<Place> {
        self.place(self.len().checked_sub(1)?)
    }

    /// The place at which its turn at `at` ends.
    pub(crate) fn place(&self, at: usize) -> Option<Place> {
        let stretch = self.stretches.get(at)?;
        Some(Place { turn: self.log.records[stretch.at()].id(), items: stretch.items })
    }

    /// Where this turn stands.
    pub(crate) fn position(&self, id: RecordId) -> Option<usize> {
        self.turns().position(|turn| turn.id() == id)
    }

    /// Whether the turn at this place opens with the result of a call, which an earlier turn must have made.
    pub(crate) fn opens_with_result(&self, at: usize) -> bool {
        self.stretches.get(at).is_some_and(|stretch| self.log.steps[stretch.at()].opens_with_result)
    }

    /// Whether the part of the reply at this place that is on the path makes calls.
    pub(crate) fn calls(&self, at: usize) -> bool {
        let Some(stretch) = self.stretches.get(at) else { return false };
        let step = &self.log.steps[stretch.at()];
        step.calls && (stretch.items == step.items || self.reply(at).any(|about| !about.calls.is_empty()))
    }

    /// Meaning of the items at this place of the path.
    pub(crate) fn about(&self, at: usize) -> impl Iterator<Item = &'a About> + use<'a> {
        self.turn(at).into_iter().flat_map(|(turn, items)| turn.about().take(items))
    }

    /// Meaning of the reply's items at this place of the path.
    pub(crate) fn reply(&self, at: usize) -> impl Iterator<Item = &'a About> + use<'a> {
        self.turn(at).into_iter().flat_map(|(turn, items)| turn.about().take(items).skip(turn.sent()))
    }

    fn bytes(&self, stretch: &Stretch) -> usize {
        let step: &Step = &self.log.steps[stretch.at()];
        if stretch.items == step.items {
            return step.bytes;
        }
        self.log.records[stretch.at()].turn().map_or(0, |turn| turn.bytes_of_first(stretch.items as usize))
    }

    fn instructing_turn(&self) -> Option<Turn<'a>> {
        let stretch = self.stretches.iter().rev().find(|stretch| self.log.steps[stretch.at()].instructs)?;
        self.log.records[stretch.at()].turn()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::history::{
        Parent, Record,
        fixtures::{Said, assistant, turn, turn_with, user},
    };

    fn log(turns: &[&Record]) -> Log {
        turns.iter().map(|turn| (*turn).clone()).collect()
    }

    fn instructions(turn: &Record) -> &Bytes {
        turn.turn().unwrap().instruction_bytes()
    }

    #[test]
    fn the_newest_instructions_on_the_path_count_and_those_of_other_branches_do_not() {
        let first = turn_with("S", Parent::Previous, &[user("1")], assistant("1"));
        let second = turn_with("T", Parent::Previous, &[user("2")], assistant("2"));
        let edit = turn(Parent::At(Place { turn: first.id(), items: 2 }), &[user("2'")], assistant("2'"));
        assert!(
            log(&[&first, &second]).path().instructions().is_some_and(|bytes| bytes == instructions(&second))
        );
        let branched = log(&[&first, &second, &edit]);
        assert!(branched.path().instructions().is_some_and(|bytes| bytes == instructions(&first)));
        assert!(branched.path().has_instructions(&[Said::System("S").item()]));
        assert!(!branched.path().has_instructions(&[Said::System("T").item()]));
        assert!(!branched.path().has_instructions(&[]));
    }
}
