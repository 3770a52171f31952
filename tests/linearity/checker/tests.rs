//! The checker passes every history that a right store makes, and refuses each that is wrong in one way.

use std::collections::BTreeMap;

use tower_session_memory::history::{Parent, TurnId};

use super::{What, check, kinds};
use crate::{
    dice::Dice,
    history::{History, Kind, Op, Outcome, Said, Session, Shown, Span, Stored, Time},
};

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
        let again = Stored { id: TurnId::new(), ..log[at].clone() };
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
            id: TurnId::new(),
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
            id: TurnId::new(),
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
fn refuses(what: What, change: impl Fn(&mut History, &mut Dice) -> Option<()>) {
    let mut changed = 0;
    for seed in 0..60 {
        let mut history = Model::new(seed).run(120);
        if change(&mut history, &mut Dice::new(seed)).is_some() {
            changed += 1;
            let found = check(&history);
            assert!(kinds(&found).contains(&what), "seed {seed}: {what:?} is missing from {found:#?}");
        }
    }
    assert!(changed > 5, "only {changed} histories could be changed");
}

fn some_turn(history: &History, dice: &mut Dice, fits: impl Fn(&Op) -> bool) -> Option<(Session, usize)> {
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
fn some_read(history: &History, dice: &mut Dice) -> Option<(usize, usize)> {
    let at = (0..200).map(|_| dice.below(history.shown.len())).find(|&at| {
        let op = &history.ops[history.shown[at].op];
        op.kind == Kind::Read && !is_deleted(&op.session) && history.shown[at].messages.len() > 4
    })?;
    Some((at, history.ops[history.shown[at].op].sent.len()))
}

fn is_deleted(session: &Session) -> bool {
    session.id.starts_with('d')
}

/// A store that does one thing at a time, and clients that do many.
struct Model {
    dice: Dice,
    now: Time,
    history: History,
    logs: BTreeMap<Session, (u64, Vec<Stored>)>,
    epochs: u64,
    snapshot: Option<BTreeMap<Session, (u64, Vec<Stored>)>>,
    /// What loads answer, if not the truth.
    stale: Option<BTreeMap<Session, (u64, Vec<Stored>)>>,
    running: Vec<Running>,
    only_deltas: bool,
}

/// An operation between its invocation and its return.
struct Running {
    op: Op,
    /// What is to be stored, and in which incarnation of the log.
    turn: Option<(u64, Stored)>,
    stage: u8,
}

impl Model {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice::new(seed),
            now: 0,
            history: History::default(),
            logs: BTreeMap::new(),
            epochs: 0,
            snapshot: None,
            stale: None,
            running: Vec::new(),
            only_deltas: false,
        }
    }

    fn tick(&mut self) -> Time {
        self.now += 1;
        self.now
    }

    fn steps(&mut self, steps: usize) {
        for step in 0..steps {
            if self.running.len() < 6 && self.dice.one_in(3) {
                self.invoke();
            } else if !self.running.is_empty() {
                let which = self.dice.below(self.running.len());
                self.advance(which);
            }
            if step == steps / 2 {
                self.snapshot = Some(self.logs.clone());
            }
        }
    }

    fn run(mut self, ops: usize) -> History {
        self.steps(ops * 4);
        while !self.running.is_empty() {
            self.advance(0);
        }
        self.history.ops.sort_by_key(|op| op.number);
        self.history.logs = self.logs.into_iter().map(|(session, (_, log))| (session, log)).collect();
        self.history
    }

    fn rewind(&mut self) {
        let from = self.tick();
        self.logs = self.snapshot.take().unwrap();
        let to = self.tick();
        self.history.rewinds.push(Span { from, to });
    }

    fn invoke(&mut self) {
        let number = self.history.ops.len() + self.running.len();
        let id = ["b1", "b2", "d1"][self.dice.below(3)].to_owned();
        let session = Session { principal: "x".to_owned(), id };
        let kinds = if self.only_deltas {
            vec![Kind::Delta, Kind::Read]
        } else if is_deleted(&session) {
            vec![Kind::Delta, Kind::Delta, Kind::Delta, Kind::Read, Kind::Delete]
        } else {
            vec![Kind::Delta, Kind::Delta, Kind::Edit, Kind::Resend, Kind::Read, Kind::Reset]
        };
        let kind = kinds[self.dice.below(kinds.len())];
        let outcome = match self.dice.below(8) {
            _ if kind == Kind::Delete => Outcome::Ended,
            0 => Outcome::Error,
            1 => Outcome::Left,
            _ => Outcome::Ended,
        };
        let mut sent = vec![Said::user(format!("q{number} @{session}"))];
        if !self.only_deltas && !is_deleted(&session) && self.dice.one_in(8) {
            sent.insert(0, Said::system(format!("s{number} @{session}")));
        }
        let invoked = self.tick();
        let op = Op {
            number,
            client: 0,
            session,
            kind,
            sent,
            invoked,
            returned: 0,
            outcome,
            heard: String::new(),
        };
        // A number is taken by an operation, whether or not it has ended.
        self.running.push(Running { op, turn: None, stage: 0 });
    }

    fn advance(&mut self, which: usize) {
        let mut running = self.running.swap_remove(which);
        running.stage += 1;
        match running.stage {
            1 if running.op.kind == Kind::Delete => {
                self.epochs += 1;
                self.logs.insert(running.op.session.clone(), (self.epochs, vec![]));
            }
            1 => running.turn = self.load_and_ask(&mut running.op),
            2 => self.commit(&mut running),
            _ => {
                running.op.returned = self.tick();
                self.history.ops.push(running.op);
                return;
            }
        }
        self.running.push(running);
    }

    fn load_and_ask(&mut self, op: &mut Op) -> Option<(u64, Stored)> {
        let logs = self.stale.as_ref().unwrap_or(&self.logs);
        let (epoch, log) = logs.get(&op.session).cloned().unwrap_or_default();
        let places: Vec<usize> = path(&log, log.len().checked_sub(1));
        let leading = op.sent.iter().take_while(|said| said.text.starts_with('s')).count();
        let own: Vec<Said> = op.sent.split_off(leading);
        let kept = match op.kind {
            Kind::Edit => self.dice.below(places.len() + 1),
            Kind::Reset => 0,
            _ => places.len(),
        };
        let parent = match (op.kind, kept) {
            (Kind::Reset, _) => Parent::Root,
            // Without an assistant message an edit is a delta.
            (Kind::Edit, kept) if kept > 0 && kept < places.len() => Parent::Turn(log[places[kept - 1]].id),
            _ => Parent::Previous,
        };
        let kept = if op.kind == Kind::Edit && kept == 0 { places.len() } else { kept };
        let place = places[..kept].last().copied();
        let remembered = path(&log, place).into_iter().rev().map(|at| log[at].instructions.clone());
        let remembered = remembered.into_iter().find(|said| !said.is_empty()).unwrap_or_default();
        let before: Vec<Said> = places[..kept]
            .iter()
            .flat_map(|&at| log[at].sent.iter().chain([&log[at].reply]).cloned().collect::<Vec<_>>())
            .collect();
        let own_leading = op.sent.clone();
        let sends_all = matches!(op.kind, Kind::Edit | Kind::Resend) && parent != Parent::Previous;
        op.sent =
            [own_leading.clone(), if sends_all { before.clone() } else { vec![] }, own.clone()].concat();
        let shown_leading = if own_leading.is_empty() && !sends_all && op.kind != Kind::Reset {
            remembered.clone()
        } else {
            own_leading.clone()
        };
        let number = self.history.shown.len() as u64;
        let reply = format!("a{number} says this @{}", op.session);
        let broken = op.outcome == Outcome::Error && self.dice.one_in(2);
        self.now += 1;
        let messages = [shown_leading, before, own.clone()].concat();
        let shown = Shown { op: op.number, at: self.now, number, messages, reply: reply.clone(), broken };
        self.history.shown.push(shown);
        let instructions = if own_leading == remembered { vec![] } else { own_leading };
        let cut = if op.outcome == Outcome::Left { reply.len() - 3 } else { reply.len() };
        let turn = Stored {
            id: TurnId::new(),
            parent,
            instructions,
            sent: own,
            reply: Said::assistant(&reply[..cut]),
            interrupted: op.outcome == Outcome::Left,
        };
        op.heard = reply;
        (op.kind.is_recorded() && !broken).then_some((epoch, turn))
    }

    fn commit(&mut self, running: &mut Running) {
        self.now += 1;
        let Some((epoch, turn)) = running.turn.take() else { return };
        let (current, log) = self.logs.entry(running.op.session.clone()).or_default();
        let gone = *current != epoch;
        // An error is unknown: the turn may be there or not.
        if gone || (running.op.outcome == Outcome::Error && self.dice.one_in(2)) {
            running.op.outcome = Outcome::Error;
            return;
        }
        log.push(turn);
    }
}

fn path(log: &[Stored], end: Option<usize>) -> Vec<usize> {
    let (mut path, mut next) = (Vec::new(), end);
    while let Some(at) = next {
        path.push(at);
        next = match log[at].parent {
            Parent::Previous => at.checked_sub(1),
            Parent::Root => None,
            Parent::Turn(id) => log.iter().position(|turn| turn.id == id),
        };
    }
    path.reverse();
    path
}
