use std::collections::HashSet;

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    reply::{Chunk, Reply, text_chunks},
    seen::Seen,
};

/// The default model: it tells how many user messages it saw and repeats the last one, so that the answer
/// proves that the history arrived.
///
/// Streams when the request asks for it, with a usage chunk when `stream_options.include_usage` does. What is
/// no chat completion is answered with an empty list.
#[must_use]
pub fn echo(seen: &Seen) -> Reply {
    if !seen.uri.path().ends_with("/chat/completions") {
        return Reply::json(StatusCode::OK, &json!({"object": "list", "data": []}));
    }
    let request = seen.json();
    let said = spoken(&request);
    let text = match said.as_slice() {
        [] => "You said nothing.".to_owned(),
        [only] => format!("You said 1 thing: {only}"),
        [.., last] => format!("You said {} things; the last was: {last}", said.len()),
    };
    if request["stream"] != json!(true) {
        return Reply::text(&text);
    }
    let mut chunks = text_chunks(&text);
    if request["stream_options"]["include_usage"] == json!(true) {
        chunks.push(Chunk::usage());
    }
    Reply::chunks(chunks).done()
}

/// [`echo`], but a history that OpenAI would refuse is refused: a tool call without its results, a result
/// without its call, an empty `tool_calls`, instructions twice or not at the start.
#[must_use]
pub fn refuse_unanswered_calls(seen: &Seen) -> Reply {
    match violation(&seen.messages()) {
        None => echo(seen),
        Some(why) => Reply::error(StatusCode::BAD_REQUEST, why),
    }
}

fn spoken(request: &Value) -> Vec<String> {
    let messages = request["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    messages
        .iter()
        .filter(|message| message["role"] == "user")
        .map(|message| text(&message["content"]))
        .collect()
}

fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

fn violation(messages: &[Value]) -> Option<&'static str> {
    let mut open = HashSet::new();
    let mut instructions_may_come = true;
    for message in messages {
        let role = message["role"].as_str().unwrap_or_default();
        let instruction = matches!(role, "system" | "developer");
        if instruction && !instructions_may_come {
            return Some("instructions must stand first");
        }
        instructions_may_come &= instruction;
        if role == "tool" {
            if !open.remove(message["tool_call_id"].as_str().unwrap_or_default()) {
                return Some(
                    "messages with role 'tool' must be a response to a preceding message with 'tool_calls'",
                );
            }
            continue;
        }
        if !open.is_empty() {
            return Some(
                "an assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'",
            );
        }
        if let Some(calls) = message["tool_calls"].as_array() {
            if calls.is_empty() {
                return Some("empty array 'tool_calls'");
            }
            open.extend(calls.iter().filter_map(|call| call["id"].as_str()));
        }
    }
    (!open.is_empty()).then_some(
        "an assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'",
    )
}
