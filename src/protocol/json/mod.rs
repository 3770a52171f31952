//! The one JSON toolkit: values stay the text that they were.
//!
//! Message content goes through neither `String` nor `serde_json::Value`: both refuse or change what providers send
//! (lone surrogates, 30-digit numbers, `1e999`, deep nesting, duplicate names). Skipping a value costs no stack, however
//! deep it is.
//!
//! | file | what it works on |
//! |---|---|
//! | `text.rs` | JSON text as `&str`: tests, slices, string literals, and the writer of objects |
//! | `value.rs` | [`RawValue`](serde_json::value::RawValue): members in their order, strings decoded to WTF-8 |
//! | `members.rs` | the members of one object, by name |
//! | `merge.rs` | two objects as one |
//! | `nesting.rs` | where an object ends whose bytes arrive in pieces |

pub(crate) mod members;
pub(crate) mod merge;
pub(crate) mod nesting;
pub(crate) mod text;
pub(crate) mod value;
