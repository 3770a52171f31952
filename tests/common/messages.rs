//! Messages of a conversation, and requests that hold them.

use serde_json::{Value, json};

/// A user message.
pub fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

/// An assistant message.
pub fn assistant(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

/// A system message.
pub fn system(text: &str) -> Value {
    json!({"role": "system", "content": text})
}

/// An assistant message that calls tools without arguments.
pub fn calls(ids: &[&str]) -> Value {
    let calls: Vec<_> = ids
        .iter()
        .map(|id| json!({"id": id, "type": "function", "function": {"name": "look", "arguments": "{}"}}))
        .collect();
    json!({"role": "assistant", "content": null, "tool_calls": calls})
}

/// The result of a tool call.
pub fn result(id: &str, text: &str) -> Value {
    json!({"role": "tool", "tool_call_id": id, "content": text})
}

/// A request body with these messages, answered as JSON.
pub fn body(messages: &[Value]) -> String {
    json!({"model": "m", "messages": messages}).to_string()
}

/// A request body with these messages, answered as a stream.
pub fn stream_body(messages: &[Value]) -> String {
    json!({"model": "m", "stream": true, "messages": messages}).to_string()
}

/// The content of each message, `null` as an empty text: enough to compare conversations at a glance.
pub fn texts(messages: &[Value]) -> Vec<String> {
    messages.iter().map(|m| m["content"].as_str().unwrap_or_default().to_owned()).collect()
}
