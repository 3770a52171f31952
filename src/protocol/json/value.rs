//! JSON read without loss, over [`RawValue`].
//!
//! `serde_json::Value` refuses lone surrogates (which JavaScript writes for a cut emoji) and rewrites
//! numbers. Here values stay the text that they were, strings are decoded to WTF-8, and members come in the
//! order and as often as they stand. Skipping a value costs no stack, however deep it is.

use std::{borrow::Cow, fmt};

use serde::de::{Deserializer as _, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Calls `each` with every member of the object in `json`: the key, of which [`name`] or [`string`] make text, and the
/// value. `None` if it is no object, or no JSON at all; `each` may have been called by then.
pub(crate) fn members<'a>(json: &'a str, each: impl FnMut(&'a RawValue, &'a RawValue)) -> Option<()> {
    // What is plainly something else is not parsed: the parser's error would describe all of it. So below.
    if !json.trim_start().starts_with('{') {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    deserializer.deserialize_map(MembersVisitor(each)).ok()?;
    deserializer.end().ok()
}

/// The elements, if this is an array.
pub(crate) fn elements(json: &RawValue) -> Option<Vec<&RawValue>> {
    is_array(json).then(|| serde_json::from_str(json.get()).ok()).flatten()
}

/// The elements, if this is an array and has at most `max` of them.
pub(crate) fn elements_up_to(json: &RawValue, max: usize) -> Option<Vec<&RawValue>> {
    let read = || serde_json::Deserializer::from_str(json.get()).deserialize_seq(Elements(max)).ok();
    is_array(json).then(read).flatten()
}

/// A key, decoded, to compare it with a name. One that is longer than any name stays as it was sent: it is none of
/// them, and would be decoded into as much memory as it takes.
pub(crate) fn name(key: &RawValue) -> Cow<'_, [u8]> {
    match interior(key).unwrap_or_default() {
        long if long.len() > LONG => Cow::Borrowed(long.as_bytes()),
        key => decode_to_wtf8(key),
    }
}

/// No name that is compared with has more bytes than this, were each of its characters an escape sequence.
const LONG: usize = 144;

/// The string that this is, decoded; `None` for any other value.
pub(crate) fn string(json: &RawValue) -> Option<Cow<'_, [u8]>> {
    interior(json).map(decode_to_wtf8)
}

/// What stands between the quotes, if this is a string.
pub(crate) fn interior(json: &RawValue) -> Option<&str> {
    json.get().strip_prefix('"')?.strip_suffix('"')
}

/// Whether this is an array.
pub(crate) fn is_array(json: &RawValue) -> bool {
    json.get().starts_with('[')
}

/// Whether this is `null`.
pub(crate) fn is_null(json: &RawValue) -> bool {
    json.get() == "null"
}

/// Decodes what stands between the quotes of a valid string literal.
///
/// The result is UTF-8, but for surrogates without a partner: they become the three bytes that their code
/// point would have (WTF-8). So two literals decode to the same bytes exactly if they are the same string of
/// UTF-16 code units.
pub(crate) fn decode_to_wtf8(literal: &str) -> Cow<'_, [u8]> {
    let bytes = literal.as_bytes();
    let Some(first) = memchr::memchr(b'\\', bytes) else { return Cow::Borrowed(bytes) };
    let mut decoded = Vec::with_capacity(bytes.len());
    let (plain, mut rest) = bytes.split_at(first);
    decoded.extend_from_slice(plain);
    while let [b'\\', escape, after @ ..] = rest {
        rest = after;
        match escape {
            b'b' => decoded.push(0x08),
            b'f' => decoded.push(0x0C),
            b'n' => decoded.push(b'\n'),
            b'r' => decoded.push(b'\r'),
            b't' => decoded.push(b'\t'),
            b'u' => rest = unescape_unit(after, &mut decoded),
            other => decoded.push(*other),
        }
        let plain = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
        decoded.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
    }
    Cow::Owned(decoded)
}

/// Decodes the four digits after `\u`, and the low surrogate's escape after them if this is a high one.
/// Answers what follows.
fn unescape_unit<'a>(digits: &'a [u8], into: &mut Vec<u8>) -> &'a [u8] {
    let Some((unit, rest)) = code_unit(digits) else { return digits };
    if (0xD800..0xDC00).contains(&unit)
        && let [b'\\', b'u', low @ ..] = rest
        && let Some((low @ 0xDC00..0xE000, rest)) = code_unit(low)
    {
        push(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00), into);
        return rest;
    }
    push(unit, into);
    rest
}

fn code_unit(digits: &[u8]) -> Option<(u32, &[u8])> {
    let (unit, rest) = digits.split_at_checked(4)?;
    let unit = unit.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))?;
    Some((unit, rest))
}

fn push(point: u32, into: &mut Vec<u8>) {
    match char::from_u32(point) {
        Some(char) => into.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        None => into
            .extend([0xE0 | (point >> 12), 0x80 | (point >> 6 & 0x3F), 0x80 | (point & 0x3F)].map(low_byte)),
    }
}

fn low_byte(value: u32) -> u8 {
    value.to_le_bytes()[0]
}

struct MembersVisitor<F>(F);

impl<'a, F: FnMut(&'a RawValue, &'a RawValue)> Visitor<'a> for MembersVisitor<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry()? {
            (self.0)(key, value);
        }
        Ok(())
    }
}

struct Elements(usize);

impl<'a> Visitor<'a> for Elements {
    type Value = Vec<&'a RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of at most {} elements", self.0)
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element()? {
            if elements.len() == self.0 {
                return Err(A::Error::invalid_length(elements.len() + 1, &self));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn every_escape_decodes_to_what_it_stands_for() {
        assert_eq!(*decode_to_wtf8(r#"a\"\\\/\b\f\n\r\t\u00e9z"#), *"a\"\\/\u{8}\u{c}\n\r\téz".as_bytes());
    }

    #[test]
    fn an_escaped_pair_is_the_character_and_a_lone_surrogate_is_kept() {
        assert_eq!(*decode_to_wtf8(r"\ud83d\ude00"), *"😀".as_bytes());
        assert_eq!(*decode_to_wtf8(r"\ud83d"), [0xED, 0xA0, 0xBD]);
        assert_eq!(*decode_to_wtf8(r"\ude00\ud83d"), [0xED, 0xB8, 0x80, 0xED, 0xA0, 0xBD]);
        assert_eq!(*decode_to_wtf8(r"\ud83d\u0041"), [0xED, 0xA0, 0xBD, b'A']);
        assert_eq!(*decode_to_wtf8(r"\ud83dx"), [0xED, 0xA0, 0xBD, b'x']);
    }

    #[test]
    fn members_come_in_order_with_escaped_keys_decoded_and_duplicates_kept() {
        let mut seen = Vec::new();
        members(r#" {"b" : 1.0, "\u0061":[ ], "b":"\ud800", "\ud800":null} "#, |key, value| {
            seen.push((name(key).into_owned(), value.get().to_owned()));
        })
        .unwrap();
        let expected = [("b", "1.0"), ("a", "[ ]"), ("b", r#""\ud800""#)];
        for (seen, (key, value)) in seen.iter().zip(expected) {
            assert_eq!((&*seen.0, &*seen.1), (key.as_bytes(), value));
        }
        assert_eq!(seen[3], (vec![0xED, 0xA0, 0x80], "null".to_owned()));
    }

    #[test]
    fn what_is_no_object_or_has_more_behind_it_is_an_error() {
        for json in ["", "[]", "{", "{}x", r#"{"a":1,}"#, "{\"a\nb\":1}", r#"{"a":"\x"}"#] {
            assert!(members(json, |_, _| ()).is_none(), "{json:?} is no object");
        }
    }

    #[test]
    fn a_key_is_decoded_if_it_can_be_a_name() {
        let longest: String =
            "prompt_cache_breakpoint".bytes().map(|byte| format!("\\u00{byte:x}")).collect();
        let longer = format!("\\n{}", "x".repeat(LONG));
        let json = format!(r#"{{"{longest}":0,"{longer}":0}}"#);
        let mut names = Vec::new();
        members(&json, |key, _| names.push(name(key).into_owned())).unwrap();
        assert_eq!(names, [b"prompt_cache_breakpoint".to_vec(), longer.into_bytes()]);
    }
}
