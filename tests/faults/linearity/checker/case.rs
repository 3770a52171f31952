//! One session of a history, and what is found wrong with it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
};

use crate::linearity::history::{History, Kind, Op, Outcome, Role, Said, Session, Shown, Stored};

/// Something that must not be.
#[derive(Debug, Clone)]
pub struct Violation {
    pub what: What,
    pub session: Session,
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A turn whose end was seen is not there.
    Lost,
    /// A turn is there twice.
    Doubled,
    /// A turn is not what was said.
    Torn,
    /// The order contradicts time.
    Disordered,
    /// The upstream was shown something that never was the history then.
    WrongView,
    /// Something of another session.
    Foreign,
    /// A turn came back that was deleted.
    Resurrected,
    /// A turn that must not be stored, or continues the wrong one.
    Misrecorded,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {}: {}", self.what, self.session, self.detail)
    }
}

/// A history, and where its parts are.
pub(super) struct Facts<'a> {
    pub(super) history: &'a History,
    /// By the numbers of their replies.
    pub(super) shown: HashMap<u64, &'a Shown>,
    questions: HashMap<&'a str, &'a Session>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(history: &'a History) -> Self {
        let mut questions = HashMap::new();
        for op in &history.ops {
            // What was said first, was said there: a client that resends says nothing new.
            for said in op.sent.iter().filter(|said| said.role != Role::Assistant) {
                questions.entry(said.text.as_str()).or_insert(&op.session);
            }
        }
        let shown = history.shown.iter().map(|shown| (shown.number, shown)).collect();
        Self { history, shown, questions }
    }

    pub(super) fn sessions(&self) -> BTreeSet<&'a Session> {
        self.history.ops.iter().map(|op| &op.session).chain(self.history.logs.keys()).collect()
    }

    pub(super) fn op(&self, shown: &Shown) -> &'a Op {
        &self.history.ops[shown.op]
    }

    /// In which session this was said, if it was said at all. Of a reply it may be a beginning.
    pub(super) fn origin(&self, said: &Said) -> Option<&'a Session> {
        if said.role != Role::Assistant {
            return self.questions.get(said.text.as_str()).copied();
        }
        let shown = self.shown.get(&said.number()?)?;
        shown.reply.starts_with(&said.text).then(|| &self.op(shown).session)
    }
}

/// One session, and what is wrong with it.
pub(super) struct Case<'a> {
    pub(super) facts: &'a Facts<'a>,
    pub(super) session: &'a Session,
    pub(super) ops: Vec<&'a Op>,
    /// What the upstream was shown for these.
    pub(super) shown: Vec<(&'a Op, &'a Shown)>,
    pub(super) log: &'a [Stored],
    pub(super) found: Vec<Violation>,
}

impl<'a> Case<'a> {
    pub(super) fn new(facts: &'a Facts<'a>, session: &'a Session) -> Self {
        let ops: Vec<&Op> = facts.history.ops.iter().filter(|op| &op.session == session).collect();
        let shown = facts.history.shown.iter().map(|shown| (facts.op(shown), shown));
        let shown = shown.filter(|(op, _)| &op.session == session).collect();
        let log = facts.history.logs.get(session).map_or(&[][..], Vec::as_slice);
        Self { facts, session, ops, shown, log, found: Vec::new() }
    }

    pub(super) fn report(&mut self, what: What, detail: impl fmt::Display) {
        self.found.push(Violation { what, session: self.session.clone(), detail: detail.to_string() });
    }

    /// What holds for every session: (c) and (f) of all turns and all requests, and that a client heard what
    /// the upstream said.
    pub(super) fn everything_has_its_place(&mut self) {
        let mut asked = HashSet::new();
        for (op, shown) in self.shown.clone() {
            if !asked.insert(op.number) {
                self.report(What::Doubled, format_args!("the upstream was asked twice by {op}"));
            }
            if op.outcome == Outcome::Ended && (shown.broken || op.heard != shown.reply) {
                self.report(What::Torn, format_args!("{op} heard something else than {:?}", shown.reply));
            }
            for said in &shown.messages {
                self.is_of_this_session(said, "shown to the upstream");
            }
        }
        for turn in self.log {
            let said = turn.instructions.iter().chain(&turn.sent).chain([&turn.reply]);
            for said in said {
                self.is_of_this_session(said, "stored");
            }
            self.is_whole(turn);
        }
        let ended = self.ops.iter().filter(|op| op.outcome == Outcome::Ended && op.kind != Kind::Delete);
        for op in ended.copied().collect::<Vec<_>>() {
            if !asked.contains(&op.number) {
                self.report(What::Torn, format_args!("{op} ended, and the upstream never saw it"));
            }
        }
    }

    pub(super) fn is_of_this_session(&mut self, said: &Said, place: &str) {
        match self.facts.origin(said) {
            Some(session) if session == self.session => {}
            Some(session) => self.report(What::Foreign, format_args!("{place}: {said:?} of {session}")),
            None => self.report(What::Torn, format_args!("{place}: {said:?}, which nobody said")),
        }
    }

    /// Whether a turn is the end of what its request sent, and the reply to it.
    pub(super) fn is_whole(&mut self, turn: &Stored) {
        let Some(shown) = turn.reply.number().and_then(|number| self.facts.shown.get(&number).copied())
        else {
            return; // said already
        };
        let op = self.facts.op(shown);
        // A client may leave before the upstream breaks off; then what it was sent is kept.
        let interrupted = turn.interrupted && op.outcome == Outcome::Left;
        if !op.kind.is_recorded() || (shown.broken && !interrupted) {
            self.report(What::Misrecorded, format_args!("a turn of {op} is stored"));
        }
        let (_, own) = parted(&op.sent);
        if turn.sent.is_empty() || !own.ends_with(&turn.sent) {
            self.report(What::Torn, format_args!("{:?} is stored of {op}", turn.sent));
        }
        let whole = turn.reply.role == Role::Assistant && turn.reply.text == shown.reply;
        if !whole && !interrupted {
            self.report(What::Torn, format_args!("{:?} is stored as the reply to {op}", turn.reply));
        }
    }
}

/// The leading instructions, and the rest.
pub(super) fn parted(messages: &[Said]) -> (&[Said], &[Said]) {
    let leading = messages.iter().take_while(|said| said.role == Role::System).count();
    messages.split_at(leading)
}
