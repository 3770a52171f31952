//! OpenAI Chat Completions, as OpenAI, Azure, vLLM, Ollama, llama.cpp, LiteLLM and others speak it.

mod assembly;
mod budget;
mod delta;
mod fields;
mod nesting;
mod parts;
mod raw;
mod reply;
mod tool_body;
mod tool_calls;

use bytes::Bytes;
use http::{Method, request};

use super::{Canonical, Draft, Protocol, Recorder, ReplyKind, ReplyLimits, Uneditable};
use crate::history::Message;

/// The Chat Completions protocol.
#[derive(Debug, Clone)]
pub struct OpenAiChat {
    suffixes: Vec<String>,
    accept_done: bool,
}

impl Default for OpenAiChat {
    fn default() -> Self {
        Self { suffixes: vec!["/chat/completions".to_owned()], accept_done: false }
    }
}

impl Protocol for OpenAiChat {
    fn matches(&self, parts: &request::Parts) -> bool {
        parts.method == Method::POST && self.suffixes.iter().any(|s| parts.uri.path().ends_with(s.as_str()))
    }

    fn read(&self, _body: &Bytes) -> Result<Draft, Uneditable> {
        Err(Uneditable::NotJson)
    }

    fn recorder(&self, kind: ReplyKind, limits: ReplyLimits) -> Box<dyn Recorder> {
        match kind {
            ReplyKind::Json => Box::new(reply::JsonReply::new(limits)),
            ReplyKind::EventStream => Box::new(delta::StreamReply::new(limits, self.accept_done)),
        }
    }

    fn canonical(&self, _message: &Message) -> Canonical {
        Canonical([0; 16])
    }
}
