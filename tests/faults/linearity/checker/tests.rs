//! The checker passes every history that a right store makes, and refuses each that is wrong in one way.

use tower_session_memory::history::{Parent, RecordId};

use super::{
    What, check, kinds,
    model::{Model, is_deleted},
};
use crate::common::random::Random;
use crate::linearity::history::{History, Kind, Op, Outcome, Said, Session, Stored};

#[test]
fn histories_of_a_right_store_pass() {
    for seed in 0..300 {
        let history = Model::new(seed).run(120);
        let found = check(&history);
        assert!(found.is_empty(), "seed {seed}: {}", found[0]);
    }
}

#[test]
fn a_rewound_store_passes_unless_what_was_lost_is_shown_again() {
    for seed in 0..100 {
        let mut model = Model::new(seed);
        model.only_deltas = true;
        model.steps(200);
        model.rewind();
        let history = model.run(80);
        let found = check(&history);
        assert!(found.is_empty(), "seed {seed}: {}", found[0]);
    }
}

#[test]
fn a_lost_turn_is_found() {
    refuses(What::Lost, |history, dice| {
        let (session, at) = some_turn(history, dice, |op| op.outcome == Outcome::Ended)?;
        history.logs.get_mut(&session)?.remove(at);
        Some(())
    });
}

#[test]
fn a_doubled_turn_is_found() {
    refuses(What::Doubled, |history, dice| {
        let (session, at) = some_turn(history, dice, |_| true)?;
        let log = history.logs.get_mut(&session)?;
        let again = Stored { id: RecordId::new(), ..log[at].clone() };
        log.push(again);
        Some(())
    });
}

#[test]
fn a_torn_turn_is_found() {
    refuses(What::Torn, |history, dice| {
        let (session, at) = some_turn(history, dice, |op| op.outcome != Outcome::Left)?;
        history.logs.get_mut(&session)?[at].reply.text.pop();
        Some(())
    });
    refuses(What::Torn, |history, dice| {
        let (session, at) = some_turn(history, dice, |_| true)?;
        let log = history.logs.get_mut(&session)?;
        let other = (at + 1) % log.len();
        log[at].sent = log[other].sent.clone();
        (other != at).then_some(())
    });
}

#[test]
fn a_turn_of_somebody_else_is_found() {
    refuses(What::Foreign, |history, dice| {
        let (session, at) = some_turn(history, dice, |_| true)?;
        let turn = history.logs[&session][at].clone();
        let other = history.logs.iter_mut().find(|(other, _)| **other != session)?;
        other.1.push(turn);
        Some(())
    });
    refuses(What::Foreign, |history, dice| {
        let at = dice.below(history.shown.len());
        let session = history.ops[history.shown[at].op].session.clone();
        let other = history.ops.iter().find(|op| op.session != session && !op.sent.is_empty())?;
        let said = other.sent.last()?.clone();
        history.shown[at].messages.insert(0, said);
        Some(())
    });
}

#[test]
fn turns_in_another_order_than_time_allows_are_found() {
    refuses(What::Disordered, |history, dice| {
        let (session, at) = some_turn(history, dice, |op| op.outcome == Outcome::Ended)?;
        let log = history.logs.get_mut(&session)?;
        let later = log.get(at + 1)?.reply.number()?;
        let ended =
            history.ops[history.shown.iter().find(|s| Some(s.number) == log[at].reply.number())?.op].returned;
        let seen = history.shown.iter().find(|shown| shown.number == later)?.at;
        log.swap(at, at + 1);
        (ended < seen).then_some(())
    });
}

#[test]
fn a_view_without_what_had_ended_is_found() {
    refuses(What::WrongView, |history, dice| {
        let (at, own) = some_read(history, dice)?;
        let own = history.shown[at].messages.len() - own;
        // Without the last turn before its own question, which had ended.
        let last = history.shown[at].messages[own - 1].number()?;
        let asked = history.shown.iter().find(|shown| shown.number == last)?;
        let op = &history.ops[asked.op];
        let ended = op.outcome == Outcome::Ended && op.returned < history.ops[history.shown[at].op].invoked;
        history.shown[at].messages.drain(own - 2..own);
        ended.then_some(())
    });
}

#[test]
fn a_turn_that_came_back_after_its_deletion_is_found() {
    refuses(What::Resurrected, |history, _| {
        let deletion = history.ops.iter().rev().find(|op| op.kind == Kind::Delete)?.clone();
        let shown = history.shown.iter().find(|shown| {
            let op = &history.ops[shown.op];
            op.session == deletion.session
                && shown.at < deletion.invoked
                && op.kind == Kind::Delta
                && !shown.broken
        })?;
        let op = &history.ops[shown.op];
        let turn = Stored {
            id: RecordId::new(),
            parent: Parent::Previous,
            instructions: vec![],
            sent: op.sent.clone(),
            reply: Said::assistant(shown.reply.clone()),
            interrupted: false,
        };
        history.logs.entry(deletion.session).or_default().insert(0, turn);
        Some(())
    });
}

#[test]
fn a_turn_that_was_not_to_be_stored_or_has_another_parent_is_found() {
    refuses(What::Misrecorded, |history, dice| {
        let (session, at) = some_turn(history, dice, |op| op.kind == Kind::Delta)?;
        let turn = &mut history.logs.get_mut(&session)?[at];
        turn.parent = if turn.parent == Parent::Root { Parent::Previous } else { Parent::Root };
        Some(())
    });
    refuses(What::Misrecorded, |history, dice| {
        let at = (0..100).map(|_| dice.below(history.shown.len())).find(|&at| {
            let op = &history.ops[history.shown[at].op];
            op.kind == Kind::Read && history.logs.contains_key(&op.session)
        })?;
        let (shown, op) = (&history.shown[at], &history.ops[history.shown[at].op]);
        let turn = Stored {
            id: RecordId::new(),
            parent: Parent::Previous,
            instructions: vec![],
            sent: op.sent.clone(),
            reply: Said::assistant(shown.reply.clone()),
            interrupted: false,
        };
        history.logs.get_mut(&op.session)?.push(turn);
        Some(())
    });
}

#[test]
fn a_lost_turn_that_is_shown_after_a_rewind_is_found() {
    let mut caught = 0;
    for seed in 0..60 {
        let mut model = Model::new(seed);
        model.only_deltas = true;
        model.steps(200);
        let stale = model.logs.clone();
        model.rewind();
        model.steps(60);
        model.stale = Some(stale);
        let found = check(&model.run(40));
        caught += usize::from(kinds(&found).contains(&What::WrongView));
    }
    assert!(caught > 40, "views of what was lost were found in {caught} of 60 histories only");
}

/// Whether histories that are wrong in this way are refused, and for this reason. The change answers `None`
/// where it finds nothing to change.
fn refuses(what: What, change: impl Fn(&mut History, &mut Random) -> Option<()>) {
    let mut changed = 0;
    for seed in 0..60 {
        let mut history = Model::new(seed).run(120);
        if change(&mut history, &mut Random::new(seed)).is_some() {
            changed += 1;
            let found = check(&history);
            assert!(kinds(&found).contains(&what), "seed {seed}: {what:?} is missing from {found:#?}");
        }
    }
    assert!(changed > 5, "only {changed} histories could be changed");
}

fn some_turn(history: &History, dice: &mut Random, fits: impl Fn(&Op) -> bool) -> Option<(Session, usize)> {
    let all = history.logs.iter().filter(|(session, _)| !is_deleted(session));
    let all =
        all.flat_map(|(session, log)| log.iter().enumerate().map(move |(at, turn)| (session, at, turn)));
    let fitting: Vec<_> = all
        .filter(|(_, _, turn)| {
            let shown = history.shown.iter().find(|shown| Some(shown.number) == turn.reply.number());
            shown.is_some_and(|shown| fits(&history.ops[shown.op]))
        })
        .collect();
    (!fitting.is_empty()).then(|| dice.below(fitting.len())).map(|at| (fitting[at].0.clone(), fitting[at].1))
}

/// A read that was shown two turns or more, and how many messages were its own.
fn some_read(history: &History, dice: &mut Random) -> Option<(usize, usize)> {
    let at = (0..200).map(|_| dice.below(history.shown.len())).find(|&at| {
        let op = &history.ops[history.shown[at].op];
        op.kind == Kind::Read && !is_deleted(&op.session) && history.shown[at].messages.len() > 4
    })?;
    Some((at, history.ops[history.shown[at].op].sent.len()))
}
