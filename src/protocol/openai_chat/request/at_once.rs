//! A request in one pass: its messages and what must be known of them, if everything is as it should be.

use std::fmt;

use bytes::Bytes;
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{super::raw, Found, MAX_MESSAGES};
use crate::history::Message;

/// The messages of this body, which is the same text; `None` if anything in it takes a closer look.
pub(super) fn read(body: &Bytes, json: &str) -> Option<Vec<Message>> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let messages = deserializer.deserialize_map(Request { body, json }).ok()?;
    deserializer.end().ok()?;
    messages
}

/// Why it takes a closer look does not matter.
fn unusual<E: Error>() -> E {
    E::custom("")
}

#[derive(Clone, Copy)]
struct Request<'b, 'a> {
    body: &'b Bytes,
    json: &'a str,
}

impl<'de> Visitor<'de> for Request<'_, 'de> {
    type Value = Option<Vec<Message>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        const MEMBERS: [&str; 3] = ["messages", "previous_response_id", "conversation"];
        let mut messages = None;
        while let Some(at) = map.next_key_seed(raw::Position(&MEMBERS))? {
            match at {
                Some(0) if messages.is_some() => return Err(unusual()),
                Some(0) => messages = Some(map.next_value_seed(Messages(self))?),
                Some(_) => map.next_value::<()>()?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(messages)
    }
}

struct Messages<'b, 'a>(Request<'b, 'a>);

impl<'de> DeserializeSeed<'de> for Messages<'_, 'de> {
    type Value = Vec<Message>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Messages<'_, 'de> {
    type Value = Vec<Message>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut messages: Vec<Message> = Vec::new();
        let mut calls = 0;
        while let Some(message) = seq.next_element_seed(OneMessage(self.0))? {
            calls += message.about().calls.len();
            if messages.len() == MAX_MESSAGES || calls > MAX_MESSAGES {
                return Err(unusual());
            }
            messages.push(message);
        }
        Ok(messages)
    }
}

struct OneMessage<'b, 'a>(Request<'b, 'a>);

impl<'de> DeserializeSeed<'de> for OneMessage<'_, 'de> {
    type Value = Message;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneMessage<'_, 'de> {
    type Value = Message;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Request { body, json } = self.0;
        let mut found = Found::default();
        let mut ends: Option<(&str, &str)> = None;
        // A name with an escape sequence is no `&str`, and an error.
        while let Some((name, value)) = map.next_entry::<&str, &RawValue>()? {
            found.take(name.as_bytes(), value);
            ends = Some((ends.map_or(name, |(first, _)| first), value.get()));
        }
        let object = ends.and_then(|(first, last)| raw::object(json, first, last));
        let (Some(object), Some(about)) = (object, found.about()) else { return Err(unusual()) };
        Ok(Message::new(body.slice_ref(object.as_bytes()), about))
    }
}
