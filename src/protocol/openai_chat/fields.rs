//! Members that grow delta by delta: of a message, of a content part, of a tool call.

use super::{
    budget::{Budget, Full},
    parts::Parts,
    raw::{self, Member, Object},
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
            Some(_) if raw::is_null(new.value) => Ok(()),
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
            Some(Value::Raw(value)) => raw::is_truthy(value),
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
        if join == Join::Parts && raw::is_array(json) {
            let mut parts = Parts::default();
            for part in raw::elements(json).unwrap_or_default() {
                parts.push_inner(part, budget)?;
            }
            return Ok(Self::Parts(parts));
        }
        budget.take(json.len())?;
        Ok(match join {
            Join::Text | Join::Parts if raw::is_string(json) => Self::Text(raw::interior(json).to_owned()),
            Join::List if raw::is_array(json) => Self::List(json[1..json.len() - 1].trim().to_owned()),
            _ => Self::Raw(json.to_owned()),
        })
    }

    fn merge(&mut self, json: &str, join: Join, budget: &mut Budget) -> Result<(), Full> {
        match (&mut *self, join) {
            (Self::Text(text), Join::Text | Join::Parts) if raw::is_string(json) => {
                let more = raw::interior(json);
                budget.take(more.len())?;
                text.push_str(more);
            }
            (Self::List(list), Join::List) if raw::is_array(json) => {
                let more = json[1..json.len() - 1].trim();
                budget.take(more.len() + 1)?;
                if !list.is_empty() && !more.is_empty() {
                    list.push(',');
                }
                list.push_str(more);
            }
            (Self::Parts(parts), Join::Parts) if raw::is_array(json) => {
                for part in raw::elements(json).unwrap_or_default() {
                    parts.push_inner(part, budget)?;
                }
            }
            (Self::Raw(old), Join::Deep) => {
                // All of the result counts, not only what is new in it: that bounds the work, too.
                budget.take(old.len().saturating_add(json.len()))?;
                *old = raw::merged(old, json);
            }
            _ => *self = Self::new(json, join, budget)?,
        }
        Ok(())
    }
}

/// Removes the first half of a surrogate pair from the end of a text whose other half will not come: strict
/// upstreams refuse a lone surrogate, and with it every later turn of the session.
pub(super) fn trim_cut(interior: &mut String) {
    const ESCAPE: usize = "\\ud83d".len();

    let Some(at) = interior.len().checked_sub(ESCAPE) else { return };
    let backslashes = interior.as_bytes()[..=at].iter().rev().take_while(|&&b| b == b'\\').count();
    let high = interior.get(at..).and_then(raw::unit).is_some_and(|unit| (0xD800..0xDC00).contains(&unit));
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
