//! Recording a reply that comes as one JSON object.

use std::{borrow::Cow, fmt, mem};

use bytes::Bytes;

use super::{
    assembly::{DROPPED, Outcome, is_zero},
    budget::Budget,
    envelope::{Choice, Envelope},
    tool_calls,
};
use crate::protocol::json::{
    members::{self, Member, Members},
    nesting::Nesting,
    text,
};
use crate::{
    history::{About, Author, Item},
    protocol::{Recorder, Reply, ReplyLimits, Skip},
};

const BOM: &[u8] = "\u{feff}".as_bytes();

/// What a choice of a whole reply says.
const MESSAGE: &str = "message";

/// Takes the message of choice 0 out of a `chat.completion`.
///
/// The brace that closes the object is terminal if there is something to store: a client that reads JSON while it
/// comes, or knows its length, has the whole reply with it. What follows it is ignored.
pub(super) struct JsonReply {
    limit: usize,
    nesting: Nesting,
    state: State,
}

enum State {
    Open(Vec<u8>),
    Read(Result<Reply, Skip>),
}

impl JsonReply {
    pub(super) fn new(limits: ReplyLimits) -> Self {
        Self { limit: limits.reply, nesting: Nesting::default(), state: State::Open(Vec::new()) }
    }

    fn take(&mut self) -> State {
        mem::replace(&mut self.state, State::Read(Err(Skip::EmptyMessage)))
    }
}

impl Recorder for JsonReply {
    fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let State::Open(body) = &mut self.state else { return None };
        // Most replies come whole: their end need not be looked for, which saves 4,500 of 17,100 instructions
        // (`cargo bench --profile cost --features proxy --bench cost -- 'reply: JSON of 200 bytes of text'`).
        if body.is_empty()
            && bytes.len() <= self.limit
            && let Some((reply, end)) = read_whole(bytes)
        {
            let terminal = Some(end).filter(|_| reply.is_ok());
            self.state = State::Read(reply);
            return terminal;
        }
        let end = self.nesting.feed(bytes);
        let bytes = end.map_or(bytes, |end| &bytes[..=end]);
        if body.len().saturating_add(bytes.len()) > self.limit {
            self.state = State::Read(Err(Skip::TooLarge));
            return None;
        }
        let reply = if end.is_some() && body.is_empty() {
            read(bytes)
        } else {
            body.extend_from_slice(bytes);
            end?;
            read(body)
        };
        let terminal = end.filter(|_| reply.is_ok());
        self.state = State::Read(reply);
        terminal
    }

    fn is_finished(&self) -> bool {
        matches!(self.state, State::Read(Ok(_) | Err(Skip::EmptyMessage | Skip::IncompleteToolCall)))
    }

    fn finish(&mut self) -> Result<Reply, Skip> {
        match self.take() {
            State::Read(reply) => reply,
            // It never closed, so it is no JSON object.
            State::Open(_) => Err(Skip::Unparseable),
        }
    }

    fn interrupt(&mut self) -> Result<Reply, Skip> {
        match self.take() {
            State::Read(reply) => reply,
            State::Open(_) => Err(Skip::NoFinishReason),
        }
    }
}

impl fmt::Debug for JsonReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonReply").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}

/// The reply, if these bytes are all of it and as it should be, and where its closing brace stands.
fn read_whole(body: &[u8]) -> Option<(Result<Reply, Skip>, usize)> {
    let end = body.trim_ascii_end().len().checked_sub(1).filter(|end| body[*end] == b'}')?;
    let body = str::from_utf8(body).ok()?;
    Some((reply(body, Envelope::at_once(body, MESSAGE)?), end))
}

fn read(body: &[u8]) -> Result<Reply, Skip> {
    let body = body.strip_prefix(BOM).unwrap_or(body);
    let body = str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed);
    reply(&body, Envelope::read(&body, MESSAGE).ok_or(Skip::Unparseable)?)
}

/// What the envelope in this text says.
fn reply<'a>(body: &'a str, envelope: Envelope<'a>) -> Result<Reply, Skip> {
    let Envelope { error, model, usage, choices } = envelope;
    if error.is_some_and(text::is_truthy) {
        return Err(Skip::ErrorBody);
    }
    for choice in choices.ok_or(Skip::Unparseable)? {
        let Choice { index, finish_reason, said } = choice.ok_or(Skip::Unparseable)?;
        if is_zero(index) {
            let mut outcome = Outcome::default();
            outcome.read_finish_reason(finish_reason)?;
            let finish_reason = outcome.finish_reason.as_deref().ok_or(Skip::NoFinishReason)?;
            let cut = matches!(finish_reason, "length" | "content_filter");
            let message = replayable(body, &said.members()?.ok_or(Skip::EmptyMessage)?, cut)?;
            outcome.read(model, usage);
            return Ok(outcome.reply(message));
        }
    }
    Err(Skip::NoFinishReason)
}

/// The message as it can be sent back: the bytes that came, without the members that providers refuse.
fn replayable<'a>(body: &'a str, members: &Members<'a>, cut: bool) -> Result<Item, Skip> {
    let (Some(first), Some(last)) = (members.0.first(), members.0.last()) else {
        return Err(Skip::EmptyMessage);
    };
    let json = members::object(body, first.key, last.value).ok_or(Skip::Unparseable)?;
    let role = text::said(members.get("role"));
    let mut about = About::new(Author::Model);
    let mut says = false;
    let mut edit = Edit::new(json, if role.is_none() { r#""role":"assistant""# } else { "" });
    for member in &members.0 {
        let value = member.value;
        match &*member.name {
            "content" => {
                says |= content_says(value);
                edit.keep(member);
            }
            _ if text::is_null(value) => edit.remove(member),
            "role" if role.is_none() => edit.remove(member),
            "refusal" => {
                says |= text::is_truthy(value);
                edit.keep(member);
            }
            "function_call" => {
                says = true;
                check_arguments(Some(value), cut)?;
                edit.keep(member);
            }
            "audio" => {
                match Members::read(value).and_then(|audio| audio.get("id").and_then(tool_calls::id)) {
                    Some(id) => {
                        says = true;
                        edit.replace(member, &format!("{{\"id\":{id}}}"));
                    }
                    None => edit.remove(member),
                }
            }
            "tool_calls" => {
                let (calls, ids) = replayable_calls(value, cut)?;
                if ids.is_empty() {
                    edit.remove(member);
                    continue;
                }
                says = true;
                about.calls = ids;
                match calls {
                    Some(calls) => edit.replace(member, &calls),
                    None => edit.keep(member),
                }
            }
            name if DROPPED.contains(&name) => edit.remove(member),
            _ => edit.keep(member),
        }
    }
    if !says {
        return Err(Skip::EmptyMessage);
    }
    Ok(Item::new(Bytes::from(edit.finish()), about))
}

fn content_says(content: &str) -> bool {
    match text::elements(content) {
        None => !text::is_null(content) && !text::interior(content).is_empty() || text::is_object(content),
        Some(parts) => parts.into_iter().any(|part| match Members::read(part) {
            None => !matches!(part, "null" | "\"\""),
            Some(part) => match part.get("type").map(text::decode).as_deref() {
                Some("text") => part.get("text").is_some_and(text::is_truthy),
                Some("thinking") => false,
                _ => true,
            },
        }),
    }
}

/// The calls of a message without their `index` and each with an id, if that takes a change; and their ids.
fn replayable_calls(json: &str, cut: bool) -> Result<(Option<String>, Vec<String>), Skip> {
    let calls = text::elements(json).ok_or(Skip::Unparseable)?;
    if calls.len() > Budget::ENTRIES {
        return Err(Skip::TooLarge);
    }
    let mut ids = Vec::with_capacity(calls.len());
    let mut out = String::new();
    let mut copied = 0;
    for call in calls {
        let members = Members::read(call).ok_or(Skip::Unparseable)?;
        check_arguments(members.get("function"), cut)?;
        let id = members.get("id").and_then(tool_calls::id);
        ids.push(id.map(text::decode_to_keep).unwrap_or_default());
        if id.is_some() && members.get("index").is_none() {
            continue;
        }
        let first = match id {
            Some(_) => String::new(),
            None => format!("\"id\":\"{}\"", tool_calls::mint()),
        };
        let mut edit = Edit::new(call, &first);
        for member in &members.0 {
            if member.name == "index" || (member.name == "id" && id.is_none()) {
                edit.remove(member);
            } else {
                edit.keep(member);
            }
        }
        let at = text::span(json, call);
        out.push_str(&json[copied..at.start]);
        out.push_str(&edit.finish());
        copied = at.end;
    }
    if copied == 0 {
        return Ok((None, ids));
    }
    out.push_str(&json[copied..]);
    Ok((Some(out), ids))
}

/// A call that was cut off has arguments that are no JSON, or none.
fn check_arguments(function: Option<&str>, cut: bool) -> Result<(), Skip> {
    let Some(function) = function.filter(|_| cut).and_then(Members::read) else { return Ok(()) };
    let whole = match function.get("arguments") {
        Some(arguments) if text::is_string(arguments) => text::is_json(&text::decode(arguments)),
        Some(arguments) => !text::is_null(arguments),
        None => false,
    };
    if whole { Ok(()) } else { Err(Skip::IncompleteToolCall) }
}

/// Takes members out of an object, or replaces their values, and leaves every other byte as it is. Each member is
/// kept, removed or replaced, in their order.
struct Edit<'a> {
    json: &'a str,
    out: String,
    /// What was looked at so far. From there to the next member stand white space and a comma.
    read: usize,
    /// Whether there is no member yet.
    empty: bool,
}

impl<'a> Edit<'a> {
    /// `first` is a member to put before all others, or empty.
    fn new(json: &'a str, first: &str) -> Self {
        let mut out = String::with_capacity(json.len() + first.len());
        out.push('{');
        out.push_str(first);
        Self { json, out, read: 1, empty: first.is_empty() }
    }

    fn remove(&mut self, member: &Member<'_>) {
        self.read = text::span(self.json, member.value).end;
    }

    fn keep(&mut self, member: &Member<'_>) {
        let key = self.come_to(member);
        self.out.push_str(&self.json[key..self.read]);
    }

    fn replace(&mut self, member: &Member<'_>, value: &str) {
        let key = self.come_to(member);
        self.out.push_str(&self.json[key..text::span(self.json, member.value).start]);
        self.out.push_str(value);
    }

    /// Writes what stands before a member, and answers where it begins.
    fn come_to(&mut self, member: &Member<'_>) -> usize {
        let key = text::span(self.json, member.key).start;
        let end = text::span(self.json, member.value).end;
        let before = &self.json[mem::replace(&mut self.read, end)..key];
        match (mem::take(&mut self.empty), before.contains(',')) {
            (true, true) => {}
            (true, false) | (false, true) => self.out.push_str(before),
            (false, false) => self.out.push(','),
        }
        key
    }

    /// The object after the edit.
    fn finish(mut self) -> String {
        self.out.push_str(&self.json[self.read..]);
        self.out
    }
}
