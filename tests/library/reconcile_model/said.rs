//! What is said, and the many ways in which clients serialise it.

use serde_json::{Value, json};

/// What a message says.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    User(String),
    Assistant(String),
    /// Tool calls by id.
    Calls(Vec<String>),
    /// The result of a call.
    Result {
        call: String,
        text: String,
    },
}

/// A message with the bytes that it was sent or stored with.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) said: Said,
    pub(crate) raw: String,
}

impl Said {
    /// Serialises it; each bit of `style` is a habit of some client.
    pub(crate) fn in_style(&self, style: u8) -> Sent {
        let has = |bit: u8| style & 1 << bit != 0;
        let mut members = match self {
            Self::User(text) => vec![("role", json!("user")), ("content", content(text, has(0)))],
            Self::Assistant(text) => vec![("role", json!("assistant")), ("content", content(text, has(0)))],
            Self::Calls(ids) => {
                let calls = ids.iter().map(|id| call(id, style)).collect();
                let mut members = vec![("role", json!("assistant")), ("tool_calls", Value::Array(calls))];
                match style >> 4 & 3 {
                    0 => {}
                    1 => members.push(("content", Value::Null)),
                    2 => members.push(("content", json!(""))),
                    _ => members.push(("content", json!([]))),
                }
                members
            }
            Self::Result { call, text } => {
                vec![
                    ("role", json!("tool")),
                    ("tool_call_id", json!(call)),
                    ("content", content(text, has(0))),
                ]
            }
        };
        if has(1) {
            members.extend([
                ("refusal", Value::Null),
                ("function_call", Value::Null),
                ("audio", Value::Null),
            ]);
        }
        if has(2) {
            members.extend([
                ("annotations", json!([])),
                ("x_vendor", json!({"k": 0.10})),
                ("name", json!("bob")),
            ]);
        }
        if has(3) {
            members.reverse();
        }
        Sent { said: self.clone(), raw: object(&members, has(6), has(7)) }
    }

    pub(crate) fn calls(&self) -> &[String] {
        match self {
            Self::Calls(ids) => ids,
            _ => &[],
        }
    }

    pub(crate) fn answers(&self, ids: &[String]) -> bool {
        matches!(self, Self::Result { call, .. } if ids.contains(call))
    }
}

fn content(text: &str, parts: bool) -> Value {
    if !parts {
        return json!(text);
    }
    let (first, second) = text.split_at(text.find(' ').unwrap_or(0));
    json!([{"type": "text", "text": first}, {"type": "text", "text": second, "cache_control": {"type": "ephemeral"}}])
}

fn call(id: &str, style: u8) -> Value {
    let arguments = match style & 3 {
        0 => r#"{"city":"Zürich","n":1.0,"deep":[null,{"a":1,"b":2}]}"#,
        1 => r#"{ "n" : 1, "city" : "Z\u00fcrich", "deep" : [ null, { "b": 2e0, "a": 1 } ] }"#,
        2 => "{\n  \"deep\": [null, {\"b\": 2, \"a\": 1}],\n  \"city\": \"Zürich\",\n  \"n\": 1\n}",
        _ => r#"{"city":"Z\u00FCrich","deep":[null,{"a":1.00,"b":2}],"n":1}"#,
    };
    json!({"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}})
}

fn object(members: &[(&str, Value)], spaced: bool, ascii: bool) -> String {
    let (comma, colon) = if spaced { (" ,\n\t", " : ") } else { (",", ":") };
    let members: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\"{colon}{value}")).collect();
    let json = format!("{{{}}}", members.join(comma));
    if ascii { json.chars().map(escaped).collect() } else { json }
}

fn escaped(char: char) -> String {
    if char.is_ascii() {
        return char.to_string();
    }
    char.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}
