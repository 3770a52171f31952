//! What clients did, what the upstream was shown meanwhile, and what the store held in the end.

use std::{collections::BTreeMap, fmt};

use tower_session_memory::history::{Parent, Place, RecordId};

/// Nanoseconds since the history began. One process takes all times, so they compare.
pub type Time = u64;

/// Whose session, and which.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session {
    pub principal: String,
    pub id: String,
}

/// One chat message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub role: Role,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
    /// What is no chat message of these tests at all.
    Other,
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sends only what is new.
    Delta,
    /// Sends a delta again, and says so.
    Retry,
    /// Sends a delta, and starts the conversation again with it.
    Reset,
    /// Sends all it remembers and something new.
    Resend,
    /// Sends a part of what it remembers, and perhaps something new.
    Edit,
    /// Sends a delta that is not to be recorded.
    Read,
    /// Deletes the session.
    Delete,
}

/// What the client knows afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It saw the end of a good reply.
    Ended,
    /// It saw an error, or a reply that was cut off.
    Error,
    /// It did not stay to see.
    Left,
}

/// One operation of one client.
#[derive(Debug, Clone)]
pub struct Op {
    pub number: usize,
    pub client: usize,
    pub session: Session,
    pub kind: Kind,
    /// The messages as the client sent them, instructions first.
    pub sent: Vec<Said>,
    pub invoked: Time,
    pub returned: Time,
    pub outcome: Outcome,
    /// The reply, of one that ended.
    pub heard: String,
}

/// One request, as the upstream saw it.
#[derive(Debug, Clone)]
pub struct Shown {
    pub op: usize,
    /// When the whole request was there.
    pub at: Time,
    /// The number that its reply begins with.
    pub number: u64,
    pub messages: Vec<Said>,
    pub reply: String,
    /// Whether the upstream failed, or broke the reply off.
    pub broken: bool,
}

/// One turn, as the store holds it.
#[derive(Debug, Clone)]
pub struct Stored {
    pub id: RecordId,
    pub parent: Parent,
    pub instructions: Vec<Said>,
    pub sent: Vec<Said>,
    pub reply: Said,
    pub interrupted: bool,
}

impl Stored {
    /// The place after all of its messages.
    pub fn end(&self) -> Parent {
        let items = u32::try_from(self.sent.len() + 1).expect("a turn has few messages");
        Parent::At(Place { turn: self.id, items })
    }
}

/// From when to when something happened, at some moment between.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub from: Time,
    pub to: Time,
}

/// Everything that happened.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// By their numbers.
    pub ops: Vec<Op>,
    pub shown: Vec<Shown>,
    /// What the store holds of every session in the end, in commit order.
    pub logs: BTreeMap<Session, Vec<Stored>>,
    /// When the store went back to an older state, as after a failover to a replica that lagged behind.
    pub rewinds: Vec<Span>,
}

impl Said {
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Self { role, text: text.into() }
    }

    pub fn user(text: impl Into<String>) -> Self {
        Self::new(Role::User, text)
    }

    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new(Role::Assistant, text)
    }

    pub fn system(text: impl Into<String>) -> Self {
        Self::new(Role::System, text)
    }

    /// The number that a reply begins with.
    pub fn number(&self) -> Option<u64> {
        self.text.strip_prefix('a')?.split(' ').next()?.parse().ok()
    }
}

impl Kind {
    /// Whether its turn is to be stored.
    pub fn is_recorded(self) -> bool {
        !matches!(self, Self::Read | Self::Delete)
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.principal, self.id)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, client, kind, outcome, sent, .. } = self;
        let question = sent.last().map_or("", |said| said.text.as_str());
        write!(
            f,
            "operation {number} ({kind:?} of client {client}, {outcome:?}, {} messages, {question:?})",
            sent.len()
        )
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { parent, sent, reply, interrupted, .. } = self;
        let question = sent.last().map_or("", |said| said.text.as_str());
        write!(f, "{question:?} and {:?} (parent {parent:?}, interrupted: {interrupted})", reply.text)
    }
}
