//! What a message says, whichever way it was serialised.
//!
//! Clients send stored messages back in their own words: the SDKs add nulls, JavaScript rewrites `1.0` to
//! `1` and `\u00e9` to `é`, LangChain turns a string into text parts, the AI SDK re-serialises arguments.
//! Two messages are the same if these are:
//!
//! - the role;
//! - the text: a string, or the text parts between two other parts, joined. No `content`, `null`, `""` and
//!   `[]` are the same;
//! - other content parts as JSON, without nulls and cache hints (clients move those from turn to turn);
//! - the refusal, as a member or as parts; the id of the audio;
//! - tool calls: id, kind, name, and arguments as JSON, or as text if they are none. No arguments and `{}`
//!   are the same;
//! - `function_call` likewise, and `tool_call_id`.
//!
//! Nothing else counts: neither `name`, which many clients drop, nor reasoning, annotations or unknown
//! members. As JSON means: the order of members does not count, the last of two members with one key does,
//! strings are compared decoded, and numbers as the doubles that they name, since that is all that a
//! JavaScript client can send back (RFC 8259, section 6).
//!
//! The digest is 128 bits of SHA-256 over an injective encoding of that.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::protocol::Canonical;
use crate::protocol::json::value::{decode_to_wtf8, elements, interior, is_null, members, name, string};

/// Deeper values are compared byte for byte, so that hostile nesting costs neither stack nor time.
const MAX_DEPTH: usize = 16;

/// Members of a content part that tell a provider what to cache, not the model what was said.
const CACHE_HINTS: [&[u8]; 2] = [b"cache_control", b"prompt_cache_breakpoint"];

pub(super) fn digest(message: &[u8]) -> Canonical {
    let mut encoding = Encoding(Sha256::new());
    match str::from_utf8(message).ok().and_then(Says::read) {
        Some(says) => says.encode(&mut encoding),
        None => encoding.text(b'!', message),
    }
    let mut digest = [0; 16];
    digest.copy_from_slice(&encoding.0.finalize()[..16]);
    Canonical(digest)
}

/// The members that count.
#[derive(Default)]
struct Says<'a> {
    role: Option<&'a RawValue>,
    content: Option<&'a RawValue>,
    refusal: Option<&'a RawValue>,
    audio: Option<&'a RawValue>,
    tool_calls: Option<&'a RawValue>,
    function_call: Option<&'a RawValue>,
    tool_call_id: Option<&'a RawValue>,
}

impl<'a> Says<'a> {
    fn read(message: &'a str) -> Option<Self> {
        let mut says = Self::default();
        members(message, |key, value| {
            let member = match &*name(key) {
                b"role" => &mut says.role,
                b"content" => &mut says.content,
                b"refusal" => &mut says.refusal,
                b"audio" => &mut says.audio,
                b"tool_calls" => &mut says.tool_calls,
                b"function_call" => &mut says.function_call,
                b"tool_call_id" => &mut says.tool_call_id,
                _ => return,
            };
            *member = Some(value).filter(|value| !is_null(value));
        })?;
        Some(says)
    }

    fn encode(&self, to: &mut Encoding) {
        to.json(b'r', self.role);
        let mut content = Content::default();
        if let Some(value) = self.content {
            content.read(value);
        }
        if let Some(refusal) = self.refusal.and_then(interior) {
            content.refusal.push_str(refusal);
        }
        content.encode(to);
        to.json(b'a', self.audio.and_then(|audio| member(audio, b"id")));
        for call in self.tool_calls.and_then(elements).unwrap_or_default() {
            encode_tool_call(call, to);
        }
        if let Some(call) = self.function_call {
            encode_function(b'f', call, to);
        }
        to.json(b'i', self.tool_call_id);
    }
}

/// The content as runs of text between other parts. Text is held undecoded, so that a character whose two
/// halves stand in two parts is one again.
#[derive(Default)]
struct Content<'a> {
    segments: Vec<Segment<'a>>,
    refusal: String,
}

enum Segment<'a> {
    Text(String),
    Part(&'a RawValue),
}

impl<'a> Content<'a> {
    fn read(&mut self, content: &'a RawValue) {
        if let Some(text) = interior(content) {
            return self.push_text(text);
        }
        match elements(content) {
            Some(parts) => parts.into_iter().for_each(|part| self.read_part(part)),
            None => self.segments.push(Segment::Part(content)),
        }
    }

    fn read_part(&mut self, part: &'a RawValue) {
        let kind = member(part, b"type").and_then(string);
        let text = |key: &[u8]| member(part, key).and_then(interior);
        match kind.as_deref() {
            Some(b"text") => text(b"text").map(|text| self.push_text(text)),
            Some(b"refusal") => text(b"refusal").map(|refusal| self.refusal.push_str(refusal)),
            _ => None,
        }
        .unwrap_or_else(|| self.segments.push(Segment::Part(part)));
    }

    fn push_text(&mut self, text: &str) {
        match self.segments.last_mut() {
            Some(Segment::Text(run)) => run.push_str(text),
            _ if text.is_empty() => {}
            _ => self.segments.push(Segment::Text(text.to_owned())),
        }
    }

    fn encode(&self, to: &mut Encoding) {
        for segment in &self.segments {
            match segment {
                Segment::Text(text) => to.text(b't', &decode_to_wtf8(text)),
                Segment::Part(part) => encode_part(part, to),
            }
        }
        if !self.refusal.is_empty() {
            to.text(b'R', &decode_to_wtf8(&self.refusal));
        }
    }
}

fn encode_part(part: &RawValue, to: &mut Encoding) {
    let Some(mut members) = sorted_members(part) else { return to.json(b'p', Some(part)) };
    members.retain(|key, _| !CACHE_HINTS.contains(&&**key));
    to.tag(b'p');
    to.object(&members, Nulls::Ignored, 1);
}

fn encode_tool_call(call: &RawValue, to: &mut Encoding) {
    if let Some(custom) = member(call, b"custom") {
        to.json(b'c', member(call, b"id"));
        to.json(b'n', member(custom, b"name"));
        to.json(b'x', member(custom, b"input"));
    } else if let Some(function) = member(call, b"function") {
        to.json(b'c', member(call, b"id"));
        encode_function(b'g', function, to);
    } else {
        to.json(b'u', Some(call));
    }
}

fn encode_function(tag: u8, function: &RawValue, to: &mut Encoding) {
    to.json(tag, member(function, b"name"));
    let Some(arguments) = member(function, b"arguments") else { return to.text(b'e', b"{}") };
    let Some(text) = string(arguments) else { return to.arguments(arguments) };
    match str::from_utf8(&text).map(str::trim_ascii) {
        Ok("") => to.text(b'e', b"{}"),
        Ok(json) => match serde_json::from_str::<&RawValue>(json) {
            Ok(json) => to.arguments(json),
            Err(_) => to.text(b's', &text),
        },
        Err(_) => to.text(b's', &text),
    }
}

/// The last member of this key, unless it is null.
fn member<'a>(object: &'a RawValue, key: &[u8]) -> Option<&'a RawValue> {
    let mut found = None;
    members(object.get(), |sent, value| {
        if *name(sent) == *key {
            found = Some(value);
        }
    })?;
    found.filter(|value| !is_null(value))
}

type Sorted<'a> = BTreeMap<Cow<'a, [u8]>, &'a RawValue>;

/// The members by key, the last of each; `None` if this is no object.
fn sorted_members(json: &RawValue) -> Option<Sorted<'_>> {
    let mut sorted = BTreeMap::new();
    members(json.get(), |key, value| {
        sorted.insert(string(key).unwrap_or_default(), value);
    })?;
    Some(sorted)
}

#[derive(Clone, Copy, PartialEq)]
enum Nulls {
    Ignored,
    Count,
}

/// An injective encoding: each item is a tag, and a length or count where its extent is not fixed.
struct Encoding(Sha256);

impl Encoding {
    fn tag(&mut self, tag: u8) {
        self.0.update([tag]);
    }

    fn text(&mut self, tag: u8, text: &[u8]) {
        self.tag(tag);
        self.count(text.len());
        self.0.update(text);
    }

    fn count(&mut self, count: usize) {
        self.0.update((count as u64).to_le_bytes());
    }

    /// A value that may be missing. `""` counts as missing: blank ids and names stand for none.
    fn json(&mut self, tag: u8, json: Option<&RawValue>) {
        self.tag(tag);
        match json.filter(|json| json.get() != r#""""#) {
            Some(json) => self.value(json, Nulls::Ignored, 0),
            None => self.tag(b'-'),
        }
    }

    fn arguments(&mut self, json: &RawValue) {
        if sorted_members(json).is_some_and(|members| members.is_empty()) {
            return self.text(b'e', b"{}");
        }
        self.tag(b'j');
        self.value(json, Nulls::Count, 0);
    }

    fn value(&mut self, json: &RawValue, nulls: Nulls, depth: usize) {
        let text = json.get();
        match text.as_bytes() {
            [b'{' | b'[', ..] if depth > MAX_DEPTH => self.text(b'D', text.as_bytes()),
            [b'{', ..] => self.object(&sorted_members(json).unwrap_or_default(), nulls, depth + 1),
            [b'[', ..] => {
                let elements = elements(json).unwrap_or_default();
                self.tag(b'[');
                self.count(elements.len());
                for element in elements {
                    self.value(element, nulls, depth + 1);
                }
            }
            [b'"', ..] => self.text(b'"', &string(json).unwrap_or_default()),
            [b'-' | b'0'..=b'9', ..] => self.number(text),
            _ => self.text(b'l', text.as_bytes()),
        }
    }

    fn object(&mut self, members: &Sorted<'_>, nulls: Nulls, depth: usize) {
        let counts = |value: &RawValue| nulls == Nulls::Count || !is_null(value);
        self.tag(b'{');
        self.count(members.values().filter(|value| counts(value)).count());
        for (key, value) in members.iter().filter(|(_, value)| counts(value)) {
            self.text(b'k', key);
            self.value(value, nulls, depth);
        }
    }

    fn number(&mut self, text: &str) {
        match text.parse::<f64>() {
            // JavaScript writes -0 as 0.
            Ok(0.0) => self.text(b'#', &0.0_f64.to_bits().to_le_bytes()),
            Ok(number) if number.is_finite() => self.text(b'#', &number.to_bits().to_le_bytes()),
            _ => self.text(b'#', text.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests;
