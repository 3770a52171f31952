//! Turns of a log that continue one another.

use std::ops::Range;

use bytes::Bytes;

use super::{Log, Step};
use crate::history::{About, Message, Record, RecordId};

/// Turns of a log that continue one another, the oldest first.
#[derive(Debug, Clone)]
pub struct Path<'a> {
    pub(super) log: &'a Log,
    /// Where they stand in the log.
    pub(super) places: Vec<usize>,
}

impl<'a> Path<'a> {
    /// The turns, the oldest first.
    pub fn turns(&self) -> impl ExactSizeIterator<Item = &'a Record> + DoubleEndedIterator {
        self.places.iter().map(|place| &self.log.turns[*place])
    }

    /// The turn at this place of the path.
    pub(in crate::history) fn turn(&self, at: usize) -> Option<&'a Record> {
        Some(&self.log.turns[*self.places.get(at)?])
    }

    /// How many turns it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it has no turns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many messages its turns hold, instructions not counted.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.steps().map(|step| step.messages as usize).sum()
    }

    /// The newest instructions on it, as they are spliced.
    #[must_use]
    pub fn instructions(&self) -> Option<&'a Bytes> {
        self.instructing_turn().map(Record::instruction_bytes)
    }

    /// Whether these are the newest instructions on it, byte for byte.
    #[must_use]
    pub fn has_instructions(&self, instructions: &[Message]) -> bool {
        self.instructing_turn().is_some_and(|turn| {
            turn.instructions().map(|m| m.raw().clone()).eq(instructions.iter().map(Message::raw))
        })
    }

    /// The path as it can be sent before `next`: without the turns whose tool calls nobody answered, and, at
    /// its beginning, without those whose first message answers a call that is not there.
    ///
    /// Providers refuse a tool call that no result follows, so one unanswered call would brick the session. A
    /// turn leaves the view when its reply calls tools and what follows it, the next turn of the view or
    /// `next`, holds no result for any of them. Then the turn before it may be unanswered in its place, and
    /// leaves too. A call that is answered in part stays: the upstream tells the client what is missing.
    ///
    /// They refuse a result without its call as well. A path begins with one where a bound on the turns kept
    /// has trimmed the call; what follows up to the next turn that opens otherwise leaves with it.
    #[must_use]
    pub fn healed(&self, next: &[Message]) -> Self {
        let mut kept: Vec<usize> = Vec::with_capacity(self.places.len());
        for &place in self.places.iter().rev() {
            let answered = !self.log.steps[place].calls
                || match kept.last() {
                    Some(&follower) => answers(&self.log.turns[place], self.log.turns[follower].about()),
                    None => answers(&self.log.turns[place], next.iter().map(Message::about)),
                };
            if answered {
                kept.push(place);
            }
        }
        while kept.last().is_some_and(|place| self.log.steps[*place].opens_with_result) {
            kept.pop();
        }
        kept.reverse();
        Self { log: self.log, places: kept }
    }

    /// The messages of all its turns as they are spliced, in pieces: each raw messages joined by single commas.
    pub(in crate::history) fn pieces(&self) -> impl Iterator<Item = Bytes> {
        self.places.chunk_by(|place, next| place + 1 == *next).flat_map(|run| {
            let (first, last) = (&self.log.steps[run[0]], &self.log.steps[run[run.len() - 1]]);
            self.log.text.pieces(first.begin..last.begin + last.bytes as u64)
        })
    }

    /// What is known of its turns.
    pub(in crate::history) fn steps(&self) -> impl Iterator<Item = &'a Step> {
        self.places.iter().map(|place| &self.log.steps[*place])
    }

    /// The part of the path that ends with this turn; all of it if the turn is not on it.
    pub(in crate::history) fn up_to(&self, id: RecordId) -> Self {
        self.part(0..self.position(id).map_or(self.places.len(), |at| at + 1))
    }

    /// Some turns of the path, by their places on it.
    pub(in crate::history) fn part(&self, places: Range<usize>) -> Self {
        Self { log: self.log, places: self.places[places].to_vec() }
    }

    /// Where this turn stands.
    pub(in crate::history) fn position(&self, id: RecordId) -> Option<usize> {
        self.turns().position(|turn| turn.id() == id)
    }

    fn instructing_turn(&self) -> Option<&'a Record> {
        let place = self.places.iter().rev().find(|place| self.log.steps[**place].instructs)?;
        Some(&self.log.turns[*place])
    }
}

/// Whether one of the calls that the reply makes is answered by what follows. A call or an answer without an id
/// goes by its position, so that any answer answers it.
fn answers<'a>(turn: &Record, follows: impl Iterator<Item = &'a About>) -> bool {
    let calls = turn.about().next_back().map_or(&[][..], |reply| &reply.calls);
    follows
        .filter_map(|about| about.answers.as_deref())
        .any(|answer| answer.is_empty() || calls.iter().any(|call| call.is_empty() || call == answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{
        Parent,
        fixtures::{Said, assistant, calls, result, turn, turn_with, user},
    };

    fn ids(path: &Path<'_>) -> Vec<RecordId> {
        path.turns().map(|turn| turn.id()).collect()
    }

    fn log(turns: &[&Record]) -> Log {
        turns.iter().map(|turn| (*turn).clone()).collect()
    }

    #[test]
    fn the_newest_instructions_on_the_path_count_and_those_of_other_branches_do_not() {
        let first = turn_with("S", Parent::Previous, &[user("1")], assistant("1"));
        let second = turn_with("T", Parent::Previous, &[user("2")], assistant("2"));
        let edit = turn(Parent::Turn(first.id()), &[user("2'")], assistant("2'"));
        assert!(
            log(&[&first, &second])
                .path()
                .instructions()
                .is_some_and(|bytes| bytes == second.instruction_bytes())
        );
        let branched = log(&[&first, &second, &edit]);
        assert!(branched.path().instructions().is_some_and(|bytes| bytes == first.instruction_bytes()));
        assert!(branched.path().has_instructions(&[Said::System("S").message()]));
        assert!(!branched.path().has_instructions(&[Said::System("T").message()]));
        assert!(!branched.path().has_instructions(&[]));
    }

    #[test]
    fn an_unanswered_call_leaves_the_view_and_takes_the_calls_before_it_along() {
        let opening = turn(Parent::Previous, &[user("1")], assistant("1"));
        let asks = turn(Parent::Previous, &[user("2")], calls(&["a", "b"]));
        let asks_again = turn(Parent::Previous, &[result("a"), result("b")], calls(&["c"]));
        let plain = turn(Parent::Previous, &[user("3")], assistant("3"));

        let dangling = log(&[&opening, &asks, &asks_again]);
        assert_eq!(ids(&dangling.path().healed(&[user("x")])), [opening.id()]);
        assert_eq!(ids(&dangling.path().healed(&[])), [opening.id()]);
        assert_eq!(ids(&dangling.path().healed(&[result("c")])).len(), 3);
        assert_eq!(
            ids(&dangling.path().healed(&[result("")])).len(),
            3,
            "an answer without id goes by position"
        );
        assert_eq!(ids(&dangling.path().healed(&[result("a")])).len(), 2, "an answer to the call before");

        let gone_on = log(&[&opening, &asks, &asks_again, &plain]);
        assert_eq!(ids(&gone_on.path().healed(&[user("x")])), [opening.id(), plain.id()]);
    }

    #[test]
    fn results_whose_call_was_trimmed_leave_the_view_up_to_the_next_question() {
        let asks = turn(Parent::Previous, &[user("1")], calls(&["a"]));
        let asks_again = turn(Parent::Previous, &[result("a")], calls(&["b"]));
        let answers = turn(Parent::Previous, &[result("b")], assistant("1"));
        let plain = turn(Parent::Previous, &[user("2")], assistant("2"));

        let all = [&asks, &asks_again, &answers, &plain];
        assert_eq!(log(&all).path().healed(&[user("x")]).len(), 4);
        for trimmed in 1..3 {
            assert_eq!(
                ids(&log(&all[trimmed..]).path().healed(&[user("x")])),
                [plain.id()],
                "{trimmed} trimmed"
            );
        }
        assert!(log(&[&answers]).path().healed(&[user("x")]).is_empty());
    }

    #[test]
    fn a_call_answered_in_part_and_a_call_without_id_stay() {
        let asks = turn(Parent::Previous, &[user("1")], calls(&["a", "b"]));
        assert_eq!(log(&[&asks]).path().healed(&[result("b")]).len(), 1);
        let nameless = turn(Parent::Previous, &[user("1")], calls(&[""]));
        assert_eq!(log(&[&nameless]).path().healed(&[result("minted")]).len(), 1);
        assert!(log(&[&nameless]).path().healed(&[user("x")]).is_empty());
    }
}
