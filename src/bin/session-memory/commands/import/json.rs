//! Reads values of the source without changing them.

use serde_json::value::RawValue;

use super::chat::{Json, json};

/// The string that this value is, if UTF-8 can hold it.
pub(super) fn string(value: Option<&RawValue>) -> Option<String> {
    read(value)
}

/// The elements of the array that this value is.
pub(super) fn elements(value: Option<&RawValue>) -> Option<Vec<&RawValue>> {
    read(value)
}

/// This value as another type, if it is of that type.
pub(super) fn read<'a, T: serde::Deserialize<'a>>(value: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(value?.get()).ok()
}

pub(super) fn is_string(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

pub(super) fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// The value, unless it is null.
pub(super) fn given(value: Option<&RawValue>) -> Option<&RawValue> {
    value.filter(|value| !is_null(value))
}

/// Whether this value is empty: absent, null, `""`, `[]` or `{}`.
pub(super) fn is_empty(value: Option<&RawValue>) -> bool {
    let Some(value) = value else { return true };
    let ends: String = value.get().chars().filter(|c| !c.is_ascii_whitespace()).take(3).collect();
    matches!(value.get(), "null" | "\"\"") || matches!(ends.as_str(), "[]" | "{}")
}

/// The arguments of a call as a string literal: a string stays, another value becomes one, none is `"{}"`.
pub(super) fn arguments(value: Option<&RawValue>) -> Json {
    match value {
        Some(value) if is_string(value) => value.to_owned(),
        Some(value) => json(value.get()),
        None => json("{}"),
    }
}
