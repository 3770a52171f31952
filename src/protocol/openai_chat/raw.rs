//! JSON that is read without being rewritten.
//!
//! Message content goes through neither `String` nor `serde_json::Value`: both refuse or change what providers
//! send (lone surrogates, 30-digit numbers, `1e999`, deep nesting, duplicate names). Everything here works on
//! slices of the JSON text itself. `RawValue` skips values iteratively, so depth costs no stack.

use std::{borrow::Cow, fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// One member of an object.
pub(super) struct Member<'a> {
    /// The name as it was sent: a string literal with its quotes.
    pub(super) key: &'a str,
    /// The name, decoded.
    pub(super) name: Cow<'a, str>,
    /// The value as it was sent.
    pub(super) value: &'a str,
}

/// The members of an object, in order, duplicates included.
pub(super) struct Members<'a>(pub(super) Vec<Member<'a>>);

impl<'a> Members<'a> {
    /// Reads one level of an object; `None` if this is no object, or not JSON.
    pub(super) fn read(json: &'a str) -> Option<Self> {
        // What is plainly something else is not parsed: the parser's error would describe all of it.
        if !is_object(json.trim_start()) {
            return None;
        }
        let mut deserializer = serde_json::Deserializer::from_str(json);
        match (MembersOf(json).deserialize(&mut deserializer), deserializer.end()) {
            (Ok(members), Ok(())) => members,
            // A name may be escaped.
            _ => serde_json::from_str(json).ok(),
        }
    }

    /// The value of a name; the last one, if it stands twice, as parsers commonly do.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|member| member.name == name).map(|member| member.value)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(12);
                while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    members.push(Member { key: key.get(), name: decode(key.get()), value: value.get() });
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Read)
    }
}

/// The members of an object in a text, or nothing where there is null. A name with an escape sequence in it is an
/// error.
pub(super) struct MembersOf<'a>(pub(super) &'a str);

impl<'de> DeserializeSeed<'de> for MembersOf<'de> {
    type Value = Option<Members<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for MembersOf<'de> {
    type Value = Option<Members<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(4);
        while let Some((name, value)) = map.next_entry::<&str, &RawValue>()? {
            let inside = span(self.0, name);
            let key = self.0.get(inside.start.saturating_sub(1)..inside.end + 1).unwrap_or_default();
            members.push(Member { key, name: Cow::Borrowed(name), value: value.get() });
        }
        Ok(Some(Members(members)))
    }
}

/// The object in a text whose first name and last value these are.
pub(super) fn object<'a>(text: &'a str, first: &str, last: &str) -> Option<&'a str> {
    let start = text[..span(text, first).start].rfind('{')?;
    let end = span(text, last).end;
    Some(&text[start..=end + text[end..].find('}')?])
}

/// The values of these names in an object, each as [`Members::get`] gives it; `None` if this is no object. It
/// costs less than reading every member, and chunks are read by the thousand.
pub(super) fn pick<'a, const N: usize>(json: &'a str, names: [&str; N]) -> Option<[Option<&'a str>; N]> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let picked = Pick(names).deserialize(&mut deserializer);
    if let (Ok(picked), Ok(())) = (picked, deserializer.end()) {
        return Some(picked);
    }
    // A name may hold a lone surrogate, which only this way of reading minds.
    let members = Members::read(json)?;
    Some(names.map(|name| members.get(name)))
}

/// The values of these names in an object.
pub(super) struct Pick<'n, const N: usize>(pub(super) [&'n str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Pick<'_, N> {
    type Value = [Option<&'de str>; N];

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Pick<'_, N> {
    type Value = [Option<&'de str>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut picked = [None; N];
        while let Some(at) = map.next_key_seed(Position(&self.0))? {
            match at.and_then(|at| picked.get_mut(at)) {
                Some(value) => *value = Some(map.next_value::<&RawValue>()?.get()),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(picked)
    }
}

/// Reads a name as its place among those that are picked.
pub(super) struct Position<'n>(pub(super) &'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Position<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Position<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|picked| *picked == name))
    }
}

/// The elements of an array; `None` if this is no array, or not JSON.
pub(super) fn elements(json: &str) -> Option<Vec<&str>> {
    if !is_array(json.trim_start()) {
        return None;
    }
    let elements: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    Some(elements.into_iter().map(RawValue::get).collect())
}

/// Where a slice of a text stands in it.
pub(super) fn span(text: &str, slice: &str) -> Range<usize> {
    let start = (slice.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    start..start + slice.len()
}

/// Whether this text is one JSON value. Numbers out of range and any depth are fine.
pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

pub(super) fn is_null(value: &str) -> bool {
    value == "null"
}

pub(super) fn is_string(value: &str) -> bool {
    value.starts_with('"')
}

pub(super) fn is_array(value: &str) -> bool {
    value.starts_with('[')
}

pub(super) fn is_object(value: &str) -> bool {
    value.starts_with('{')
}

/// Whether a program that asks `if (value)` would say yes. `{}` and `[]` count as yes.
pub(super) fn is_truthy(value: &str) -> bool {
    let zero = || value.trim_start_matches('-').bytes().all(|b| matches!(b, b'0' | b'.'));
    !matches!(value, "null" | "false" | "\"\"") && !zero()
}

/// A string that holds more than white space; anything but a string is blank.
pub(super) fn said(value: Option<&str>) -> Option<&str> {
    value.filter(|value| is_string(value) && !decode(value).trim().is_empty())
}

/// The inside of a string literal. The insides of two literals, put together, are again the inside of one,
/// even where a surrogate pair was split between them.
pub(super) fn interior(literal: &str) -> &str {
    literal.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default()
}

/// The text of a string literal, to compare or to show. A lone surrogate becomes U+FFFD; what is no string
/// literal stays as it is.
pub(super) fn decode(literal: &str) -> Cow<'_, str> {
    if !is_string(literal) {
        return Cow::Borrowed(literal);
    }
    let interior = interior(literal);
    if interior.contains('\\') { Cow::Owned(unescape(interior)) } else { Cow::Borrowed(interior) }
}

/// The inside of a literal, decoded; see [`decode`].
pub(super) fn unescape(interior: &str) -> String {
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
pub(super) fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

/// A string literal that holds this text.
pub(super) fn literal(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// The same JSON without white space between its tokens.
pub(super) fn compact(json: &str) -> String {
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

/// Two objects as one: objects that stand in both are merged likewise, else the newer value counts, unless it
/// is null. Objects that are deeper or larger than any metadata are replaced whole: recursion and search have an
/// end.
pub(super) fn merged(old: &str, new: &str) -> String {
    merged_to(old, new, 16)
}

fn merged_to(old: &str, new: &str, depth: usize) -> String {
    if is_null(new) {
        return old.to_owned();
    }
    let (true, true, true) = (depth > 0, is_object(old), is_object(new)) else { return new.to_owned() };
    let (Some(old), Some(newer)) = (small(old), small(new)) else { return new.to_owned() };
    let mut object = Object::default();
    for member in &old.0 {
        match newer.get(&member.name) {
            Some(value) => object.member(member.key, &merged_to(member.value, value, depth - 1)),
            None => object.member(member.key, member.value),
        }
    }
    for member in newer.0.iter().filter(|member| old.get(&member.name).is_none()) {
        object.member(member.key, member.value);
    }
    object.end()
}

fn small(object: &str) -> Option<Members<'_>> {
    Members::read(object).filter(|members| members.0.len() <= 1024)
}

/// Writes an object.
#[derive(Default)]
pub(super) struct Object(String);

impl Object {
    /// Adds a member; `key` is a string literal.
    pub(super) fn member(&mut self, key: &str, value: &str) {
        self.key(key);
        self.0.push_str(value);
    }

    /// Adds a member whose value is a string with this inside.
    pub(super) fn text(&mut self, key: &str, interior: &str) {
        self.key(key);
        self.0.push('"');
        self.0.push_str(interior);
        self.0.push('"');
    }

    /// Adds a member whose value is an array with this inside.
    pub(super) fn array(&mut self, key: &str, interior: &str) {
        self.key(key);
        self.0.push('[');
        self.0.push_str(interior);
        self.0.push(']');
    }

    pub(super) fn end(mut self) -> String {
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
    fn names_and_values_are_slices_of_what_was_sent() {
        let json = r#" { "a" : 1e999, "\u0062":"\ud83d", "a":[ 1 ] } "#;
        let members = Members::read(json).unwrap();
        let seen: Vec<_> = members.0.iter().map(|m| (m.key, &*m.name, m.value)).collect();
        let sent = [("\"a\"", "a", "1e999"), ("\"\\u0062\"", "b", "\"\\ud83d\""), ("\"a\"", "a", "[ 1 ]")];
        assert_eq!(seen, sent);
        assert_eq!(members.get("a"), Some("[ 1 ]"), "the last of two counts");
    }

    #[test]
    fn picking_finds_what_reading_every_member_finds() {
        for json in [
            r#" {"b":1,"a":[{"b":2}],"\u0062": "x" } "#,
            r#"{"\ud83d":0,"a":null,"b":1e999}"#,
            "{}",
            "[]",
            r#"{"a":1}x"#,
            r#"{"a":1"#,
        ] {
            let read = Members::read(json).map(|members| ["a", "b"].map(|name| members.get(name)));
            assert_eq!(pick(json, ["a", "b"]), read, "{json}");
        }
    }

    #[test]
    fn a_million_levels_cost_no_stack() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        assert!(is_json(&deep));
        let object = format!("{{\"a\":{deep}}}");
        assert_eq!(Members::read(&object).unwrap().get("a").unwrap().len(), deep.len());
        assert_eq!(elements(&format!("[{deep}]")).unwrap().len(), 1);
        assert!(!is_json(&deep[1..]), "and the levels are still counted");
    }

    #[test]
    fn objects_as_deep_as_you_like_are_merged_without_recursing_all_the_way() {
        let deep = "{\"a\":".repeat(100_000) + "1" + &"}".repeat(100_000);
        assert_eq!(merged(&deep, &deep), deep);
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

    #[test]
    fn merging_goes_into_objects_and_a_null_takes_nothing_away() {
        let merged = merged(r#"{"g":{"a":"1","b":2},"x":1}"#, r#"{"g":{"b":3,"c":4},"x":null,"y":[5]}"#);
        assert_eq!(merged, r#"{"g":{"a":"1","b":3,"c":4},"x":1,"y":[5]}"#);
    }
}
