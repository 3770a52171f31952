//! What every source is read into.

use std::time::SystemTime;

use serde_json::value::RawValue;

use super::report::Why;

/// One element of a session as the source keeps it.
pub(super) struct Entry {
    pub(super) json: Vec<u8>,
    /// When it was written, where the source tells.
    pub(super) at: Option<SystemTime>,
}

/// What a session's entries say, oldest first.
#[derive(Default)]
pub(super) struct Said {
    pub(super) pieces: Vec<Piece>,
    /// What was left out, by the place of its entry.
    pub(super) left: Vec<(usize, Why)>,
}

/// A message in the format of Chat Completions.
pub(super) struct Piece {
    /// The place of the newest entry that it was made of.
    pub(super) last: usize,
    pub(super) kind: Kind,
    pub(super) json: String,
    pub(super) facts: Facts,
}

/// What decides a message's place in a turn.
pub(super) enum Kind {
    Instruction,
    Sent,
    /// The result of the tool call of this id.
    Result(String),
    /// The model's, with the ids of the tools that it calls.
    Reply(Vec<String>),
}

/// What is known of a reply besides.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) model: Option<String>,
    pub(super) finish_reason: Option<String>,
    pub(super) usage: Option<Box<RawValue>>,
}
