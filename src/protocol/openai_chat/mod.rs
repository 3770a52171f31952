//! OpenAI Chat Completions, as OpenAI, Azure, vLLM, Ollama, llama.cpp, LiteLLM and others speak it.

use bytes::Bytes;
use http::{Method, request};

use super::{Canonical, Draft, Protocol, Recorder, ReplyKind, ReplyLimits, Uneditable};
use crate::history::Message;

/// The Chat Completions protocol.
#[derive(Debug, Clone)]
pub struct OpenAiChat {
    suffixes: Vec<String>,
}

impl Default for OpenAiChat {
    fn default() -> Self {
        Self { suffixes: vec!["/chat/completions".to_owned()] }
    }
}

impl Protocol for OpenAiChat {
    fn matches(&self, parts: &request::Parts) -> bool {
        parts.method == Method::POST && self.suffixes.iter().any(|s| parts.uri.path().ends_with(s.as_str()))
    }

    fn read(&self, _body: &Bytes) -> Result<Draft, Uneditable> {
        Err(Uneditable::NotJson)
    }

    fn recorder(&self, _kind: ReplyKind, _limits: ReplyLimits) -> Box<dyn Recorder> {
        Box::new(Stub)
    }

    fn canonical(&self, _message: &Message) -> Canonical {
        Canonical([0; 16])
    }
}

struct Stub;
impl Recorder for Stub {
    fn feed(&mut self, _bytes: &[u8]) -> Option<usize> {
        None
    }
    fn is_finished(&self) -> bool {
        false
    }
    fn finish(&mut self) -> Result<super::Reply, super::Skip> {
        Err(super::Skip::Unparseable)
    }
    fn interrupt(&mut self) -> Result<super::Reply, super::Skip> {
        Err(super::Skip::Unparseable)
    }
}
