//! The members of one message that decide on what it is.

use std::str;

use serde_json::value::RawValue;

use crate::{
    history::About,
    protocol::{
        json::value::{elements_up_to, is_array, is_null, members, name, string},
        openai_chat::{budget::Budget, role::Role},
    },
};

/// Messages of one request, and tool calls in all of them. What is known of each takes a hundred bytes and
/// more, and an element of an array as few as two.
pub(super) const MAX_MESSAGES: usize = 65_536;

#[derive(Default)]
pub(super) struct MessageMembers<'a> {
    role: Option<&'a RawValue>,
    content: Option<&'a RawValue>,
    tool_calls: Option<&'a RawValue>,
    tool_call_id: Option<&'a RawValue>,
    function_call: Option<&'a RawValue>,
    twice: bool,
}

impl<'a> MessageMembers<'a> {
    pub(super) fn take(&mut self, key: &[u8], value: &'a RawValue) {
        let member = match key {
            b"role" => &mut self.role,
            b"content" => &mut self.content,
            b"tool_calls" => &mut self.tool_calls,
            b"tool_call_id" => &mut self.tool_call_id,
            b"function_call" => &mut self.function_call,
            _ => return,
        };
        self.twice |= member.replace(value).is_some();
    }

    /// What they tell of the message; `None` if it is none.
    pub(super) fn about(&self) -> Option<About> {
        if self.twice {
            return None;
        }
        let role = string(self.role?)?;
        let role = Role::from(str::from_utf8(&role).ok()?);
        let mut about = role.about();
        match role {
            Role::Assistant => {
                if let Some(calls) = self.tool_calls.filter(|calls| is_array(calls)) {
                    about.calls = elements_up_to(calls, Budget::ENTRIES)?.into_iter().map(id).collect();
                }
                if self.function_call.is_some_and(|call| !is_null(call)) {
                    about.calls.push(String::new());
                }
            }
            Role::Tool => about.answers = vec![self.tool_call_id.map(text).unwrap_or_default()],
            Role::Function => about.answers = vec![String::new()],
            _ => {}
        }
        Some(about)
    }
}

/// The `id` of a tool call, or nothing.
fn id(call: &RawValue) -> String {
    let mut id = String::new();
    // A call that is no object has no id; the upstream will say what it thinks of it.
    let _ = members(call.get(), |key, value| {
        if *name(key) == *b"id" {
            id = text(value);
        }
    });
    id
}

fn text(json: &RawValue) -> String {
    string(json).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
}
