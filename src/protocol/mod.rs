//! What a wire format must tell the layer: where a request's messages stand, and what a reply says.
//!
//! [`OpenAiChat`](openai_chat::OpenAiChat) (Chat Completions) is the first; others are one new file each.

pub mod openai_chat;
pub mod splice;
pub mod sse;

use std::fmt;

use bytes::Bytes;
use http::request;
use serde_json::value::RawValue;

pub use crate::history::Canonical;
use crate::history::Message;

/// A wire format.
///
/// Object-safe; the layer holds it behind an `Arc`.
pub trait Protocol: Send + Sync + 'static {
    /// Whether this request is one of the format's: by method and path. Called for every request, so cheap.
    fn matches(&self, parts: &request::Parts) -> bool;

    /// Finds the messages of a request body.
    ///
    /// # Errors
    ///
    /// [`Uneditable`] when the body cannot be edited safely; the request is then forwarded untouched and not
    /// recorded.
    fn read(&self, body: &Bytes) -> Result<Draft, Uneditable>;

    /// A recorder for a reply of this kind. It keeps at most `limits` bytes.
    fn recorder(&self, kind: ReplyKind, limits: ReplyLimits) -> Box<dyn Recorder>;

    /// A digest of what a message says, equal for two messages that say the same although they were
    /// serialised differently (design: *canonical equality*).
    fn canonical(&self, message: &Message) -> Canonical;
}

/// A request body with its messages found. `Debug` shows no content.
#[derive(Clone)]
pub struct Draft {
    /// The body as the client sent it (decoded, if it came compressed).
    pub body: Bytes,
    /// The messages, in order; each is a slice of `body`.
    pub messages: Vec<Message>,
    /// How many messages lead the list as instructions (`system`, `developer`).
    pub leading: usize,
    /// Where a message can be inserted before `messages[leading]`: an offset into `body`. If there is no such
    /// message: directly after the last one, or after the opening bracket.
    pub insert_at: usize,
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("bytes", &self.body.len())
            .field("messages", &self.messages.len())
            .field("leading", &self.leading)
            .field("insert_at", &self.insert_at)
            .finish()
    }
}

/// Why a body cannot be edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Uneditable {
    /// The body is not JSON (a byte-order mark, invalid UTF-8 and trailing bytes count).
    #[error("the body is not JSON")]
    NotJson,
    /// The top level is no object, or has no `messages`.
    #[error("the body has no messages")]
    NoMessages,
    /// `messages` stands twice: parsers disagree on which one counts.
    #[error("the body has more than one messages member")]
    DuplicateMessages,
    /// `messages` is no array of objects with a role each, or one of them has a member twice on which parsers
    /// would disagree or more than 1,024 tool calls.
    #[error("messages is not an array of messages")]
    NotMessages,
    /// There are more messages, or tool calls in them, than any conversation has: 65,536.
    #[error("the body has too many messages")]
    TooManyMessages,
    /// The list is empty.
    #[error("messages is empty")]
    EmptyMessages,
    /// The last message is the assistant's: the reply would continue it.
    #[error("the last message is a prefill")]
    Prefill,
    /// The request names a conversation that the upstream keeps (`previous_response_id`, `conversation`).
    #[error("the upstream keeps this conversation")]
    UpstreamState,
}

impl Uneditable {
    /// The token after `reason=` in the response header, and the metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::NoMessages => "no_messages",
            Self::DuplicateMessages => "duplicate_messages",
            Self::NotMessages => "not_messages",
            Self::TooManyMessages => "too_many_messages",
            Self::EmptyMessages => "empty_messages",
            Self::Prefill => "prefill",
            Self::UpstreamState => "upstream_state",
        }
    }
}

/// How a reply is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// One JSON object.
    Json,
    /// Server-sent events.
    EventStream,
}

/// How much a recorder keeps.
#[derive(Debug, Clone, Copy)]
pub struct ReplyLimits {
    /// The assembled reply, in bytes. Default 8 MiB.
    pub reply: usize,
    /// One server-sent event, in bytes. Default 4 MiB.
    pub event: usize,
}

/// Listens to a reply's bytes and assembles the message. It never changes them.
///
/// Any chunking of the same bytes gives the same message.
pub trait Recorder: Send {
    /// Takes the next bytes.
    ///
    /// Answers the offset in `bytes` from which on they are terminal: the client must not see them before the
    /// turn is stored (`data: [DONE]`). If the terminal line began in an earlier chunk the offset is 0. After
    /// that, later bytes are ignored, and the answer stays `None`.
    fn feed(&mut self, bytes: &[u8]) -> Option<usize>;

    /// Whether the reply has ended as far as its message goes: choice 0 has a `finish_reason`, and nothing
    /// has failed. More may still be merged.
    fn is_finished(&self) -> bool;

    /// The end of the body: what the reply said, or why it is not recorded.
    ///
    /// # Errors
    ///
    /// [`Skip`]: there is nothing to store.
    fn finish(&mut self) -> Result<Reply, Skip>;

    /// The client has left: what it was sent so far, if that can stand as a message. Incomplete tool calls
    /// are dropped.
    ///
    /// # Errors
    ///
    /// [`Skip`]: there is nothing to store.
    fn interrupt(&mut self) -> Result<Reply, Skip>;
}

/// What a reply said.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The assistant message, as it will be replayed.
    pub message: Message,
    /// `finish_reason` of choice 0.
    pub finish_reason: Option<String>,
    /// The model that the reply names.
    pub model: Option<String>,
    /// `usage`, as raw JSON.
    pub usage: Option<Box<RawValue>>,
}

/// Why a reply is not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Skip {
    /// An error frame came in the stream, or the finish reason is `error`.
    #[error("the upstream sent an error frame")]
    ErrorFrame,
    /// The JSON body is an error.
    #[error("the upstream's body is an error")]
    ErrorBody,
    /// The reply ended without a `finish_reason`: it was cut.
    #[error("the reply has no finish_reason")]
    NoFinishReason,
    /// Nothing was said: no content, refusal, tool call or audio.
    #[error("the reply is empty")]
    EmptyMessage,
    /// The reply is not what its content type says.
    #[error("the reply cannot be parsed")]
    Unparseable,
    /// A tool call was cut off by `length` or `content_filter`.
    #[error("a tool call is incomplete")]
    IncompleteToolCall,
    /// The reply, or one event of it, is larger than the recorder's limit.
    #[error("the reply is larger than the recording limit")]
    TooLarge,
}

impl Skip {
    /// The token in headers, metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ErrorFrame => "error_frame",
            Self::ErrorBody => "error_body",
            Self::NoFinishReason => "no_finish_reason",
            Self::EmptyMessage => "empty_message",
            Self::Unparseable => "unparseable",
            Self::IncompleteToolCall => "incomplete_tool_call",
            Self::TooLarge => "too_large",
        }
    }
}
