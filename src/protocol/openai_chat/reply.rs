//! Recording a reply that comes as one JSON object.

use std::{borrow::Cow, fmt, mem};

use bytes::Bytes;

use super::{
    assembly::{DROPPED, Outcome, is_zero},
    budget::Budget,
    envelope::Envelope,
    nesting::Nesting,
    raw::{self, Member, Members},
    tool_calls,
};
use crate::{
    history::{About, Message, Role},
    protocol::{Recorder, Reply, ReplyLimits, Skip},
};

const BOM: &[u8] = "\u{feff}".as_bytes();

/// Takes the message of choice 0 out of a `chat.completion`.
///
/// The brace that closes the object is terminal if there is something to store: a client that reads JSON while it comes, or knows its length,
/// has the whole reply with it. What follows it is ignored.
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

fn read(body: &[u8]) -> Result<Reply, Skip> {
    let body = body.strip_prefix(BOM).unwrap_or(body);
    let body = str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed);
    let reply = Envelope::read(&body, "message").ok_or(Skip::Unparseable)?;
    let Envelope { error, model, usage, choices } = reply;
    if error.is_some_and(raw::is_truthy) {
        return Err(Skip::ErrorBody);
    }
    let mut outcome = Outcome::default();
    outcome.read(model, usage);
    for choice in choices.ok_or(Skip::Unparseable)? {
        let [index, finish_reason, message] = choice.ok_or(Skip::Unparseable)?;
        if is_zero(index) {
            outcome.read_finish_reason(finish_reason)?;
            let finish_reason = outcome.finish_reason.as_deref().ok_or(Skip::NoFinishReason)?;
            let cut = matches!(finish_reason, "length" | "content_filter");
            let message = message.filter(|message| !raw::is_null(message)).ok_or(Skip::EmptyMessage)?;
            return Ok(outcome.reply(replayable(message, cut)?));
        }
    }
    Err(Skip::NoFinishReason)
}

/// The message as it can be sent back: the bytes that came, without the members that providers refuse.
fn replayable(json: &str, cut: bool) -> Result<Message, Skip> {
    let members = Members::read(json).ok_or(Skip::Unparseable)?;
    let role = raw::said(members.get("role"));
    let mut about = About::new(role.map_or(Role::Assistant, |role| Role::from(&*raw::decode(role))));
    let mut says = false;
    let mut edit = Edit::new(json);
    for member in &members.0 {
        let value = member.value;
        match &*member.name {
            "content" => says |= content_says(value),
            _ if raw::is_null(value) => edit.remove(member),
            "role" if role.is_none() => edit.remove(member),
            "refusal" => says |= raw::is_truthy(value),
            "function_call" => {
                says = true;
                check_arguments(Some(value), cut)?;
            }
            "audio" => {
                match Members::read(value).and_then(|audio| audio.get("id").and_then(tool_calls::id)) {
                    Some(id) => {
                        says = true;
                        edit.replace(member, format!("{{\"id\":{id}}}"));
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
                if let Some(calls) = calls {
                    edit.replace(member, calls);
                }
            }
            name if DROPPED.contains(&name) => edit.remove(member),
            _ => {}
        }
    }
    if !says {
        return Err(Skip::EmptyMessage);
    }
    let first = if role.is_none() { r#""role":"assistant""# } else { "" };
    Ok(Message::new(Bytes::from(edit.finish(&members.0, first)), about))
}

fn content_says(content: &str) -> bool {
    match raw::elements(content) {
        None => !raw::is_null(content) && !raw::interior(content).is_empty() || raw::is_object(content),
        Some(parts) => parts.into_iter().any(|part| match Members::read(part) {
            None => !matches!(part, "null" | "\"\""),
            Some(part) => match part.get("type").map(raw::decode).as_deref() {
                Some("text") => part.get("text").is_some_and(raw::is_truthy),
                Some("thinking") => false,
                _ => true,
            },
        }),
    }
}

/// The calls of a message without their `index` and each with an id, if that takes a change; and their ids.
fn replayable_calls(json: &str, cut: bool) -> Result<(Option<String>, Vec<String>), Skip> {
    let calls = raw::elements(json).ok_or(Skip::Unparseable)?;
    if calls.len() > Budget::ENTRIES {
        return Err(Skip::TooLarge);
    }
    let mut ids = Vec::with_capacity(calls.len());
    let mut out = String::with_capacity(json.len());
    let mut copied = 0;
    for call in calls {
        let members = Members::read(call).ok_or(Skip::Unparseable)?;
        check_arguments(members.get("function"), cut)?;
        let id = members.get("id").and_then(tool_calls::id);
        let mut edit = Edit::new(call);
        for member in &members.0 {
            if member.name == "index" || (member.name == "id" && id.is_none()) {
                edit.remove(member);
            }
        }
        let first = match id {
            Some(_) => String::new(),
            None => format!("\"id\":\"{}\"", tool_calls::mint()),
        };
        ids.push(id.map(|id| raw::decode(id).into_owned()).unwrap_or_default());
        if edit.is_needed() || !first.is_empty() {
            let at = raw::span(json, call);
            out.push_str(&json[copied..at.start]);
            out.push_str(&edit.finish(&members.0, &first));
            copied = at.end;
        }
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
        Some(arguments) if raw::is_string(arguments) => raw::is_json(&raw::decode(arguments)),
        Some(arguments) => !raw::is_null(arguments),
        None => false,
    };
    if whole { Ok(()) } else { Err(Skip::IncompleteToolCall) }
}

/// Takes members out of an object, or replaces their values, and leaves every other byte as it is.
struct Edit<'a> {
    json: &'a str,
    /// By the position of the member's key.
    removed: Vec<usize>,
    replaced: Vec<(usize, String)>,
}

impl<'a> Edit<'a> {
    fn new(json: &'a str) -> Self {
        Self { json, removed: Vec::new(), replaced: Vec::new() }
    }

    fn remove(&mut self, member: &Member<'_>) {
        self.removed.push(raw::span(self.json, member.key).start);
    }

    fn replace(&mut self, member: &Member<'_>, value: String) {
        self.replaced.push((raw::span(self.json, member.key).start, value));
    }

    fn is_needed(&self) -> bool {
        !self.removed.is_empty() || !self.replaced.is_empty()
    }

    /// The object after the edit; `first` is a member to put before all others, or empty. Members are visited
    /// in the order in which they were edited, so both lists are sorted.
    fn finish(self, members: &[Member<'_>], first: &str) -> String {
        let mut out = String::with_capacity(self.json.len() + first.len());
        out.push('{');
        out.push_str(first);
        let mut empty = first.is_empty();
        let (mut removed, mut replaced) =
            (self.removed.into_iter().peekable(), self.replaced.into_iter().peekable());
        // What stands between a member and the one before it: white space and a comma.
        let mut gap = 1;
        for member in members {
            let (key, value) = (raw::span(self.json, member.key), raw::span(self.json, member.value));
            let before = &self.json[mem::replace(&mut gap, value.end)..key.start];
            if removed.next_if_eq(&key.start).is_some() {
                continue;
            }
            match (mem::take(&mut empty), before.contains(',')) {
                (true, true) => {}
                (true, false) | (false, true) => out.push_str(before),
                (false, false) => out.push(','),
            }
            match replaced.next_if(|(at, _)| *at == key.start) {
                Some((_, new)) => {
                    out.push_str(&self.json[key.start..value.start]);
                    out.push_str(&new);
                }
                None => out.push_str(&self.json[key.start..value.end]),
            }
        }
        out.push_str(&self.json[gap..]);
        out
    }
}
