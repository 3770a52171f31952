//! Members that grow delta by delta: of a message, of a content part, of a tool call. A member may be a list of content
//! parts, which have members that grow.

use super::budget::{Budget, Full};
use crate::protocol::json::{
    members::{Member, Members},
    merge,
    text::{self, Object},
};

/// How a newer value joins an older one. Null never changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Join {
    /// Strings are appended; anything else replaces.
    Text,
    /// Arrays are appended; anything else replaces.
    List,
    /// An array of content parts is merged part by part; a string is appended; anything else replaces.
    Parts,
    /// Objects are merged member by member; anything else replaces.
    Deep,
    /// The newer value replaces.
    Replace,
}

/// Members in the order of their first appearance.
#[derive(Default)]
pub(super) struct Fields(Vec<Field>);

struct Field {
    key: String,
    name: String,
    value: Value,
}

enum Value {
    /// The inside of a string.
    Text(String),
    /// The inside of an array.
    List(String),
    Parts(Parts),
    Raw(String),
}

impl Fields {
    pub(super) fn merge(&mut self, new: &Member<'_>, join: Join, budget: &mut Budget) -> Result<(), Full> {
        match self.0.iter_mut().find(|field| field.name == new.name) {
            Some(_) if text::is_null(new.value) => Ok(()),
            Some(field) => field.value.merge(new.value, join, budget),
            None => {
                budget.entry(self.0.len())?;
                budget.take(new.key.len())?;
                let value = Value::new(new.value, join, budget)?;
                self.0.push(Field { key: new.key.to_owned(), name: new.name.clone().into_owned(), value });
                Ok(())
            }
        }
    }

    /// Whether this member is a string that holds something.
    pub(super) fn says(&self, name: &str) -> bool {
        match self.0.iter().find(|field| field.name == name).map(|field| &field.value) {
            Some(Value::Text(text)) => !text.is_empty(),
            Some(Value::Raw(value)) => text::is_truthy(value),
            Some(Value::List(_) | Value::Parts(_)) => true,
            None => false,
        }
    }

    /// Cuts from the end of every text what is half a character; see [`trim_cut`].
    pub(super) fn trim_cut(&mut self) {
        for field in &mut self.0 {
            match &mut field.value {
                Value::Text(text) => trim_cut(text),
                Value::Parts(parts) => parts.trim_cut(),
                Value::List(_) | Value::Raw(_) => {}
            }
        }
    }

    pub(super) fn write(&self, into: &mut Object) {
        for Field { key, value, .. } in &self.0 {
            match value {
                Value::Text(interior) => into.text(key, interior),
                Value::List(interior) => into.array(key, interior),
                Value::Parts(parts) => into.array(key, &parts.interior()),
                Value::Raw(json) => into.member(key, json),
            }
        }
    }
}

impl Value {
    fn new(json: &str, join: Join, budget: &mut Budget) -> Result<Self, Full> {
        if join == Join::Parts && text::is_array(json) {
            let mut parts = Parts::default();
            for part in text::elements(json).unwrap_or_default() {
                parts.push_inner(part, budget)?;
            }
            return Ok(Self::Parts(parts));
        }
        budget.take(json.len())?;
        Ok(match join {
            Join::Text | Join::Parts if text::is_string(json) => Self::Text(text::interior(json).to_owned()),
            Join::List if text::is_array(json) => Self::List(json[1..json.len() - 1].trim().to_owned()),
            _ => Self::Raw(json.to_owned()),
        })
    }

    fn merge(&mut self, json: &str, join: Join, budget: &mut Budget) -> Result<(), Full> {
        match (&mut *self, join) {
            (Self::Text(text), Join::Text | Join::Parts) if text::is_string(json) => {
                let more = text::interior(json);
                budget.take(more.len())?;
                text.push_str(more);
            }
            (Self::List(list), Join::List) if text::is_array(json) => {
                let more = json[1..json.len() - 1].trim();
                budget.take(more.len() + 1)?;
                if !list.is_empty() && !more.is_empty() {
                    list.push(',');
                }
                list.push_str(more);
            }
            (Self::Parts(parts), Join::Parts) if text::is_array(json) => {
                for part in text::elements(json).unwrap_or_default() {
                    parts.push_inner(part, budget)?;
                }
            }
            (Self::Raw(old), Join::Deep) => {
                // All of the result counts, not only what is new in it: that bounds the work, too.
                budget.take(old.len().saturating_add(json.len()))?;
                *old = merge::merged(old, json);
            }
            _ => *self = Self::new(json, join, budget)?,
        }
        Ok(())
    }
}

/// Content as a list of parts (Mistral's thinking models): adjacent texts become one, adjacent thoughts, too.
#[derive(Default)]
pub(super) struct Parts(Vec<Part>);

struct Part {
    kind: String,
    fields: Fields,
}

impl Parts {
    /// Adds a part as it was sent.
    pub(super) fn push(&mut self, part: &str, budget: &mut Budget) -> Result<(), Full> {
        self.push_with(part, Join::Parts, budget)
    }

    /// Adds a part of a part. Its own parts are kept as they are: no provider nests deeper, and recursion has an
    /// end.
    pub(super) fn push_inner(&mut self, part: &str, budget: &mut Budget) -> Result<(), Full> {
        self.push_with(part, Join::List, budget)
    }

    fn push_with(&mut self, part: &str, thinking: Join, budget: &mut Budget) -> Result<(), Full> {
        let members = match Members::read(part) {
            Some(members) => members.0,
            // A bare string stands for a text part.
            None if text::is_string(part) => return self.push_text(part, budget),
            None => return Ok(()),
        };
        let kind = members.iter().rev().find(|member| member.name == "type").map(|m| text::decode(m.value));
        let kind = kind.unwrap_or_default().into_owned();
        let merges = matches!(&*kind, "text" | "thinking");
        if !(merges && self.0.last().is_some_and(|last| last.kind == kind)) {
            budget.part()?;
            self.0.push(Part { kind: kind.clone(), fields: Fields::default() });
        }
        let Some(Part { fields, .. }) = self.0.last_mut() else { return Ok(()) };
        for member in &members {
            let join = match (&*kind, &*member.name) {
                ("text", "text") => Join::Text,
                ("thinking", "thinking") => thinking,
                _ => Join::Replace,
            };
            fields.merge(member, join, budget)?;
        }
        Ok(())
    }

    /// Adds text that came as a string.
    pub(super) fn push_text(&mut self, literal: &str, budget: &mut Budget) -> Result<(), Full> {
        if text::interior(literal).is_empty() {
            return Ok(());
        }
        self.push(&format!(r#"{{"type":"text","text":{literal}}}"#), budget)
    }

    /// Whether anything but thoughts and empty text is among the parts.
    pub(super) fn says_something(&self) -> bool {
        self.0.iter().any(|part| match &*part.kind {
            "text" => part.fields.says("text"),
            "thinking" => false,
            _ => true,
        })
    }

    pub(super) fn trim_cut(&mut self) {
        for part in &mut self.0 {
            part.fields.trim_cut();
        }
    }

    /// The parts as JSON, joined by commas.
    pub(super) fn interior(&self) -> String {
        let mut joined = String::new();
        for part in &self.0 {
            if !joined.is_empty() {
                joined.push(',');
            }
            let mut object = Object::default();
            part.fields.write(&mut object);
            joined.push_str(&object.end());
        }
        joined
    }
}

/// Removes the first half of a surrogate pair from the end of a text whose other half will not come: strict
/// upstreams refuse a lone surrogate, and with it every later turn of the session.
pub(super) fn trim_cut(interior: &mut String) {
    const ESCAPE: usize = "\\ud83d".len();

    let Some(at) = interior.len().checked_sub(ESCAPE) else { return };
    let backslashes = interior.as_bytes()[..=at].iter().rev().take_while(|&&b| b == b'\\').count();
    let high = interior.get(at..).and_then(text::unit).is_some_and(|unit| (0xD800..0xDC00).contains(&unit));
    if high && backslashes % 2 == 1 {
        interior.truncate(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_character_is_cut_from_a_text_that_ends_in_it_and_nothing_else_is() {
        for (text, left) in [
            (r"a\ud83d", "a"),
            (r"a\ud83d\ude00", r"a\ud83d\ude00"),
            (r"a\\ud83d", r"a\\ud83d"),
            (r"a\\\uDBFF", r"a\\"),
            (r"a\u00e9", r"a\u00e9"),
            ("\u{e9}ud83d", "\u{e9}ud83d"),
            ("", ""),
        ] {
            let mut cut = text.to_owned();
            trim_cut(&mut cut);
            assert_eq!(cut, left, "{text}");
        }
    }
}
