use std::{collections::HashMap, ops::Range};

use bytes::Bytes;

use super::{About, Message, Parent, Turn, TurnId};

/// A session's turns in commit order, each with its parent resolved.
///
/// Append-only: a log that was loaded in part is extended with what came after.
#[derive(Debug, Clone, Default)]
pub struct Log {
    turns: Vec<Turn>,
    /// Where the parent of the turn at the same place stands.
    parents: Vec<Option<usize>>,
    /// Where each turn stands.
    places: HashMap<TurnId, usize>,
}

impl Log {
    /// A log without turns.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The turns, in commit order.
    #[must_use]
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// The newest turn.
    #[must_use]
    pub fn head(&self) -> Option<&Turn> {
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
        self.path_to(self.turns.len().checked_sub(1))
    }

    /// The history without its newest turn: the turns from the root to the head's parent.
    #[must_use]
    pub fn path_before_head(&self) -> Path<'_> {
        self.path_to(self.parents.last().copied().flatten())
    }

    fn path_to(&self, mut place: Option<usize>) -> Path<'_> {
        let mut turns = Vec::new();
        while let Some(at) = place {
            turns.push(&self.turns[at]);
            place = self.parents[at];
        }
        turns.reverse();
        Path { turns }
    }

    /// Where the parent of a turn stands that is about to be added. A parent that is not in the log (a bound
    /// on turns has trimmed it) makes the turn a root.
    fn place_of(&self, parent: Parent) -> Option<usize> {
        match parent {
            Parent::Previous => self.turns.len().checked_sub(1),
            Parent::Root => None,
            Parent::Turn(id) => self.places.get(&id).copied(),
        }
    }
}

impl Extend<Turn> for Log {
    fn extend<I: IntoIterator<Item = Turn>>(&mut self, turns: I) {
        for turn in turns {
            self.parents.push(self.place_of(turn.parent()));
            self.places.insert(turn.id(), self.turns.len());
            self.turns.push(turn);
        }
    }
}

impl FromIterator<Turn> for Log {
    fn from_iter<I: IntoIterator<Item = Turn>>(turns: I) -> Self {
        let mut log = Self::new();
        log.extend(turns);
        log
    }
}

/// Turns that continue one another, the oldest first.
#[derive(Debug, Clone, Default)]
pub struct Path<'a> {
    turns: Vec<&'a Turn>,
}

impl<'a> Path<'a> {
    /// The turns, the oldest first.
    #[must_use]
    pub fn turns(&self) -> &[&'a Turn] {
        &self.turns
    }

    /// Whether it has no turns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// How many messages its turns hold, instructions not counted.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.turns.iter().map(|turn| turn.len()).sum()
    }

    /// The newest instructions on it, as they are spliced.
    #[must_use]
    pub fn instructions(&self) -> Option<&'a Bytes> {
        self.instructing_turn().map(Turn::instruction_bytes)
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
        let mut kept: Vec<&Turn> = Vec::with_capacity(self.turns.len());
        for turn in self.turns.iter().rev() {
            let answered = match kept.last() {
                Some(follower) => answers(turn, follower.about()),
                None => answers(turn, next.iter().map(Message::about)),
            };
            if answered {
                kept.push(turn);
            }
        }
        while kept.last().is_some_and(|turn| turn.opens_with_result()) {
            kept.pop();
        }
        kept.reverse();
        Self { turns: kept }
    }

    /// The part of the path that ends with this turn; all of it if the turn is not on it.
    pub(super) fn up_to(&self, id: TurnId) -> Self {
        self.part(0..self.position(id).map_or(self.turns.len(), |at| at + 1))
    }

    /// Some turns of the path, by their places.
    pub(super) fn part(&self, places: Range<usize>) -> Self {
        Self { turns: self.turns[places].to_vec() }
    }

    /// Where this turn stands.
    pub(super) fn position(&self, id: TurnId) -> Option<usize> {
        self.turns.iter().position(|turn| turn.id() == id)
    }

    fn instructing_turn(&self) -> Option<&'a Turn> {
        self.turns.iter().rev().find(|turn| !turn.instruction_bytes().is_empty()).copied()
    }
}

/// Whether the reply calls no tool, or one of its calls is answered by what follows. A call or an answer
/// without an id goes by its position, so that any answer answers it.
fn answers<'a>(turn: &Turn, follows: impl Iterator<Item = &'a About>) -> bool {
    let calls = turn.about().next_back().map_or(&[][..], |reply| &reply.calls);
    calls.is_empty()
        || follows
            .filter_map(|about| about.answers.as_deref())
            .any(|answer| answer.is_empty() || calls.iter().any(|call| call.is_empty() || call == answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::fixtures::{Said, assistant, calls, result, turn, turn_with, user};

    fn ids(path: &Path<'_>) -> Vec<TurnId> {
        path.turns().iter().map(|turn| turn.id()).collect()
    }

    fn log(turns: &[&Turn]) -> Log {
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
        assert_eq!(log(&all).path().healed(&[user("x")]).turns().len(), 4);
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
        assert_eq!(log(&[&asks]).path().healed(&[result("b")]).turns().len(), 1);
        let nameless = turn(Parent::Previous, &[user("1")], calls(&[""]));
        assert_eq!(log(&[&nameless]).path().healed(&[result("minted")]).turns().len(), 1);
        assert!(log(&[&nameless]).path().healed(&[user("x")]).is_empty());
    }
}
