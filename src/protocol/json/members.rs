//! The members of JSON objects, as slices of their text; one level at a time.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::text::{decode, is_object, span};

/// Something that is not as it should be, and looked at by other means. The parser's own error would describe it: a
/// string of any length, several times as long. So where a string is not expected it is read nevertheless, to give this.
pub(crate) fn unusual<E: Error>() -> E {
    E::custom("")
}

/// One member of an object.
pub(crate) struct Member<'a> {
    /// The name as it was sent: a string literal with its quotes.
    pub(crate) key: &'a str,
    /// The name, decoded.
    pub(crate) name: Cow<'a, str>,
    /// The value as it was sent.
    pub(crate) value: &'a str,
}

/// The members of an object, in order, duplicates included.
pub(crate) struct Members<'a>(pub(crate) Vec<Member<'a>>);

impl<'a> Members<'a> {
    /// Reads one level of an object; `None` if this is no object, or not JSON.
    pub(crate) fn read(json: &'a str) -> Option<Self> {
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
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
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
pub(crate) struct MembersOf<'a>(pub(crate) &'a str);

impl<'de> DeserializeSeed<'de> for MembersOf<'de> {
    type Value = Option<Members<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MembersOf<'de> {
    type Value = Option<Members<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Err(unusual())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(4);
        while let Some((Unescaped(name), value)) = map.next_entry::<_, &RawValue>()? {
            let inside = span(self.0, name);
            let key = self.0.get(inside.start.saturating_sub(1)..inside.end + 1).unwrap_or_default();
            members.push(Member { key, name: Cow::Borrowed(name), value: value.get() });
        }
        Ok(Some(Members(members)))
    }
}

/// A string without an escape sequence in it; any other is an error (after the parser has decoded it).
pub(crate) struct Unescaped<'a>(pub(crate) &'a str);

impl<'de> Deserialize<'de> for Unescaped<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Unescaped<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string without escape sequences")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Unescaped(text))
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
                Err(unusual())
            }
        }

        deserializer.deserialize_str(Read)
    }
}

/// The object in a text whose first name and last value these are.
pub(crate) fn object<'a>(text: &'a str, first: &str, last: &str) -> Option<&'a str> {
    let start = text[..span(text, first).start].rfind('{')?;
    let end = span(text, last).end;
    Some(&text[start..=end + text[end..].find('}')?])
}

/// The values of these names in an object, each as [`Members::get`] gives it; `None` if this is no object. It
/// costs less than reading every member, and chunks are read by the thousand.
pub(crate) fn pick<'a, const N: usize>(json: &'a str, names: [&str; N]) -> Option<[Option<&'a str>; N]> {
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
pub(crate) struct Pick<'n, const N: usize>(pub(crate) [&'n str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Pick<'_, N> {
    type Value = [Option<&'de str>; N];

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Pick<'_, N> {
    type Value = [Option<&'de str>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Err(unusual())
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
pub(crate) struct Position<'n>(pub(crate) &'n [&'n str]);

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

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
    fn a_million_levels_cost_no_stack() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        let object = format!("{{\"a\":{deep}}}");
        assert_eq!(Members::read(&object).unwrap().get("a").unwrap().len(), deep.len());
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
}
