//! Where the messages of a request stand.
//!
//! A body is edited only if every JSON parser reads the same messages in it: two `messages` members, or two
//! `role`, `content`, `tool_calls`, `function_call` or `tool_call_id` members in one message, are left alone,
//! because the upstream may take the first where we take the last. Keys may be escaped; `messages` members deeper down
//! do not count. The work is linear in the body's length and needs no stack for its depth.

mod at_once;
mod message_members;

use std::{mem, str};

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use self::message_members::{MAX_MESSAGES, MessageMembers};
use super::chat::OpenAiChat;
use crate::{
    history::{About, Author, Item},
    protocol::{
        Draft, Uneditable,
        json::value::{elements_up_to, is_array, is_null, members, name},
    },
};

pub(super) fn read(body: &Bytes) -> Result<Draft, Uneditable> {
    let json = str::from_utf8(body).map_err(|_| OpenAiChat::NOT_JSON)?;
    let messages = match at_once::read(body, json) {
        Some(messages) => messages,
        None => step_by_step(body, json)?,
    };
    let Some(last) = messages.last() else { return Err(OpenAiChat::EMPTY_MESSAGES) };
    if last.author() == Author::Model {
        return Err(OpenAiChat::PREFILL);
    }
    let leading = messages.iter().take_while(|message| message.author() == Author::Instruction).count();
    let insert_at = match messages.get(leading) {
        Some(message) => offset(body, message.raw()),
        None => offset(body, last.raw()) + last.raw().len(),
    };
    let (mut instructions, mut items) = (messages, Vec::new());
    match leading {
        0 => mem::swap(&mut instructions, &mut items),
        _ => items = instructions.split_off(leading),
    }
    Ok(Draft::new(body.clone(), instructions, items, insert_at))
}

/// The messages; where [`at_once`] finds that something is not as it should be, this tells what.
fn step_by_step(body: &Bytes, json: &str) -> Result<Vec<Item>, Uneditable> {
    let found = find(json)?;
    let mut messages = Vec::with_capacity(found.len());
    let mut calls = 0;
    for raw in found {
        let about = about(raw.get()).ok_or(OpenAiChat::NOT_MESSAGES)?;
        calls += about.calls.len();
        if calls > MAX_MESSAGES {
            return Err(OpenAiChat::TOO_MANY_MESSAGES);
        }
        messages.push(Item::new(body.slice_ref(raw.get().as_bytes()), about));
    }
    Ok(messages)
}

/// What must be known of a message; `None` if it is none.
pub(super) fn about(message: &str) -> Option<About> {
    let mut found = MessageMembers::default();
    members(message, |key, value| found.take(&name(key), value))?;
    found.about()
}

/// The elements of `messages`.
fn find(json: &str) -> Result<Vec<&RawValue>, Uneditable> {
    let mut messages = None;
    let mut twice = false;
    let mut upstream_state = false;
    members(json, |key, value| match &*name(key) {
        b"messages" => twice |= messages.replace(value).is_some(),
        b"previous_response_id" | b"conversation" => upstream_state |= !is_null(value),
        _ => {}
    })
    .ok_or_else(|| match serde_json::from_str::<IgnoredAny>(json) {
        Ok(_) => OpenAiChat::NO_MESSAGES,
        Err(_) => OpenAiChat::NOT_JSON,
    })?;
    if upstream_state {
        return Err(OpenAiChat::UPSTREAM_STATE);
    }
    if twice {
        return Err(OpenAiChat::DUPLICATE_MESSAGES);
    }
    let messages = messages.ok_or(OpenAiChat::NO_MESSAGES)?;
    if !is_array(messages) {
        return Err(OpenAiChat::NOT_MESSAGES);
    }
    elements_up_to(messages, MAX_MESSAGES).ok_or(OpenAiChat::TOO_MANY_MESSAGES)
}

/// Where a slice of `body` begins in it.
fn offset(body: &Bytes, slice: &Bytes) -> usize {
    slice.as_ptr().addr() - body.as_ptr().addr()
}

#[cfg(test)]
mod tests;
