//! JSON text as slices: what a value is, the insides of string literals, and the writer of objects.

use std::{borrow::Cow, ops::Range};

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// The elements of an array; `None` if this is no array, or not JSON.
pub(crate) fn elements(json: &str) -> Option<Vec<&str>> {
    if !is_array(json.trim_start()) {
        return None;
    }
    let elements: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    Some(elements.into_iter().map(RawValue::get).collect())
}

/// Where a slice of a text stands in it.
pub(crate) fn span(text: &str, slice: &str) -> Range<usize> {
    let start = (slice.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    start..start + slice.len()
}

/// Whether this text is one JSON value. Numbers out of range and any depth are fine.
pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

pub(crate) fn is_null(value: &str) -> bool {
    value == "null"
}

pub(crate) fn is_string(value: &str) -> bool {
    value.starts_with('"')
}

pub(crate) fn is_array(value: &str) -> bool {
    value.starts_with('[')
}

pub(crate) fn is_object(value: &str) -> bool {
    value.starts_with('{')
}

/// Whether a program that asks `if (value)` would say yes. `{}` and `[]` count as yes.
pub(crate) fn is_truthy(value: &str) -> bool {
    let zero = || value.trim_start_matches('-').bytes().all(|b| matches!(b, b'0' | b'.'));
    !matches!(value, "null" | "false" | "\"\"") && !zero()
}

/// A string that holds more than white space; anything but a string is blank.
pub(crate) fn said(value: Option<&str>) -> Option<&str> {
    value.filter(|value| is_string(value) && !decode(value).trim().is_empty())
}

/// The inside of a string literal. The insides of two literals, put together, are again the inside of one,
/// even where a surrogate pair was split between them.
pub(crate) fn interior(literal: &str) -> &str {
    literal.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default()
}

/// The text of a string literal, to compare or to show. A lone surrogate becomes U+FFFD; what is no string
/// literal stays as it is.
pub(crate) fn decode(literal: &str) -> Cow<'_, str> {
    if !is_string(literal) {
        return Cow::Borrowed(literal);
    }
    let interior = interior(literal);
    if interior.contains('\\') { Cow::Owned(decode_interior(interior)) } else { Cow::Borrowed(interior) }
}

/// The same, to be kept: no longer than it must be, though an escape sequence is up to six times as long as what it
/// stands for.
pub(crate) fn decode_to_keep(literal: &str) -> String {
    let mut text = decode(literal).into_owned();
    text.shrink_to_fit();
    text
}

/// The inside of a literal, decoded; see [`decode`].
pub(crate) fn decode_interior(interior: &str) -> String {
    let mut text = String::with_capacity(interior.len());
    let mut rest = interior;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let (decoded, taken) = escape_sequence(&rest[at..]);
        text.push(decoded);
        rest = rest.get(at + taken..).unwrap_or_default();
    }
    text.push_str(rest);
    text
}

/// The character of the escape sequence at the start of this text, and the sequence's length.
fn escape_sequence(text: &str) -> (char, usize) {
    let simple = match text.as_bytes().get(1) {
        Some(b'u') => None,
        Some(b'b') => Some('\u{8}'),
        Some(b'f') => Some('\u{c}'),
        Some(b'n') => Some('\n'),
        Some(b'r') => Some('\r'),
        Some(b't') => Some('\t'),
        Some(&other) if other.is_ascii() => Some(char::from(other)),
        _ => return (char::REPLACEMENT_CHARACTER, 1),
    };
    if let Some(decoded) = simple {
        return (decoded, 2);
    }
    match (unit(text), text.get(6..).and_then(unit)) {
        (Some(high @ 0xD800..=0xDBFF), Some(low @ 0xDC00..=0xDFFF)) => {
            let code = 0x1_0000 + ((u32::from(high) - 0xD800) << 10) + (u32::from(low) - 0xDC00);
            (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
        }
        (Some(unit), _) => (char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
        (None, _) => (char::REPLACEMENT_CHARACTER, 2),
    }
}

/// The UTF-16 unit of a `\uXXXX` at the start of this text.
pub(crate) fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

/// A string literal that holds this text.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// The same JSON without white space between its tokens.
pub(crate) fn compact(json: &str) -> String {
    let (mut string, mut escaped) = (false, false);
    json.chars()
        .filter(|&c| {
            if string {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                string = !ends;
                return true;
            }
            string = c == '"';
            !matches!(c, ' ' | '\t' | '\n' | '\r')
        })
        .collect()
}

/// Writes an object.
#[derive(Default)]
pub(crate) struct Object(String);

impl Object {
    /// Adds a member; `key` is a string literal.
    pub(crate) fn member(&mut self, key: &str, value: &str) {
        self.key(key);
        self.0.push_str(value);
    }

    /// Adds a member whose value is a string with this inside.
    pub(crate) fn text(&mut self, key: &str, interior: &str) {
        self.key(key);
        self.0.push('"');
        self.0.push_str(interior);
        self.0.push('"');
    }

    /// Adds a member whose value is an array with this inside.
    pub(crate) fn array(&mut self, key: &str, interior: &str) {
        self.key(key);
        self.0.push('[');
        self.0.push_str(interior);
        self.0.push(']');
    }

    pub(crate) fn end(mut self) -> String {
        if self.0.is_empty() {
            self.0.push('{');
        }
        self.0.push('}');
        self.0
    }

    fn key(&mut self, key: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(key);
        self.0.push(':');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_million_levels_cost_no_stack() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        assert!(is_json(&deep));
        assert_eq!(elements(&format!("[{deep}]")).unwrap().len(), 1);
        assert!(!is_json(&deep[1..]), "and the levels are still counted");
    }

    #[test]
    fn escapes_are_decoded_and_lone_surrogates_do_no_harm() {
        assert_eq!(decode(r#""a\n\"\\\/\u00e9\ud83d\ude00""#), "a\n\"\\/é😀");
        assert_eq!(decode(r#""\ud83d!\ude00\ud83d\ud83d\ude00""#), "\u{fffd}!\u{fffd}\u{fffd}😀");
        assert_eq!(decode("12"), "12");
    }

    #[test]
    fn compacting_leaves_strings_alone() {
        assert_eq!(compact("{ \"a b\" : [ 1 ,\n\"\\\" \\\\\" , 2 ] }"), r#"{"a b":[1,"\" \\",2]}"#);
    }

    #[test]
    fn truth_is_what_a_client_would_take_for_it() {
        for no in ["null", "false", "0", "-0", "0.0", "\"\""] {
            assert!(!is_truthy(no), "{no}");
        }
        for yes in ["true", "1", "0.5", "{}", "[]", "\"0\"", "{\"code\":1}"] {
            assert!(is_truthy(yes), "{yes}");
        }
    }
}
