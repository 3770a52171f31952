//! Is this history one that a store which does one thing at a time could have made?
//!
//! The checker is complete for our model, and needs no search: every turn has an identity (the number that the
//! upstream's reply begins with), every request that reached the upstream shows a whole path of its session,
//! and the store is read in the end. It checks of every session that
//!
//! - (a) a turn whose end a client saw is in the log once,
//! - (b) any other is there at most once, and a reply that broke off is not,
//! - (c) a turn is what the client sent and the whole reply to it, side by side,
//! - (d) the log's order is one that time allows,
//! - (e) what the upstream was shown is the path to the newest turn of some beginning of the log, and that
//!   beginning is neither older nor newer than time allows, and never older than one shown before,
//! - (f) nothing of another session is in any of it.
//!
//! Sessions that are deleted, or whose store lost its newest turns, are no more one log: see [`lines`].

mod branches;
mod lines;
mod model;
mod tests;

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

/// What is wrong with a history; nothing if it is as it should be.
pub fn check(history: &History) -> Vec<Violation> {
    let facts = Facts::new(history);
    let deleted: HashSet<&Session> =
        history.ops.iter().filter(|op| op.kind == Kind::Delete).map(|op| &op.session).collect();
    let mut found = Vec::new();
    for session in facts.sessions() {
        let mut case = Case::new(&facts, session);
        case.everything_has_its_place();
        if deleted.contains(session) || !history.rewinds.is_empty() {
            lines::check(&mut case);
        } else {
            branches::check(&mut case);
        }
        found.append(&mut case.found);
    }
    found
}

/// The kinds of violations, each once.
pub fn kinds(found: &[Violation]) -> BTreeSet<What> {
    found.iter().map(|violation| violation.what).collect()
}

/// A history, and where its parts are.
struct Facts<'a> {
    history: &'a History,
    /// By the numbers of their replies.
    shown: HashMap<u64, &'a Shown>,
    questions: HashMap<&'a str, &'a Session>,
}

impl<'a> Facts<'a> {
    fn new(history: &'a History) -> Self {
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

    fn sessions(&self) -> BTreeSet<&'a Session> {
        self.history.ops.iter().map(|op| &op.session).chain(self.history.logs.keys()).collect()
    }

    fn op(&self, shown: &Shown) -> &'a Op {
        &self.history.ops[shown.op]
    }

    /// In which session this was said, if it was said at all. Of a reply it may be a beginning.
    fn origin(&self, said: &Said) -> Option<&'a Session> {
        if said.role != Role::Assistant {
            return self.questions.get(said.text.as_str()).copied();
        }
        let shown = self.shown.get(&said.number()?)?;
        shown.reply.starts_with(&said.text).then(|| &self.op(shown).session)
    }
}

/// One session, and what is wrong with it.
struct Case<'a> {
    facts: &'a Facts<'a>,
    session: &'a Session,
    ops: Vec<&'a Op>,
    /// What the upstream was shown for these.
    shown: Vec<(&'a Op, &'a Shown)>,
    log: &'a [Stored],
    found: Vec<Violation>,
}

impl<'a> Case<'a> {
    fn new(facts: &'a Facts<'a>, session: &'a Session) -> Self {
        let ops: Vec<&Op> = facts.history.ops.iter().filter(|op| &op.session == session).collect();
        let shown = facts.history.shown.iter().map(|shown| (facts.op(shown), shown));
        let shown = shown.filter(|(op, _)| &op.session == session).collect();
        let log = facts.history.logs.get(session).map_or(&[][..], Vec::as_slice);
        Self { facts, session, ops, shown, log, found: Vec::new() }
    }

    fn report(&mut self, what: What, detail: impl fmt::Display) {
        self.found.push(Violation { what, session: self.session.clone(), detail: detail.to_string() });
    }

    /// What holds for every session: (c) and (f) of all turns and all requests, and that a client heard what
    /// the upstream said.
    fn everything_has_its_place(&mut self) {
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

    fn is_of_this_session(&mut self, said: &Said, place: &str) {
        match self.facts.origin(said) {
            Some(session) if session == self.session => {}
            Some(session) => self.report(What::Foreign, format_args!("{place}: {said:?} of {session}")),
            None => self.report(What::Torn, format_args!("{place}: {said:?}, which nobody said")),
        }
    }

    /// Whether a turn is the end of what its request sent, and the reply to it.
    fn is_whole(&mut self, turn: &Stored) {
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
fn parted(messages: &[Said]) -> (&[Said], &[Said]) {
    let leading = messages.iter().take_while(|said| said.role == Role::System).count();
    messages.split_at(leading)
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {}: {}", self.what, self.session, self.detail)
    }
}
