//! What stands around a message in a reply or a chunk: read in one pass, since chunks are read by the thousand.

use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::raw;

/// A `chat.completion` or a chunk of one. A member that is null counts as absent.
pub(super) struct Envelope<'a> {
    pub(super) error: Option<&'a str>,
    pub(super) model: Option<&'a str>,
    pub(super) usage: Option<&'a str>,
    /// `None` where there is something else than a list.
    pub(super) choices: Option<Vec<Choice<'a>>>,
}

/// `None` for an element that is no object.
pub(super) type Choice<'a> = Option<Picked<'a, 3>>;

type Picked<'a, const N: usize> = [Option<&'a str>; N];

const MEMBERS: [&str; 4] = ["choices", "error", "model", "usage"];

impl<'a> Envelope<'a> {
    /// Reads an object; `None` if this is none. Of each choice it takes `index`, `finish_reason` and the member of
    /// this name.
    pub(super) fn read(json: &'a str, said: &'static str) -> Option<Self> {
        let members = ["index", "finish_reason", said];
        Self::at_once(json, members).or_else(|| Self::step_by_step(json, members))
    }

    fn at_once(json: &'a str, members: [&str; 3]) -> Option<Self> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let envelope = Whole(members).deserialize(&mut deserializer).ok()?;
        deserializer.end().ok()?;
        Some(envelope)
    }

    /// What is not as it should be is read as far as it can be.
    fn step_by_step(json: &'a str, members: [&str; 3]) -> Option<Self> {
        let [choices, error, model, usage] = raw::pick(json, MEMBERS)?;
        let choices = choices.filter(|choices| !raw::is_null(choices)).unwrap_or("[]");
        let choices = raw::elements(choices)
            .map(|choices| choices.into_iter().map(|choice| raw::pick(choice, members)).collect());
        Some(Self { error, model, usage, choices })
    }
}

struct Whole<'n>([&'n str; 3]);

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = Envelope<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut envelope = Envelope { error: None, model: None, usage: None, choices: Some(Vec::new()) };
        while let Some(at) = map.next_key_seed(raw::Position(&MEMBERS))? {
            let member = match at {
                Some(0) => {
                    envelope.choices = Some(map.next_value_seed(Choices(self.0))?);
                    continue;
                }
                Some(1) => &mut envelope.error,
                Some(2) => &mut envelope.model,
                Some(_) => &mut envelope.usage,
                None => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *member = Some(map.next_value::<&RawValue>()?.get());
        }
        Ok(envelope)
    }
}

struct Choices<'n>([&'n str; 3]);

impl<'de> DeserializeSeed<'de> for Choices<'_> {
    type Value = Vec<Choice<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Choices<'_> {
    type Value = Vec<Choice<'de>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut choices = Vec::new();
        while let Some(choice) = seq.next_element_seed(raw::Pick(self.0))? {
            choices.push(Some(choice));
        }
        Ok(choices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_reading_say_the_same() {
        let members = ["index", "finish_reason", "delta"];
        let mut at_once = 0;
        for json in [
            "{}",
            "[]",
            "1",
            r#"{"choices":null}"#,
            r#"{"choices":[]}"#,
            r#"{"choices":{}}"#,
            r#"{"choices":[1]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null},{"index":1}],"model":"m"}"#,
            r#"{"choices":[{"index":0}],"choices":[{"index":1,"index":2}],"error":null,"error":{"a":1}}"#,
            r#"{"usage":{"a":[1,2]},"x":[{"choices":[{"index":3}]}],"\u0063hoices":[{"delta":"e"}]}"#,
            r#"{"\ud800":1,"choices":[{"index":0}]}"#,
            r#"{"choices":[{"\ud800":1,"index":0}]}"#,
            r#"{"choices":[{"index":0}]} x"#,
            r#" { "choices" : [ { "index" : 1e999 } ] , "usage" : "u" } "#,
            r#"{"choices":[{"index":0]}"#,
        ] {
            let seen = |envelope: Option<Envelope<'_>>| {
                envelope.map(|Envelope { error, model, usage, choices }| {
                    format!(
                        "{:?} {model:?} {usage:?} {choices:?}",
                        error.filter(|error| !raw::is_null(error))
                    )
                })
            };
            let quick = seen(Envelope::at_once(json, members));
            at_once += usize::from(quick.is_some());
            if quick.is_some() {
                assert_eq!(quick, seen(Envelope::step_by_step(json, members)), "{json}");
            }
        }
        assert_eq!(at_once, 7, "what is as it should be is read at once");
    }
}
