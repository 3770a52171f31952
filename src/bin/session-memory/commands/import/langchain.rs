//! LangChain's messages: `{"type": …, "data": {…}}`, as its chat message histories keep them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    json::{Object, array, elements, in_string, is_empty, is_null, is_string, quoted, read, string},
    parts::{Call, Content, content},
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

/// What a provider sent beyond LangChain's own members.
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
struct Audio<'a> {
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
        // LangChain's OpenAI client keeps the newer name of the role aside.
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
    fn named(&self, role: &str) -> Object {
        let message = Object::new().text("role", role);
        message.maybe("name", self.name.filter(|name| is_string(name) && !is_empty(Some(name))))
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
        self.named(role).raw("content", &content.for_request()).end()
    }

    fn result(&self, left: &mut Vec<Why>) -> Result<(Kind, String, Facts), Why> {
        let id = string(self.tool_call_id).ok_or(Why::Orphan)?;
        let (content, mut others) = content(self.content).for_result();
        left.append(&mut others);
        let message = Object::new().text("role", "tool").text("tool_call_id", &id);
        Ok((Kind::Result(id), message.raw("content", &content).end(), Facts::default()))
    }

    fn function_result(&self, left: &mut Vec<Why>) -> String {
        let (content, mut others) = content(self.content).for_result();
        left.append(&mut others);
        self.named("function").raw("content", &content).end()
    }

    fn reply(&self, left: &mut Vec<Why>) -> Result<(Kind, String, Facts), Why> {
        let mut content = content(self.content);
        left.append(&mut content.left);
        let extra: Extra<'_> = read(self.additional_kwargs).unwrap_or_default();
        let calls = self.calls(&mut content, extra.tool_calls, left);
        let refusal = content.refusal.clone().or_else(|| given(extra.refusal));
        let audio = read::<Audio<'_>>(extra.audio);
        let mut function_call = extra.function_call.filter(|call| !is_null(call));
        // Both kinds of calls on one message are refused.
        if !calls.is_empty() && function_call.take().is_some() {
            left.push(Why::Call);
        }
        let calls_nothing = calls.is_empty() && function_call.is_none();
        if content.is_empty() && refusal.is_none() && audio.is_none() && calls_nothing {
            return Err(Why::Empty);
        }
        let mut message = self.named("assistant").raw("content", &reply_content(&content));
        if let Some(refusal) = refusal {
            message = message.raw("refusal", &refusal);
        }
        message = message.maybe("reasoning_content", extra.reasoning_content);
        if let Some(audio) = audio {
            message = message.raw("audio", &Object::new().raw("id", audio.id.get()).end());
        }
        let mut ids: Vec<String> = calls.iter().map(|call| call.id.clone()).collect();
        if !calls.is_empty() {
            let calls: Vec<&str> = calls.iter().map(|call| call.json.as_str()).collect();
            message = message.raw("tool_calls", &array(&calls));
        }
        if let Some(call) = function_call {
            message = message.raw("function_call", call.get());
            ids.push(String::new());
        }
        Ok((Kind::Reply(ids), message.end(), self.facts()))
    }

    /// The tool calls in the order in which the message has them, each as the provider sent it, if that is
    /// known.
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
        let arguments = match self.args {
            // What a model wrote that is no JSON is kept as a string.
            Some(args) if is_string(args) => args.get().to_owned(),
            Some(args) if !is_null(args) => in_string(args),
            _ => quoted("{}"),
        };
        Some(Call::new(id, &string(self.name)?, &arguments))
    }
}

/// The calls as the provider sent them, without their index, by id.
fn as_sent(calls: Option<&RawValue>, left: &mut Vec<Why>) -> BTreeMap<String, Call> {
    let mut sent = BTreeMap::new();
    for raw in elements(calls).unwrap_or_default() {
        let members: BTreeMap<String, &RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
        let id = string(members.get("id").copied()).filter(|id| !id.is_empty());
        let whole = members.contains_key("function") || members.contains_key("custom");
        let Some(id) = id.filter(|_| whole) else {
            left.push(Why::Call);
            continue;
        };
        let kept = members.iter().filter(|(name, value)| *name != "index" && !is_null(value));
        let json = kept.fold(Object::new(), |call, (name, value)| call.raw(name, value.get())).end();
        sent.insert(id.clone(), Call { id, json });
    }
    sent
}

/// A string literal, unless it is empty.
fn given(value: Option<&RawValue>) -> Option<String> {
    value.filter(|value| is_string(value) && !is_empty(Some(value))).map(|value| value.get().to_owned())
}

/// LangChain writes `""` where the provider sent none.
fn reply_content(content: &Content) -> String {
    if content.is_empty() { "null".to_owned() } else { content.for_reply() }
}
