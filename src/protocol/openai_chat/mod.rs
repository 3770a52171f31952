//! OpenAI Chat Completions, as OpenAI, Azure, vLLM, Ollama, llama.cpp, LiteLLM and others speak it.

mod assembly;
mod budget;
mod canonical;
mod chat;
mod delta;
mod details;
mod envelope;
mod error;
mod fields;
mod insert;
mod repeated_event;
mod reply;
mod request;
mod role;
mod tool_body;
mod tool_calls;

pub use chat::OpenAiChat;

use bytes::Bytes;
use http::request::Parts;

use super::{
    Canonical, Draft, ErrorBody, Insertion, Protocol, Recorder, ReplyKind, ReplyLimits, Route, Uneditable,
};
use crate::history::{Format, Item};

/// Name of the format in records.
const FORMAT: Format = Format::from_static("openai.chat");

impl Protocol for OpenAiChat {
    fn format(&self) -> Format {
        FORMAT
    }

    fn route(&self, parts: &Parts) -> Route {
        match self.takes(parts) {
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
    use http::{Method, Request};

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
