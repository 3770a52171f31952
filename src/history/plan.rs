use std::{fmt, ops::Range};

use bytes::Bytes;

use super::Parent;

/// What the client says of its own messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Nothing: they are recognised by comparing them with the history.
    #[default]
    Recognize,
    /// Everything after the instructions is new, even assistant messages.
    Append,
    /// The conversation starts again from the root.
    Reset,
}

/// Whose instructions are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Instructions {
    /// The client's if it sends any, else the newest that it sent before in this conversation.
    #[default]
    Remember,
    /// The client's only; none are stored.
    Client,
}

/// What a client's messages turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientCase {
    /// The beginning of a conversation.
    New,
    /// Only what is new.
    Delta,
    /// The whole history and what is new.
    Resend,
    /// The newest part of the history and what is new.
    Window,
    /// A beginning of the history, and then something else, or nothing.
    Edit,
    /// Another conversation.
    Unrelated,
    /// The newest turn's messages once more.
    Retry,
}

impl ClientCase {
    /// The token after `client=` in the response header, and the metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Delta => "delta",
            Self::Resend => "resend",
            Self::Window => "window",
            Self::Edit => "edit",
            Self::Unrelated => "unrelated",
            Self::Retry => "retry",
        }
    }
}

/// What goes upstream, and what will be stored. `Debug` shows no content.
#[derive(Clone)]
pub struct Plan {
    /// What the client's messages turned out to be.
    pub case: ClientCase,
    /// The parent of the turn to store.
    pub parent: Parent,
    /// Which of the request's messages are new: the turn's own, the reply aside.
    pub new: Range<usize>,
    /// Whether the request's leading instructions differ from those of the parent's path, so that they are
    /// stored with the turn.
    pub stores_instructions: bool,
    /// How many turns the parent's path has.
    pub turns: usize,
    /// How many messages the conversation has with this request, instructions not counted.
    pub messages: usize,
    /// How many of them are sent upstream.
    pub sent: usize,
    pub(super) insertion: Vec<Bytes>,
}

impl Plan {
    /// What is to be inserted after the request's instructions: groups of raw messages joined by single
    /// commas, as [`splice`](crate::protocol::splice::splice) takes them. Nothing for a request that goes
    /// upstream as it was sent.
    #[must_use]
    pub fn insertion(&self) -> &[Bytes] {
        &self.insertion
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("case", &self.case)
            .field("parent", &self.parent)
            .field("new", &self.new)
            .field("stores_instructions", &self.stores_instructions)
            .field("turns", &self.turns)
            .field("messages", &self.messages)
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}
