//! Report of an import: what it imported, and what it could not read.

use std::{collections::BTreeMap, fmt, process::ExitCode};

use tower_session_memory::session::InvalidSessionId;

/// A session is reported in at most 20 lines.
const LINES: usize = 20;

/// Reason why a part of a session is not imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// An entry that cannot be read.
    NoMessage,
    /// A message or an item of a type without a counterpart.
    Kind(String),
    /// A part of a message without a counterpart; the rest of the message is imported.
    Part(String),
    /// A tool call without an id or a name.
    Call,
    /// A tool result whose call is not before it.
    Orphan,
    /// Results of a message's calls of which others have none: providers refuse these.
    Partial,
    /// A number of branches beside the first.
    Branches(i64),
    /// LangGraph's order to remove a message.
    Removal,
    /// A model's message that says nothing.
    Empty,
    /// Reasoning, which Chat Completions does not accept in a request.
    Reasoning,
}

/// Reason why a whole session is not imported.
#[derive(Debug)]
pub(super) enum Skipped {
    Id(InvalidSessionId),
    /// The source holds two sessions of its id.
    Twice,
    /// Beyond the limits of one session.
    TooLarge {
        entries: u64,
        bytes: u64,
    },
    Encrypted,
    /// The source's session cannot be read at all.
    Unreadable(String),
    /// A turn that is larger than `max_history`.
    LargeTurn {
        bytes: usize,
        limit: u64,
    },
    /// The store's session has turns that the source does not have.
    Occupied,
    /// The turns that could be compared are not kept any more.
    Trimmed,
    /// Different turns follow the imported ones in the store and in the source.
    Forked {
        missing: usize,
    },
    /// A client used the session during the import.
    Busy {
        missing: usize,
    },
    /// The session was deleted during the import.
    Deleted,
}

/// Result of one session.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) imported: Count,
    pub(super) present: Count,
    /// Messages at the end without a reply.
    pub(super) unanswered: usize,
    pub(super) left: Vec<(usize, Why)>,
    pub(super) skipped: Option<Skipped>,
}

/// Turns, and the messages in them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) turns: usize,
    pub(super) messages: usize,
}

/// Sum of all sessions.
#[derive(Default)]
pub(super) struct Report {
    sessions: usize,
    with_news: usize,
    skipped: usize,
    imported: Count,
    present: Count,
    unanswered: usize,
    lost: usize,
    omitted: BTreeMap<&'static str, usize>,
}

impl Why {
    /// Whether history is missing in the store, as opposed to entries that are never recorded.
    fn is_loss(&self) -> bool {
        !matches!(self, Self::Removal | Self::Empty | Self::Reasoning)
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Removal => "orders to remove a message",
            Self::Empty => "empty replies",
            Self::Reasoning => "pieces of reasoning",
            _ => "unreadable",
        }
    }
}

impl Report {
    /// Counts a session, and prints what is missing of it.
    pub(super) fn take(&mut self, id: &str, outcome: &Outcome) {
        self.sessions += 1;
        self.with_news += usize::from(outcome.imported.turns > 0);
        self.skipped += usize::from(outcome.skipped.is_some());
        self.imported.add(outcome.imported);
        self.present.add(outcome.present);
        self.unanswered += outcome.unanswered;
        for (_, why) in &outcome.left {
            if why.is_loss() {
                self.lost += 1;
            } else {
                *self.omitted.entry(why.name()).or_default() += 1;
            }
        }
        for line in lines(id, outcome) {
            eprintln!("session-memory: {line}");
        }
    }

    /// 0 when all of the source's history is in the store, 3 when some is not.
    pub(super) fn code(&self) -> ExitCode {
        ExitCode::from(if self.lost + self.skipped == 0 { 0 } else { 3 })
    }
}

/// Lines for the operator.
fn lines(id: &str, outcome: &Outcome) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(skipped) = &outcome.skipped {
        lines.push(format!("session {id}: {skipped}"));
    }
    let lost: Vec<_> = outcome.left.iter().filter(|(_, why)| why.is_loss()).collect();
    let shown = lost.iter().take(LINES);
    lines.extend(shown.map(|(at, why)| match why {
        Why::Branches(_) => format!("session {id}: {why}"),
        _ => format!("session {id}, message {}: {why}", at + 1),
    }));
    if lost.len() > LINES {
        lines.push(format!("session {id}: and {} more", lost.len() - LINES));
    }
    lines
}

impl Outcome {
    pub(super) fn skipped(why: Skipped) -> Self {
        Self { skipped: Some(why), ..Self::default() }
    }
}

impl Count {
    pub(super) fn add(&mut self, other: Self) {
        self.turns += other.turns;
        self.messages += other.messages;
    }

    pub(super) fn turn(messages: usize) -> Self {
        Self { turns: 1, messages }
    }
}

impl Report {
    pub(super) fn print(&self, dry_run: bool) {
        let would = if dry_run { "would be " } else { "" };
        println!(
            "sessions: {} in the source, {} {would}extended, {} skipped",
            self.sessions, self.with_news, self.skipped
        );
        println!(
            "turns: {} ({} messages) {would}imported, {} ({} messages) were there already",
            self.imported.turns, self.imported.messages, self.present.turns, self.present.messages
        );
        println!(
            "messages: {} left out with their reason above, {} without a reply yet",
            self.lost, self.unanswered
        );
        for (name, count) in &self.omitted {
            println!("not recorded: {count} {name}");
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMessage => f.write_str("left out: it is no message in JSON"),
            Self::Kind(kind) => write!(f, "left out: nothing corresponds to its type {}", shown(kind)),
            Self::Part(kind) => {
                write!(f, "imported without a part: nothing corresponds to its type {}", shown(kind))
            }
            Self::Call => f.write_str("imported without a tool call that has no id or no name"),
            Self::Orphan => f.write_str("left out: a tool's result without its call"),
            Self::Partial => {
                f.write_str("left out: a tool's result where other calls of the same message have none")
            }
            Self::Branches(count) => {
                write!(f, "{count} branches beside main are left out; which of them was in use is not stored")
            }
            Self::Removal | Self::Empty | Self::Reasoning => f.write_str(self.name()),
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(why) => write!(f, "skipped: {why}"),
            Self::Twice => f.write_str("skipped: the source holds it in two places; name one with ?prefix="),
            Self::TooLarge { entries, bytes } => {
                write!(f, "skipped: {entries} messages of {bytes} bytes are more than is read of a session")
            }
            Self::Encrypted => f.write_str("skipped: EncryptedSession wrote it, and only that can read it"),
            Self::Unreadable(why) => write!(f, "skipped: {why}"),
            Self::LargeTurn { bytes, limit } => {
                write!(f, "skipped: it has a turn of {bytes} bytes; max_history is {limit}")
            }
            Self::Occupied => f.write_str(
                "skipped: a session of this id is here, and what it holds is not the beginning of what the source holds",
            ),
            Self::Trimmed => f.write_str(
                "skipped: a session of this id is here, and too few of its turns are kept (max_turns) to compare it",
            ),
            Self::Forked { missing } => write!(
                f,
                "{missing} turns are not imported: it went on here, and otherwise in the source"
            ),
            Self::Busy { missing } => {
                write!(
                    f,
                    "{missing} turns are not imported: it was used while it was imported, and the last that was \
                     stands behind a turn of its own"
                )
            }
            Self::Deleted => f.write_str("not imported to its end: it was deleted meanwhile"),
        }
    }
}

/// A name from the source, fit for one line.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(64).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
