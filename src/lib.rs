//! Conversation memory for OpenAI-format LLM services.

pub mod history;
pub mod protocol;
pub mod session;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
