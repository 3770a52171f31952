//! The seam of formats: all that the layer must know of a wire format.
//!
//! A format is one folder here: it finds the places of a request, says what its items mean, edits, records replies, and
//! shapes errors. Outside of that folder nothing knows the name of a role or of a member. A new format is a new folder,
//! a `pub mod`, and a line in [`all`].

mod draft;
mod formats;
mod json;
pub mod openai_chat;
pub mod sse;

pub use draft::{Draft, Insertion, Uneditable};
pub use formats::all;

use bytes::Bytes;
use http::{StatusCode, request};
use serde_json::value::RawValue;

pub use crate::history::Canonical;
use crate::history::{Format, Item};

/// A wire format.
///
/// Object-safe; the layer holds several behind an `Arc` each, and asks them in order.
pub trait Protocol: Send + Sync + 'static {
    /// Name of the format, which stands in every record.
    fn format(&self) -> Format;

    /// What a request is to the format: by method and path. Called for every request, so cheap.
    fn route(&self, parts: &request::Parts) -> Route;

    /// Finds the items of a request body.
    ///
    /// # Errors
    ///
    /// [`Uneditable`] when the body cannot be edited safely; the request is then forwarded untouched and not
    /// recorded.
    fn read(&self, body: &Bytes) -> Result<Draft, Uneditable>;

    /// The body with these items inserted, as pieces to be sent in a row.
    ///
    /// Every byte of the client's own stays, and nothing is copied: the pieces are slices of the body and of the
    /// insertion. With nothing to insert the result is the body.
    fn edit(&self, draft: &Draft, insertion: &Insertion<'_>) -> Vec<Bytes>;

    /// A recorder for a reply of this kind. It keeps at most `limits` bytes.
    fn recorder(&self, kind: ReplyKind, limits: ReplyLimits) -> Box<dyn Recorder>;

    /// One item of the format, with its meaning read out; `None` if these bytes are none.
    fn item(&self, raw: Bytes) -> Option<Item>;

    /// A digest of what an item says, equal for two items that say the same although they were serialised
    /// differently (design: *canonical equality*).
    fn canonical(&self, item: &Item) -> Canonical;

    /// An item of another format as one of this format; `None` where that cannot be said in it.
    ///
    /// The default translates nothing: a session whose conversation is in another format is then left alone.
    fn translate(&self, item: &Item, from: Format) -> Option<Item> {
        let _ = (item, from);
        None
    }

    /// The body of a response by which the layer refuses a request, as clients of the format understand it.
    fn error_body(&self, error: &ErrorBody<'_>) -> Bytes;
}

/// What a request is to a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// Another format's, or none's: forwarded as if there were no layer.
    Foreign,
    /// A request that continues the session which its head names.
    Converse,
    /// As [`Converse`](Self::Converse); where the head names no session, the body may
    /// ([`Draft::session`]), so the body is read first.
    ConverseByBody,
}

/// A refusal of the layer's own, to be put into a format's shape. The response is `application/json`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ErrorBody<'a> {
    /// Status of the response.
    pub status: StatusCode,
    /// Stable code: `invalid_session_id`, `request_too_large`, …
    pub code: &'static str,
    /// What is wrong, for a person: names the limit and the setting that moves it.
    pub message: &'a str,
    /// The header or member at fault.
    pub param: Option<&'a str>,
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
#[non_exhaustive]
pub struct ReplyLimits {
    /// The assembled reply, in bytes. Default 8 MiB.
    pub reply: usize,
    /// One server-sent event, in bytes. Default 4 MiB.
    pub event: usize,
}

impl ReplyLimits {
    /// A reply of at most this number of bytes, and events of at most that.
    #[must_use]
    pub const fn new(reply: usize, event: usize) -> Self {
        Self { reply, event }
    }
}

/// Listens to a reply's bytes and assembles its items. It never changes them.
///
/// Any chunking of the same bytes gives the same items.
pub trait Recorder: Send {
    /// Takes the next bytes.
    ///
    /// Answers the offset in `bytes` from which on they are terminal: the client must not see them before the
    /// turn is stored (`data: [DONE]`). If the terminal line began in an earlier chunk the offset is 0. After
    /// that, later bytes are ignored, and the answer stays `None`.
    fn feed(&mut self, bytes: &[u8]) -> Option<usize>;

    /// Whether the reply has ended as far as its items go, and nothing has failed. More may still be merged.
    fn is_finished(&self) -> bool;

    /// The end of the body: what the reply said, or why it is not recorded.
    ///
    /// # Errors
    ///
    /// [`Skip`]: there is nothing to store.
    fn finish(&mut self) -> Result<Reply, Skip>;

    /// The client has left: what it was sent so far, if that can stand by itself. Incomplete calls are dropped.
    ///
    /// # Errors
    ///
    /// [`Skip`]: there is nothing to store.
    fn interrupt(&mut self) -> Result<Reply, Skip>;
}

/// What a reply said.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Reply {
    /// Its items, as they will be replayed.
    pub items: Vec<Item>,
    /// The id that the upstream gave it, where the format continues replies by their ids.
    pub id: Option<String>,
    /// What the provider gives as the reason for ending.
    pub finish_reason: Option<String>,
    /// The model that the reply names.
    pub model: Option<String>,
    /// The reply's usage, as raw JSON.
    pub usage: Option<Box<RawValue>>,
}

impl Reply {
    /// A reply of these items that names nothing else.
    #[must_use]
    pub fn new(items: Vec<Item>) -> Self {
        Self { items, id: None, finish_reason: None, model: None, usage: None }
    }
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
