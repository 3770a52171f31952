//! Messages of LangChain's chat message histories: `{"type": …, "data": {…}}`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    chat::{Audio, Call, Message, json},
    json::{arguments, elements, given, is_empty, is_null, is_string, read, string},
    parts::{Content, content},
    piece::{Entry, Facts, Kind, Piece, Transcript},
    report::Why,
};

#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow, rename = "type")]
    kind: &'a RawValue,
    data: &'a RawValue,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Data<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    role: Option<&'a RawValue>,
    name: Option<&'a RawValue>,
    tool_calls: Option<&'a RawValue>,
    invalid_tool_calls: Option<&'a RawValue>,
    tool_call_id: Option<&'a RawValue>,
    additional_kwargs: Option<&'a RawValue>,
    response_metadata: Option<&'a RawValue>,
}

/// Members of the provider beyond LangChain's own.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Extra<'a> {
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    function_call: Option<&'a RawValue>,
    refusal: Option<&'a RawValue>,
    reasoning_content: Option<&'a RawValue>,
    audio: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata<'a> {
    #[serde(borrow)]
    model_name: Option<&'a RawValue>,
    model: Option<&'a RawValue>,
    finish_reason: Option<&'a RawValue>,
    token_usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    name: Option<&'a RawValue>,
    args: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct SourceAudio<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
}

/// Reads a session's messages, oldest first.
pub(super) fn read_all(entries: &[Entry]) -> Transcript {
    let mut said = Transcript::default();
    for (at, entry) in entries.iter().enumerate() {
        let mut left = Vec::new();
        match message(&entry.json, &mut left) {
            Ok((kind, json, facts)) => said.pieces.push(Piece { last: at, kind, json, facts }),
            Err(why) => left.push(why),
        }
        said.left.extend(left.into_iter().map(|why| (at, why)));
    }
    said
}

fn message(json: &[u8], left: &mut Vec<Why>) -> Result<(Kind, String, Facts), Why> {
    let stored: Stored<'_> = serde_json::from_slice(json).map_err(|_| Why::NoMessage)?;
    let data: Data<'_> = serde_json::from_str(stored.data.get()).map_err(|_| Why::NoMessage)?;
    let kind = string(Some(stored.kind)).ok_or(Why::NoMessage)?;
    let role = match kind.strip_suffix("MessageChunk").unwrap_or(&kind) {
        "chat" | "Chat" => string(data.role).ok_or(Why::NoMessage)?.to_ascii_lowercase(),
        other => other.to_ascii_lowercase(),
    };
    match role.as_str() {
        "human" | "user" => Ok((Kind::Sent, data.request("user", left), Facts::default())),
        // LangChain's OpenAI client keeps the role `developer` in a member of its own.
        "system" => Ok((Kind::Instruction, data.request(data.system_role(), left), Facts::default())),
        "developer" => Ok((Kind::Instruction, data.request("developer", left), Facts::default())),
        "ai" | "assistant" => data.reply(left),
        "tool" => data.result(left),
        "function" => Ok((Kind::Result(String::new()), data.function_result(left), Facts::default())),
        "remove" => Err(Why::Removal),
        _ => Err(Why::Kind(role)),
    }
}

impl<'a> Data<'a> {
    fn named<'b>(&'b self, role: &'b str) -> Message<'b> {
        Message { role, name: text(self.name), ..Message::default() }
    }

    fn system_role(&self) -> &'static str {
        #[derive(Deserialize)]
        struct Role<'a> {
            #[serde(borrow, rename = "__openai_role__")]
            role: &'a RawValue,
        }
        match read::<Role<'_>>(self.additional_kwargs).and_then(|extra| string(Some(extra.role))).as_deref() {
            Some("developer") => "developer",
            _ => "system",
        }
    }

    fn request(&self, role: &str, left: &mut Vec<Why>) -> String {
        let mut content = content(self.content);
        left.append(&mut content.left);
        left.extend(content.calls.iter().map(|_| Why::Part("tool call".to_owned())));
        Message { content: Some(content.for_request()), ..self.named(role) }.into_json()
    }

    fn result(&self, left: &mut Vec<Why>) -> Result<(Kind, String, Facts), Why> {
        let id = string(self.tool_call_id).ok_or(Why::Orphan)?;
        let (content, mut others) = content(self.content).for_result();
        left.append(&mut others);
        let message =
            Message { role: "tool", tool_call_id: Some(&id), content: Some(content), ..Message::default() };
        let json = message.into_json();
        Ok((Kind::Result(id), json, Facts::default()))
    }

    fn function_result(&self, left: &mut Vec<Why>) -> String {
        let (content, mut others) = content(self.content).for_result();
        left.append(&mut others);
        Message { content: Some(content), ..self.named("function") }.into_json()
    }

    fn reply(&self, left: &mut Vec<Why>) -> Result<(Kind, String, Facts), Why> {
        let mut content = content(self.content);
        left.append(&mut content.left);
        let extra: Extra<'_> = read(self.additional_kwargs).unwrap_or_default();
        let calls = self.calls(&mut content, extra.tool_calls, left);
        let refusal = content.refusal.as_deref().or_else(|| text(extra.refusal));
        let audio = read::<SourceAudio<'_>>(extra.audio).map(|audio| Audio { id: audio.id });
        let mut function_call = extra.function_call.filter(|call| !is_null(call));
        // Both kinds of calls on one message are refused.
        if !calls.is_empty() && function_call.take().is_some() {
            left.push(Why::Call);
        }
        let calls_nothing = calls.is_empty() && function_call.is_none();
        if content.is_empty() && refusal.is_none() && audio.is_none() && calls_nothing {
            return Err(Why::Empty);
        }
        let (mut ids, tool_calls): (Vec<String>, _) =
            calls.into_iter().map(|call| (call.id, call.json)).unzip();
        ids.extend(function_call.map(|_| String::new()));
        let message = Message {
            content: content.for_reply(),
            refusal,
            reasoning_content: given(extra.reasoning_content),
            audio,
            tool_calls,
            function_call,
            ..self.named("assistant")
        };
        Ok((Kind::Reply(ids), message.into_json(), self.facts()))
    }

    /// The tool calls in the message's order, each as the provider sent it where that is known.
    fn calls(&self, content: &mut Content, sent: Option<&'a RawValue>, left: &mut Vec<Why>) -> Vec<Call> {
        let mut sent = as_sent(sent, left);
        let mut calls: Vec<Call> = Vec::new();
        for raw in [self.tool_calls, self.invalid_tool_calls].into_iter().flat_map(elements).flatten() {
            let call = match serde_json::from_str::<ToolCall<'_>>(raw.get()) {
                Ok(call) => call.call(&mut sent),
                Err(_) => None,
            };
            match call {
                Some(call) if calls.iter().all(|other| other.id != call.id) => calls.push(call),
                Some(_) => {}
                None => left.push(Why::Call),
            }
        }
        let more = sent.into_values().chain(content.calls.drain(..));
        for call in more {
            if calls.iter().all(|other| other.id != call.id) {
                calls.push(call);
            }
        }
        calls
    }

    fn facts(&self) -> Facts {
        let metadata: Metadata<'_> = read(self.response_metadata).unwrap_or_default();
        let usage = metadata.token_usage.filter(|usage| usage.get().starts_with('{'));
        Facts {
            model: string(metadata.model_name).or_else(|| string(metadata.model)),
            finish_reason: string(metadata.finish_reason),
            usage: usage.map(ToOwned::to_owned),
        }
    }
}

impl ToolCall<'_> {
    fn call(&self, sent: &mut BTreeMap<String, Call>) -> Option<Call> {
        let id = string(self.id).filter(|id| !id.is_empty())?;
        if let Some(call) = sent.remove(&id) {
            return Some(call);
        }
        // Arguments that are no JSON are kept as a string.
        Some(Call::function(id, &string(self.name)?, &arguments(given(self.args))))
    }
}

/// The calls as the provider sent them, without their index, by id.
fn as_sent(calls: Option<&RawValue>, left: &mut Vec<Why>) -> BTreeMap<String, Call> {
    let mut sent = BTreeMap::new();
    for raw in elements(calls).unwrap_or_default() {
        let mut members: BTreeMap<String, &RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
        let id = string(members.get("id").copied()).filter(|id| !id.is_empty());
        let whole = members.contains_key("function") || members.contains_key("custom");
        let Some(id) = id.filter(|_| whole) else {
            left.push(Why::Call);
            continue;
        };
        members.retain(|name, value| name != "index" && !is_null(value));
        sent.insert(id.clone(), Call { id, json: json(members) });
    }
    sent
}

/// A string literal, unless it is empty.
fn text(value: Option<&RawValue>) -> Option<&RawValue> {
    value.filter(|value| is_string(value) && !is_empty(Some(value)))
}
