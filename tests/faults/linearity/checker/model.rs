//! Histories of a right store, made without one.

use std::collections::BTreeMap;

use tower_session_memory::history::{Parent, RecordId};

use crate::common::random::Random;
use crate::linearity::history::{History, Kind, Op, Outcome, Said, Session, Shown, Span, Stored, Time};

/// Of each session its log, and which incarnation of it that is.
type Logs = BTreeMap<Session, (u64, Vec<Stored>)>;

/// A store that does one thing at a time, and clients that do many.
pub(super) struct Model {
    dice: Random,
    now: Time,
    history: History,
    pub(super) logs: Logs,
    epochs: u64,
    snapshot: Option<Logs>,
    /// What loads answer, if not the truth.
    pub(super) stale: Option<Logs>,
    running: Vec<Running>,
    pub(super) only_deltas: bool,
}

/// An operation between its invocation and its return.
struct Running {
    op: Op,
    /// What is to be stored, and in which incarnation of the log.
    turn: Option<(u64, Stored)>,
    stage: u8,
}

impl Model {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            dice: Random::new(seed),
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

    pub(super) fn steps(&mut self, steps: usize) {
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

    pub(super) fn run(mut self, ops: usize) -> History {
        self.steps(ops * 4);
        while !self.running.is_empty() {
            self.advance(0);
        }
        self.history.ops.sort_by_key(|op| op.number);
        self.history.logs = self.logs.into_iter().map(|(session, (_, log))| (session, log)).collect();
        self.history
    }

    pub(super) fn rewind(&mut self) {
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
            (Kind::Edit, kept) if kept > 0 && kept < places.len() => log[places[kept - 1]].end(),
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
        let broken = op.outcome != Outcome::Ended && self.dice.one_in(2);
        self.now += 1;
        let messages = [shown_leading, before, own.clone()].concat();
        let shown = Shown { op: op.number, at: self.now, number, messages, reply: reply.clone(), broken };
        self.history.shown.push(shown);
        let instructions = if own_leading == remembered { vec![] } else { own_leading };
        let cut = if op.outcome == Outcome::Left { reply.len() - 3 } else { reply.len() };
        let turn = Stored {
            id: RecordId::new(),
            parent,
            instructions,
            sent: own,
            reply: Said::assistant(&reply[..cut]),
            interrupted: op.outcome == Outcome::Left,
        };
        op.heard = reply;
        // A client that leaves keeps what it was sent, whatever the upstream did later.
        let stored = op.kind.is_recorded() && (!broken || op.outcome == Outcome::Left);
        stored.then_some((epoch, turn))
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
            Parent::At(at) => log.iter().position(|turn| turn.id == at.turn),
        };
    }
    path.reverse();
    path
}

pub(super) fn is_deleted(session: &Session) -> bool {
    session.id.starts_with('d')
}
