//! Items of the OpenAI Agents SDK, which are those of the Responses API.
//!
//! A reply of the model is one or more items: its text and its calls. They become one message of Chat Completions. The
//! SDK does the same for servers that speak Chat Completions.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    chat::{Call, Json, Message},
    json::{arguments, is_string, string},
    parts::content,
    piece::{Entry, Facts, Kind, Piece, Transcript},
    report::Why,
};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    role: Option<&'a RawValue>,
    content: Option<&'a RawValue>,
    call_id: Option<&'a RawValue>,
    name: Option<&'a RawValue>,
    arguments: Option<&'a RawValue>,
    input: Option<&'a RawValue>,
    output: Option<&'a RawValue>,
    #[serde(rename = "__enc__")]
    encrypted: Option<&'a RawValue>,
}

/// A reply of the model to which more items may be added.
#[derive(Default)]
struct OpenReply {
    last: usize,
    /// The text; `Some(None)` is a text that says nothing beside a refusal.
    content: Option<Option<Json>>,
    refusal: Option<Json>,
    calls: Vec<Call>,
}

/// Whether `EncryptedSession` wrote any of these entries.
pub(super) fn are_encrypted(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| {
        serde_json::from_slice::<Item<'_>>(&entry.json).is_ok_and(|item| item.encrypted.is_some())
    })
}

/// Reads a session's items, oldest first.
pub(super) fn read_all(entries: &[Entry]) -> Transcript {
    let mut said = Transcript::default();
    let mut reply: Option<OpenReply> = None;
    for (at, entry) in entries.iter().enumerate() {
        let Ok(item) = serde_json::from_slice::<Item<'_>>(&entry.json) else {
            said.left.push((at, Why::NoMessage));
            continue;
        };
        let mut left = Vec::new();
        match item.read(&mut left) {
            Ok(Read::Text(text)) => said.add(&mut reply, at, text),
            Ok(Read::Call(call)) => {
                let reply = reply.get_or_insert_default();
                reply.calls.push(call);
                reply.last = at;
            }
            Ok(Read::Message(kind, json)) => {
                said.end(reply.take());
                said.pieces.push(Piece { last: at, kind, json, facts: Facts::default() });
            }
            Err(why) => left.push(why),
        }
        said.left.extend(left.into_iter().map(|why| (at, why)));
    }
    said.end(reply);
    said
}

enum Read {
    /// Text of the model.
    Text(Text),
    /// A tool call of the model.
    Call(Call),
    /// A message of any other author.
    Message(Kind, String),
}

struct Text {
    content: Option<Json>,
    refusal: Option<Json>,
}

impl Item<'_> {
    fn read(&self, left: &mut Vec<Why>) -> Result<Read, Why> {
        let kind = string(self.kind).unwrap_or_default();
        match kind.as_str() {
            "" | "message" => self.message(left),
            "function_call" => {
                let name = string(self.name).ok_or(Why::Call)?;
                let id = self.id().ok_or(Why::Call)?;
                Ok(Read::Call(Call::function(id, &name, &arguments(self.arguments))))
            }
            "custom_tool_call" => self.custom_call().map(Read::Call).ok_or(Why::Call),
            "function_call_output" | "custom_tool_call_output" => {
                let id = self.id().ok_or(Why::Orphan)?;
                let (output, mut others) = content(self.output).for_result();
                left.append(&mut others);
                let message = Message {
                    role: "tool",
                    tool_call_id: Some(&id),
                    content: Some(output),
                    ..Message::default()
                };
                let json = message.into_json();
                Ok(Read::Message(Kind::Result(id), json))
            }
            "reasoning" => Err(Why::Reasoning),
            _ => Err(Why::Kind(kind)),
        }
    }

    fn message(&self, left: &mut Vec<Why>) -> Result<Read, Why> {
        let role = string(self.role).ok_or(Why::NoMessage)?;
        let mut content = content(self.content);
        left.append(&mut content.left);
        left.extend(content.calls.drain(..).map(|_| Why::Part("tool call".to_owned())));
        let kind = match role.as_str() {
            "user" => Kind::Sent,
            "system" | "developer" => Kind::Instruction,
            "assistant" if content.is_empty() && content.refusal.is_none() => return Err(Why::Empty),
            "assistant" => {
                return Ok(Read::Text(Text { content: content.for_reply(), refusal: content.refusal }));
            }
            _ => return Err(Why::Kind(role)),
        };
        let message = Message { role: &role, content: Some(content.for_request()), ..Message::default() };
        Ok(Read::Message(kind, message.into_json()))
    }

    fn custom_call(&self) -> Option<Call> {
        let (id, name) = (self.id()?, string(self.name)?);
        let input = self.input.filter(|input| is_string(input))?;
        Some(Call::custom(id, &name, input))
    }

    fn id(&self) -> Option<String> {
        string(self.call_id).filter(|id| !id.is_empty())
    }
}

impl Transcript {
    /// Adds a text to the open reply; a reply that has a text ends before.
    fn add(&mut self, reply: &mut Option<OpenReply>, at: usize, text: Text) {
        if reply.as_ref().is_some_and(|open| open.content.is_some()) {
            self.end(reply.take());
        }
        let open = reply.get_or_insert_default();
        open.content = Some(text.content);
        open.refusal = text.refusal;
        open.last = at;
    }

    fn end(&mut self, reply: Option<OpenReply>) {
        let Some(reply) = reply else { return };
        let (ids, tool_calls) = reply.calls.into_iter().map(|call| (call.id, call.json)).unzip();
        let message = Message {
            role: "assistant",
            content: reply.content.flatten(),
            refusal: reply.refusal.as_deref(),
            tool_calls,
            ..Message::default()
        };
        let (kind, json) = (Kind::Reply(ids), message.into_json());
        self.pieces.push(Piece { last: reply.last, kind, json, facts: Facts::default() });
    }
}
