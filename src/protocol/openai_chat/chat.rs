use http::{Method, request::Parts};

use crate::protocol::Uneditable;

/// The Chat Completions protocol.
#[derive(Debug, Clone)]
pub struct OpenAiChat {
    suffixes: Vec<String>,
    pub(super) accept_done: bool,
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

    /// Takes `data: [DONE]` for the proof that a streamed reply is complete. Default: off.
    ///
    /// A `finish_reason` is the proof otherwise, since servers send `[DONE]` after a failure, too (vLLM does,
    /// `chat_completion_stream_generator`). Some hosts never send a `finish_reason`: with them nothing is
    /// recorded until this is on, and with it a reply that was cut may be recorded as if it were whole.
    #[must_use]
    pub fn with_accept_done_without_finish_reason(mut self, accept: bool) -> Self {
        self.accept_done = accept;
        self
    }

    /// Whether the request is a `POST` to one of the paths.
    pub(super) fn takes(&self, parts: &Parts) -> bool {
        let path = parts.uri.path();
        parts.method == Method::POST && self.suffixes.iter().any(|suffix| path.ends_with(suffix.as_str()))
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
