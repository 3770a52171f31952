//! Sessions that are deleted, or whose store went back to an older state: several logs, one after the other.
//!
//! Their clients only send deltas, so every log is a line, and everything that was shown of it is a beginning
//! of that line. The last line is in the store; of the others the longest beginning that was shown is known.

use std::collections::{HashMap, HashSet};

use tower_session_memory::history::Parent;

use super::case::{Case, Facts, What, parted};
use crate::linearity::history::{Kind, Op, Outcome, Shown, Span, Time};

pub(super) fn check(case: &mut Case<'_>) {
    let deletions: Vec<Span> = case
        .ops
        .iter()
        .filter(|op| op.kind == Kind::Delete)
        .map(|op| Span { from: op.invoked, to: op.returned })
        .collect();
    let mut views = Vec::new();
    for (op, shown) in case.shown.clone() {
        match numbers(case.facts, op, shown) {
            Ok(turns) => views.push(View { from: op.invoked, to: shown.at, turns }),
            Err(why) => case.report(What::WrongView, format_args!("{why}: {op}: {:?}", shown.messages)),
        }
    }
    for turn in case.log {
        if turn.parent != Parent::Previous || turn.sent.len() != 1 || !turn.instructions.is_empty() {
            case.report(What::Misrecorded, format_args!("this is no delta: {turn}"));
        }
    }
    // The store is read in the end: one more view, and of that time.
    let end = Time::MAX;
    let stored = case.log.iter().filter_map(|turn| turn.reply.number()).collect();
    views.push(View { from: end, to: end, turns: stored });
    for view in &views {
        holds_each_once(case, view);
        holds_what_ended(case, view, &deletions);
        holds_nothing_deleted(case, view, &deletions);
        is_in_the_order_of_time(case, view);
    }
    form_lines(case, &views);
}

/// The turns that a request was shown.
struct View {
    /// The store was read after this,
    from: Time,
    /// and before this.
    to: Time,
    /// The numbers of their replies.
    turns: Vec<u64>,
}

/// The numbers of the replies that were shown, each after its question.
fn numbers(facts: &Facts<'_>, op: &Op, shown: &Shown) -> Result<Vec<u64>, &'static str> {
    let (_, rest) = parted(&shown.messages);
    let (_, own) = parted(&op.sent);
    if !matches!(op.kind, Kind::Delta | Kind::Read) || own.len() != 1 {
        return Err("only deltas are understood");
    }
    let before = rest.strip_suffix(own).ok_or("not what the client sent last")?;
    let (turns, rest) = before.as_chunks::<2>();
    let numbers = turns.iter().map(|[question, reply]| {
        let asked = facts.shown.get(&reply.number()?)?;
        let op = facts.op(asked);
        let whole = op.outcome == Outcome::Left || reply.text == asked.reply;
        (whole && op.sent.last() == Some(question)).then_some(asked.number)
    });
    let numbers = numbers.collect::<Option<Vec<_>>>();
    numbers.filter(|_| rest.is_empty()).ok_or("these are no turns")
}

fn holds_each_once(case: &mut Case<'_>, view: &View) {
    let mut seen = HashSet::new();
    if !view.turns.iter().all(|number| seen.insert(number)) {
        case.report(What::Doubled, format_args!("in {:?}", view.turns));
    }
}

/// (a): what ended before the read, and was neither deleted nor lost with the store's newest turns.
fn holds_what_ended(case: &mut Case<'_>, view: &View, deletions: &[Span]) {
    let held: HashSet<u64> = view.turns.iter().copied().collect();
    let rewinds = &case.facts.history.rewinds;
    for (op, shown) in case.shown.clone() {
        let ended = op.outcome == Outcome::Ended && op.kind.is_recorded() && op.returned < view.from;
        let may_be_gone = |span: &Span| span.to > op.invoked && span.from < view.to;
        let kept = !deletions.iter().chain(rewinds).any(may_be_gone);
        if ended && kept && !held.contains(&shown.number) {
            case.report(What::Lost, format_args!("it ended, and is not in {:?}: {op}", view.turns));
        }
    }
}

/// A turn that was built on what is deleted is never seen after the deletion.
fn holds_nothing_deleted(case: &mut Case<'_>, view: &View, deletions: &[Span]) {
    for number in &view.turns {
        let Some(shown) = case.facts.shown.get(number) else { continue };
        // A rewind may bring back what was deleted.
        let rewound = case.facts.history.rewinds.iter().any(|span| span.from < view.to);
        let deleted = deletions.iter().any(|span| shown.at < span.from && span.to < view.from);
        if deleted && !rewound {
            case.report(What::Resurrected, format_args!("{number} in {:?}", view.turns));
        }
    }
}

/// (d)
fn is_in_the_order_of_time(case: &mut Case<'_>, view: &View) {
    let mut earliest_end_after = Time::MAX;
    for number in view.turns.iter().rev() {
        let Some(shown) = case.facts.shown.get(number) else { continue };
        if earliest_end_after < shown.at {
            case.report(What::Disordered, format_args!("{number} in {:?}", view.turns));
        }
        let op = case.facts.op(shown);
        if op.outcome == Outcome::Ended {
            earliest_end_after = earliest_end_after.min(op.returned);
        }
    }
}

/// (e): between two rewinds, views that begin with the same turn are beginnings of one line, and no later one
/// is shorter.
fn form_lines(case: &mut Case<'_>, views: &[View]) {
    let rewinds = case.facts.history.rewinds.clone();
    let era = |time: Time| rewinds.iter().filter(|span| span.to < time).count();
    let last_era = |time: Time| rewinds.iter().filter(|span| span.from < time).count();
    let mut lines: HashMap<(usize, u64), Vec<&View>> = HashMap::new();
    for view in views.iter().filter(|view| !view.turns.is_empty()) {
        // One that was read while the store went back belongs to either side, and is left to the others checks.
        if era(view.from) == last_era(view.to) {
            lines.entry((era(view.from), view.turns[0])).or_default().push(view);
        }
    }
    for line in lines.values_mut() {
        line.sort_by_key(|view| view.to);
        let longest = line.iter().max_by_key(|view| view.turns.len()).expect("a line has a view");
        for view in line.iter() {
            if !longest.turns.starts_with(&view.turns) {
                let (one, other) = (&view.turns, &longest.turns);
                case.report(What::WrongView, format_args!("no line: {one:?} and {other:?}"));
            }
        }
        let mut length = Vec::new();
        for view in line.iter() {
            let before = length.last().map_or(0, |(_, length)| *length);
            length.push((view.to, before.max(view.turns.len())));
        }
        for view in line.iter() {
            let before = length.partition_point(|(at, _)| *at < view.from);
            if before > 0 && length[before - 1].1 > view.turns.len() {
                case.report(What::WrongView, format_args!("older than shown before: {:?}", view.turns));
            }
        }
    }
}
