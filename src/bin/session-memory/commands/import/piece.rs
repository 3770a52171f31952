//! Forms that every source is read into: entries as the source holds them, then pieces of a conversation.

use std::time::SystemTime;

use serde_json::value::RawValue;

use super::report::Why;

/// One element of a session, as the source holds it.
pub(super) struct Entry {
    pub(super) json: Vec<u8>,
    /// Time of writing, where the source has one.
    pub(super) at: Option<SystemTime>,
}

/// Pieces of a session, oldest first.
#[derive(Default)]
pub(super) struct Transcript {
    pub(super) pieces: Vec<Piece>,
    /// Parts that were left out, by the index of their entry.
    pub(super) left: Vec<(usize, Why)>,
}

/// A message in the format of Chat Completions.
pub(super) struct Piece {
    /// Index of the newest entry that the message was made of.
    pub(super) last: usize,
    pub(super) kind: Kind,
    pub(super) json: String,
    pub(super) facts: Facts,
}

/// Position of a message in a turn.
pub(super) enum Kind {
    Instruction,
    Sent,
    /// The result of the tool call of this id.
    Result(String),
    /// The model's reply, with the ids of its tool calls.
    Reply(Vec<String>),
}

/// Facts about a reply beside its message.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) model: Option<String>,
    pub(super) finish_reason: Option<String>,
    pub(super) usage: Option<Box<RawValue>>,
}
