//! JSON that is taken over, not rewritten: text goes into a message with the bytes it had in the source.

use serde_json::value::RawValue;

/// An object under construction.
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self("{".to_owned())
    }

    /// A member whose value is JSON already.
    pub(super) fn raw(mut self, name: &str, value: &str) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&quoted(name));
        self.0.push(':');
        self.0.push_str(value);
        self
    }

    /// A member with a string.
    pub(super) fn text(self, name: &str, value: &str) -> Self {
        self.raw(name, &quoted(value))
    }

    /// The member, if there is a value that is not null.
    pub(super) fn maybe(self, name: &str, value: Option<&RawValue>) -> Self {
        match value.filter(|value| !is_null(value)) {
            Some(value) => self.raw(name, value.get()),
            None => self,
        }
    }

    pub(super) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// An array of what is JSON already.
pub(super) fn array<S: AsRef<str>>(items: &[S]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    format!("[{}]", items.join(","))
}

/// A string as JSON.
pub(super) fn quoted(text: &str) -> String {
    // Writing a string into memory cannot fail.
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}

/// The string that this is, if it is one that UTF-8 can hold.
pub(super) fn string(value: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(value?.get()).ok()
}

/// The elements of the array that this is.
pub(super) fn elements(value: Option<&RawValue>) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value?.get()).ok()
}

/// This value read as something else, if it can be.
pub(super) fn read<'a, T: serde::Deserialize<'a>>(value: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(value?.get()).ok()
}

pub(super) fn is_string(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

pub(super) fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// Whether it holds nothing: absent, null, `""`, `[]` or `{}`.
pub(super) fn is_empty(value: Option<&RawValue>) -> bool {
    let Some(value) = value else { return true };
    let ends: String = value.get().chars().filter(|c| !c.is_ascii_whitespace()).take(3).collect();
    matches!(value.get(), "null" | "\"\"") || matches!(ends.as_str(), "[]" | "{}")
}

/// JSON inside a string, as tool calls carry their arguments.
pub(super) fn in_string(value: &RawValue) -> String {
    quoted(value.get())
}
