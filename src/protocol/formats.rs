//! The list of formats.

use std::sync::Arc;

use super::Protocol;

/// The formats that a layer speaks unless it is set up otherwise.
#[must_use]
pub fn all() -> Vec<Arc<dyn Protocol>> {
    vec![Arc::new(super::openai_chat::OpenAiChat::new())]
}
