//! Sessions that are never deleted: one log, in which turns may branch off.

use std::collections::HashMap;

use tower_session_memory::history::Parent;

use super::case::{Case, What, parted};
use crate::linearity::history::{Kind, Op, Outcome, Said, Shown, Stored, Time};

pub(super) fn check(case: &mut Case<'_>) {
    let log = Log::new(case);
    log.holds_what_ended(case);
    log.is_in_the_order_of_time(case);
    let mut lengths = Vec::new();
    for (op, shown) in case.shown.clone() {
        match log.explain(case, op, shown) {
            Ok(Some(length)) => lengths.push((op, shown, length)),
            Ok(None) => {}
            Err((what, why)) => case.report(what, format_args!("{why}: {op} was shown {:?}", shown.messages)),
        }
    }
    never_goes_back(case, &mut lengths);
}

/// The final log, with every path in it.
struct Log<'a> {
    turns: &'a [Stored],
    /// Where the turn stands whose reply has this number.
    places: HashMap<u64, usize>,
    /// Where the turns of the path to each turn stand.
    paths: Vec<Vec<usize>>,
    bounds: Bounds,
}

type Wrong = (What, &'static str);

impl<'a> Log<'a> {
    fn new(case: &mut Case<'a>) -> Self {
        let turns = case.log;
        let mut places = HashMap::new();
        let mut ids = HashMap::new();
        let mut paths: Vec<Vec<usize>> = Vec::new();
        for (place, turn) in turns.iter().enumerate() {
            if turn.reply.number().is_some_and(|number| places.insert(number, place).is_some()) {
                case.report(What::Doubled, format_args!("stored twice: {turn}"));
            }
            let parent = match turn.parent {
                Parent::Previous => place.checked_sub(1),
                Parent::Root => None,
                Parent::At(at) => {
                    let parent = ids.get(&at.turn).copied();
                    if parent.is_none() {
                        case.report(What::Misrecorded, format_args!("its parent is not there: {turn}"));
                    }
                    parent
                }
            };
            let mut path = parent.map_or_else(Vec::new, |parent: usize| paths[parent].clone());
            path.push(place);
            paths.push(path);
            ids.insert(turn.id, place);
        }
        let bounds = Bounds::new(case, &places);
        Self { turns, places, paths, bounds }
    }

    fn place(&self, shown: &Shown) -> Option<usize> {
        self.places.get(&shown.number).copied()
    }

    /// (a)
    fn holds_what_ended(&self, case: &mut Case<'_>) {
        for (op, shown) in case.shown.clone() {
            let ended = op.outcome == Outcome::Ended && op.kind.is_recorded();
            if ended && self.place(shown).is_none() {
                case.report(What::Lost, format_args!("it ended, and is not stored: {op}"));
            }
        }
    }

    /// (d): a turn is committed after the upstream saw it, and before its client saw the end.
    fn is_in_the_order_of_time(&self, case: &mut Case<'_>) {
        let mut earliest_end_after = Time::MAX;
        for turn in self.turns.iter().rev() {
            let Some(shown) = turn.reply.number().and_then(|number| case.facts.shown.get(&number)) else {
                continue;
            };
            if earliest_end_after < shown.at {
                case.report(What::Disordered, format_args!("a turn after it ended before it: {turn}"));
            }
            let op = case.facts.op(shown);
            if op.outcome == Outcome::Ended {
                earliest_end_after = earliest_end_after.min(op.returned);
            }
        }
    }

    /// (e): how many turns the log had when the request was made, where the request tells.
    fn explain(&self, case: &Case<'_>, op: &Op, shown: &Shown) -> Result<Option<usize>, Wrong> {
        let (leading, rest) = parted(&shown.messages);
        let (own_leading, own) = parted(&op.sent);
        if !rest.ends_with(own) {
            return Err((What::WrongView, "not what the client sent last"));
        }
        let turn = self.place(shown).map(|place| &self.turns[place]);
        let new = turn.map_or(1, |turn| turn.sent.len()).min(rest.len());
        let before = &rest[..rest.len() - new];
        let base = match op.kind {
            Kind::Delta | Kind::Read | Kind::Retry if new != 1 => Err((What::Torn, "more than one question")),
            Kind::Delta | Kind::Read if turn.is_some_and(|turn| turn.parent != Parent::Previous) => {
                Err((What::Misrecorded, "a delta does not continue the newest turn"))
            }
            Kind::Delta | Kind::Read => self.newest(case, before, op, shown),
            Kind::Retry => self.superseded(case, before, turn, op, shown),
            Kind::Reset if rest != own || turn.is_some_and(|turn| turn.parent != Parent::Root) => {
                Err((What::WrongView, "a reset that does not start again"))
            }
            Kind::Reset => Ok(Base { path: None, length: None }),
            Kind::Resend | Kind::Edit => self.known(case, before, turn, op, shown, rest == own),
            Kind::Delete => Err((What::Misrecorded, "a deletion is no request")),
        }?;
        let remembered = base.path.and_then(|path| self.instructions(path)).unwrap_or_default();
        let expected = if own_leading.is_empty() { remembered } else { own_leading };
        // A client that sends everything is not reminded of its instructions, unless something is inserted.
        let may_be_left_out = own_leading.is_empty() && matches!(op.kind, Kind::Resend | Kind::Edit);
        if leading != expected && !may_be_left_out {
            return Err((What::WrongView, "other instructions"));
        }
        if let Some(turn) = turn {
            let changed = if own_leading == remembered { &[][..] } else { own_leading };
            if turn.instructions != changed {
                return Err((What::Misrecorded, "other instructions are stored"));
            }
        }
        Ok(base.length)
    }

    /// The path to the newest turn was shown.
    fn newest(&self, case: &Case<'_>, before: &[Said], op: &Op, shown: &Shown) -> Result<Base, Wrong> {
        let path = self.path_of(before)?;
        let length = path.map_or(0, |place| place + 1);
        let (least, most) = self.bounds.of(case, op, shown, self.place(shown));
        match length {
            length if length < least => Err((What::WrongView, "older than what had ended")),
            length if length > most => Err((What::WrongView, "newer than what there was")),
            length => Ok(Base { path, length: Some(length) }),
        }
    }

    /// The path to the newest turn, or, if that was the same question, the path before it.
    fn superseded(
        &self,
        case: &Case<'_>,
        before: &[Said],
        turn: Option<&Stored>,
        op: &Op,
        shown: &Shown,
    ) -> Result<Base, Wrong> {
        let (least, most) = self.bounds.of(case, op, shown, self.place(shown));
        let path = self.path_of(before)?;
        let (_, own) = parted(&op.sent);
        let tries = (least.max(1)..=most).filter(|length| {
            let (head, path_to_head) = (&self.turns[length - 1], &self.paths[length - 1]);
            let parent = path_to_head.len().checked_sub(2).map(|at| path_to_head[at]);
            head.sent == own && parent == path
        });
        let parent = match path {
            None => Parent::Root,
            Some(place) => self.turns[place].end(),
        };
        let superseded = turn.is_none_or(|turn| turn.parent == parent);
        if superseded && tries.count() > 0 {
            return Ok(Base { path, length: None });
        }
        if turn.is_some_and(|turn| turn.parent != Parent::Previous) {
            return Err((What::Misrecorded, "it supersedes nothing that was the newest"));
        }
        self.newest(case, before, op, shown)
    }

    /// The client sent all it knew: what is not new stands before the turn in the log too.
    fn known(
        &self,
        case: &Case<'_>,
        before: &[Said],
        turn: Option<&Stored>,
        op: &Op,
        shown: &Shown,
        as_sent: bool,
    ) -> Result<Base, Wrong> {
        match turn.map(|turn| turn.parent) {
            None if as_sent => Ok(Base { path: None, length: None }),
            None => Ok(Base { path: self.path_of(before)?, length: None }),
            Some(Parent::Previous) => self.newest(case, before, op, shown),
            Some(Parent::Root) if before.is_empty() => Ok(Base { path: None, length: None }),
            Some(Parent::At(at)) => {
                let path = self.path_of(before)?;
                let parent = path.map(|place| self.turns[place].end());
                let right = parent == Some(Parent::At(at));
                right
                    .then_some(Base { path, length: None })
                    .ok_or((What::Misrecorded, "it continues another turn"))
            }
            Some(Parent::Root) => Err((What::Misrecorded, "it does not continue what it repeats")),
        }
    }

    /// Where the path ends that these are the messages of.
    fn path_of(&self, messages: &[Said]) -> Result<Option<usize>, Wrong> {
        let Some(last) = messages.last() else { return Ok(None) };
        let end = last.number().and_then(|number| self.places.get(&number).copied());
        let end = end.ok_or((What::WrongView, "a turn that the log does not have"))?;
        let turns = self.paths[end].iter().map(|&place| &self.turns[place]);
        let path = turns.flat_map(|turn| turn.sent.iter().chain([&turn.reply]));
        if path.eq(messages) { Ok(Some(end)) } else { Err((What::WrongView, "no path of the log")) }
    }

    /// The newest instructions on the path to this place.
    fn instructions(&self, place: usize) -> Option<&[Said]> {
        let mut newest = self.paths[place].iter().rev().map(|&place| &self.turns[place].instructions[..]);
        newest.find(|instructions| !instructions.is_empty())
    }
}

/// What a turn is built on: the path to a place, and how long the log was if that shows.
struct Base {
    path: Option<usize>,
    length: Option<usize>,
}

/// How long the log can have been at a time.
struct Bounds {
    /// When turns ended, and the length of a log that holds them; both grow.
    ended: Vec<(Time, usize)>,
    /// When turns were with the upstream first, and the longest log without them and all that came later.
    unseen: Vec<(Time, usize)>,
}

impl Bounds {
    fn new(case: &Case<'_>, places: &HashMap<u64, usize>) -> Self {
        let stored =
            case.shown.iter().filter_map(|(op, shown)| Some((op, shown, *places.get(&shown.number)?)));
        let (mut ended, mut unseen) = (Vec::new(), Vec::new());
        for (op, shown, place) in stored {
            unseen.push((shown.at, place));
            if op.outcome == Outcome::Ended {
                ended.push((op.returned, place + 1));
            }
        }
        ended.sort_unstable();
        let mut longest = 0;
        for (_, length) in &mut ended {
            longest = longest.max(*length);
            *length = longest;
        }
        unseen.sort_unstable();
        let mut shortest = case.log.len();
        for (_, length) in unseen.iter_mut().rev() {
            shortest = shortest.min(*length);
            *length = shortest;
        }
        Self { ended, unseen }
    }

    /// The least and the most turns that a request can have been shown: the log is read after it began, and
    /// before the upstream saw it; and before its own turn is in it.
    fn of(&self, case: &Case<'_>, op: &Op, shown: &Shown, own: Option<usize>) -> (usize, usize) {
        let before = self.ended.partition_point(|(returned, _)| *returned < op.invoked);
        let least = before.checked_sub(1).map_or(0, |at| self.ended[at].1);
        let after = self.unseen.partition_point(|(at, _)| *at <= shown.at);
        let most = self.unseen.get(after).map_or(case.log.len(), |(_, length)| *length);
        (least, own.map_or(most, |own| most.min(own)))
    }
}

/// A later request is never shown less than an earlier one was.
fn never_goes_back(case: &mut Case<'_>, lengths: &mut [(&Op, &Shown, usize)]) {
    lengths.sort_by_key(|(_, shown, _)| shown.at);
    let mut longest = Vec::new();
    for (_, shown, length) in lengths.iter() {
        let before = longest.last().map_or(0, |(_, length)| *length);
        longest.push((shown.at, before.max(*length)));
    }
    for (op, _, length) in lengths.iter() {
        let before = longest.partition_point(|(at, _)| *at < op.invoked);
        if before > 0 && longest[before - 1].1 > *length {
            case.report(What::WrongView, format_args!("older than what was shown before: {op}"));
        }
    }
}
