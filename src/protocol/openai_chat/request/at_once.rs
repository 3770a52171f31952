//! A request in one pass: its messages and what must be known of them, if everything is as it should be.
//!
//! * What it saves: 107,900 of 233,600 instructions of a request of 20 turns
//!   (`cargo bench --profile cost --features proxy --bench cost -- 'request: a resend, 20 turns'`).
//! * Without it: `step_by_step` reads the request, which is right as well, and finds what is wrong with one that is not.
//! * What holds it: `what_is_read_at_once_is_what_is_read_step_by_step`, in `tests.rs`, which compares both ways.

use std::fmt;

use bytes::Bytes;
use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::message_members::{MAX_MESSAGES, MessageMembers};
use crate::{
    history::Item,
    protocol::json::{
        members::{Unescaped, unusual},
        text::span,
        value::is_null,
    },
};

/// The messages of this body, which is the same text; `None` if anything in it takes a closer look.
pub(super) fn read(body: &Bytes, json: &str) -> Option<Vec<Item>> {
    let request = Request { body, json };
    request.opening(b'{', 0)?;
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let messages = deserializer.deserialize_map(request).ok()?;
    deserializer.end().ok()?;
    messages
}

#[derive(Clone, Copy)]
struct Request<'b, 'a> {
    body: &'b Bytes,
    json: &'a str,
}

impl Request<'_, '_> {
    /// Where the next value opens, if it is a list or object that opens so. A parser that expects one and finds a
    /// string decodes all of it, and describes it in its error: it must not be asked.
    fn opening(self, with: u8, after: usize) -> Option<usize> {
        let between = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b':' | b',');
        let rest = self.json.as_bytes().get(after..)?;
        let at = rest.iter().position(|byte| !between(byte))?;
        (rest[at] == with).then_some(after + at)
    }
}

impl<'de> Visitor<'de> for Request<'_, 'de> {
    type Value = Option<Vec<Item>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut messages = None;
        // A key with an escape sequence is an error.
        while let Some(Unescaped(key)) = map.next_key()? {
            match key {
                "messages" if messages.is_some() => return Err(unusual()),
                "messages" => {
                    let after = span(self.json, key).end + 1;
                    messages = Some(map.next_value_seed(Messages { request: self, after })?);
                }
                "previous_response_id" | "conversation" => {
                    if !is_null(map.next_value()?) {
                        return Err(unusual());
                    }
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(messages)
    }
}

/// The value after this place.
struct Messages<'b, 'a> {
    request: Request<'b, 'a>,
    after: usize,
}

impl<'de> DeserializeSeed<'de> for Messages<'_, 'de> {
    type Value = Vec<Item>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let open = self.request.opening(b'[', self.after).ok_or_else(unusual)?;
        deserializer.deserialize_seq(Self { after: open + 1, ..self })
    }
}

impl<'de> Visitor<'de> for Messages<'_, 'de> {
    type Value = Vec<Item>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let Self { request, mut after } = self;
        let mut messages: Vec<Item> = Vec::new();
        let mut calls = 0;
        while let Some((message, end)) = seq.next_element_seed(OneMessage { request, at: after })? {
            calls += message.about().calls.len();
            if messages.len() == MAX_MESSAGES || calls > MAX_MESSAGES {
                return Err(unusual());
            }
            messages.push(message);
            after = end;
        }
        Ok(messages)
    }
}

/// The value at or after this place, and where it ends.
struct OneMessage<'b, 'a> {
    request: Request<'b, 'a>,
    at: usize,
}

impl<'de> DeserializeSeed<'de> for OneMessage<'_, 'de> {
    type Value = (Item, usize);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let at = self.request.opening(b'{', self.at).ok_or_else(unusual)?;
        deserializer.deserialize_map(Self { at, ..self })
    }
}

impl<'de> Visitor<'de> for OneMessage<'_, 'de> {
    type Value = (Item, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Request { body, json } = self.request;
        let mut found = MessageMembers::default();
        let mut end = self.at;
        while let Some((Unescaped(key), value)) = map.next_entry::<_, &RawValue>()? {
            found.take(key.as_bytes(), value);
            end = span(json, value.get()).end;
        }
        // Nothing but white space stands between the last value and the brace.
        let end = json[end..].find('}').map(|brace| end + brace + 1);
        let (Some(end), Some(about)) = (end, found.about()) else { return Err(unusual()) };
        Ok((Item::new(body.slice(self.at..end), about), end))
    }
}
