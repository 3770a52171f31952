//! One setting's value: from a flag, else an environment variable, else the file, else the default.

use std::{ffi::OsString, fmt, marker::PhantomData};

use clap::ArgMatches;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::{
    row::{flag, variable},
    value::Value,
};

/// The source of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetBy {
    Default,
    File,
    Env,
    Flag,
}

impl fmt::Display for SetBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Env => "env",
            Self::Flag => "flag",
        })
    }
}

/// Error of a setting's source or value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("cannot read the configuration file {path}: {source}")]
    Unreadable { path: String, source: std::io::Error },
    #[error("in the configuration file {path}: {message}")]
    File { path: String, message: String },
    #[error("{place}: {message}")]
    Value { place: String, message: String },
}

/// Reads the environment.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The sources of values above the file.
pub(super) struct Pick<'a> {
    pub(super) env: Env<'a>,
    pub(super) flags: Option<&'a ArgMatches>,
}

impl Pick<'_> {
    /// The value of one setting; its source is added to `sources`.
    pub(super) fn one<T: Value>(
        &self,
        name: &str,
        default: &str,
        file: Option<T>,
        sources: &mut Vec<SetBy>,
    ) -> Result<T, SettingsError> {
        let (flag, variable) = (flag(name), variable(name));
        let shown = |text: &str| if T::MAY_HOLD_SECRET { "…".to_owned() } else { text.to_owned() };
        let (value, source) = if let Some(text) = self.flag(name) {
            (parse(&text, || format!("--{flag} {}", shown(&text)))?, SetBy::Flag)
        } else if let Some(text) = self.variable(&variable)? {
            (parse(&text, || format!("{variable}={}", shown(&text)))?, SetBy::Env)
        } else if let Some(value) = file {
            (value, SetBy::File)
        } else {
            (parse(default, || name.to_owned())?, SetBy::Default)
        };
        sources.push(source);
        Ok(value)
    }

    fn flag(&self, name: &str) -> Option<String> {
        let values: Vec<String> = self.flags?.get_many::<String>(name)?.cloned().collect();
        Some(values.join(","))
    }

    /// An empty variable counts as not set, since compose files leave one out that way.
    fn variable(&self, name: &str) -> Result<Option<String>, SettingsError> {
        let mut value = (self.env)(name);
        if value.is_none() && name == "SESSION_MEMORY_LOG" {
            value = (self.env)("RUST_LOG");
        }
        let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
        value.into_string().map(Some).map_err(|_| SettingsError::Value {
            place: name.to_owned(),
            message: "the value is not UTF-8".to_owned(),
        })
    }
}

fn parse<T: Value>(text: &str, place: impl FnOnce() -> String) -> Result<T, SettingsError> {
    T::parse(text).map_err(|message| SettingsError::Value { place: place(), message })
}

/// Reads a TOML value as the text that flags and variables use.
pub(super) fn from_toml<'de, D: Deserializer<'de>, T: Value>(input: D) -> Result<Option<T>, D::Error> {
    input.deserialize_any(Text(PhantomData)).map(Some)
}

struct Text<T>(PhantomData<T>);

impl<'de, T: Value> Visitor<'de> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string, a number, a boolean or a list of strings")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::parse(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
        self.visit_str(if value { "true" } else { "false" })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<T, A::Error> {
        let mut items: Vec<String> = Vec::new();
        while let Some(item) = list.next_element::<String>()? {
            if item.contains(',') {
                return Err(de::Error::custom("an item of a list holds a comma"));
            }
            items.push(item);
        }
        if items.is_empty() {
            items.push("none".to_owned());
        }
        self.visit_str(&items.join(","))
    }
}
