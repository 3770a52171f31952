//! OpenAI Chat Completions, as OpenAI, Azure, vLLM, Ollama, llama.cpp, LiteLLM and others speak it.

mod again;
mod assembly;
mod budget;
mod canonical;
mod delta;
mod details;
mod envelope;
mod error;
mod fields;
mod insert;
mod reply;
mod request;
mod role;
mod tool_body;
mod tool_calls;

use bytes::Bytes;
use http::{Method, request::Parts};

use super::{
    Canonical, Draft, ErrorBody, Insertion, Protocol, Recorder, ReplyKind, ReplyLimits, Route, Uneditable,
};
use crate::history::{Format, Item};

/// The Chat Completions protocol.
#[derive(Debug, Clone)]
pub struct OpenAiChat {
    suffixes: Vec<String>,
    accept_done: bool,
}

impl Default for OpenAiChat {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenAiChat {
    /// End of the paths that are taken by default.
    pub const PATH_SUFFIX: &str = "/chat/completions";

    /// Takes every `POST` to a path that ends in `/chat/completions`: OpenAI's, Azure's deployments,
    /// OpenRouter's, Gemini's, and the short form of Ollama, llama.cpp and LiteLLM.
    #[must_use]
    pub fn new() -> Self {
        Self { suffixes: vec![Self::PATH_SUFFIX.to_owned()], accept_done: false }
    }

    /// Takes requests whose path ends in one of these instead of `/chat/completions`.
    ///
    /// A suffix matches whole path segments: `completions` takes `/v1/completions` and not
    /// `/v1/precompletions`. The query is not looked at. Without any suffix, nothing is taken.
    #[must_use]
    pub fn with_path_suffixes<S: AsRef<str>>(mut self, suffixes: impl IntoIterator<Item = S>) -> Self {
        self.suffixes =
            suffixes.into_iter().map(|suffix| format!("/{}", suffix.as_ref().trim_matches('/'))).collect();
        self
    }
}

/// Reasons for which a body is not edited.
impl OpenAiChat {
    /// The body is not JSON (a byte-order mark, invalid UTF-8 and trailing bytes count).
    pub const NOT_JSON: Uneditable = Uneditable::new("not_json");
    /// The top level is no object, or has no `messages`.
    pub const NO_MESSAGES: Uneditable = Uneditable::new("no_messages");
    /// `messages` stands twice: parsers disagree on which one counts.
    pub const DUPLICATE_MESSAGES: Uneditable = Uneditable::new("duplicate_messages");
    /// `messages` is no array of objects with a role each, or one of them has a member twice on which parsers
    /// would disagree or more than 1,024 tool calls.
    pub const NOT_MESSAGES: Uneditable = Uneditable::new("not_messages");
    /// There are more messages, or tool calls in them, than any conversation has: 65,536.
    pub const TOO_MANY_MESSAGES: Uneditable = Uneditable::new("too_many_messages");
    /// The list is empty.
    pub const EMPTY_MESSAGES: Uneditable = Uneditable::new("empty_messages");
    /// The last message is the assistant's: the reply would continue it.
    pub const PREFILL: Uneditable = Uneditable::new("prefill");
    /// The request names a conversation that the upstream keeps (`previous_response_id`, `conversation`).
    pub const UPSTREAM_STATE: Uneditable = Uneditable::new("upstream_state");
}

/// Name of the format in records.
const FORMAT: Format = Format::from_static("openai.chat");

impl Protocol for OpenAiChat {
    fn format(&self) -> Format {
        FORMAT
    }

    fn route(&self, parts: &Parts) -> Route {
        let path = parts.uri.path();
        match parts.method == Method::POST
            && self.suffixes.iter().any(|suffix| path.ends_with(suffix.as_str()))
        {
            true => Route::Converse,
            false => Route::Foreign,
        }
    }

    fn read(&self, body: &Bytes) -> Result<Draft, Uneditable> {
        request::read(body)
    }

    fn edit(&self, draft: &Draft, insertion: &Insertion<'_>) -> Vec<Bytes> {
        insert::insert(draft, insertion)
    }

    fn recorder(&self, kind: ReplyKind, limits: ReplyLimits) -> Box<dyn Recorder> {
        match kind {
            ReplyKind::Json => Box::new(reply::JsonReply::new(limits)),
            ReplyKind::EventStream => Box::new(delta::StreamReply::new(limits, self.accept_done)),
        }
    }

    fn item(&self, raw: Bytes) -> Option<Item> {
        let about = request::about(str::from_utf8(&raw).ok()?)?;
        Some(Item::new(raw, about))
    }

    fn canonical(&self, item: &Item) -> Canonical {
        canonical::digest(item.raw())
    }

    fn error_body(&self, error: &ErrorBody<'_>) -> Bytes {
        error::body(error)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn matches(protocol: &OpenAiChat, method: Method, uri: &str) -> bool {
        let mut parts = Request::new(()).into_parts().0;
        parts.method = method;
        parts.uri = uri.parse().unwrap_or_default();
        protocol.route(&parts) == Route::Converse
    }

    #[test]
    fn chat_completions_is_taken_under_any_prefix_and_nothing_else_is() {
        let chat = OpenAiChat::new();
        for path in [
            "/v1/chat/completions",
            "/chat/completions",
            "/openai/deployments/d/chat/completions?api-version=2024-06-01",
            "/api/v1/chat/completions",
            "/v1beta/openai/chat/completions",
            "http://host/v1/chat/completions",
        ] {
            assert!(matches(&chat, Method::POST, path), "{path}");
            assert!(!matches(&chat, Method::GET, path), "GET {path}");
        }
        for path in [
            "/v1/embeddings",
            "/v1/models",
            "/v1/responses",
            "/v1/responses/input_tokens",
            "/v1/messages/count_tokens",
            "/v1/completions",
            "/v1/chat/completions/chatcmpl-1",
            "/v1/snapchat/completions",
            "/x?y=/chat/completions",
        ] {
            assert!(!matches(&chat, Method::POST, path), "{path}");
        }
    }

    #[test]
    fn a_suffix_matches_whole_segments_with_or_without_its_slash() {
        let own = OpenAiChat::new().with_path_suffixes(["talk", "/a/b/"]);
        for (path, taken) in [
            ("/talk", true),
            ("/v1/talk", true),
            ("/smalltalk", false),
            ("/x/a/b", true),
            ("/chat/completions", false),
        ] {
            assert_eq!(matches(&own, Method::POST, path), taken, "{path}");
        }
    }
}
