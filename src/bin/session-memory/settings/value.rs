//! Types of settings: each is read from text, and shown as the same text.
//!
//! The library's own enums are settings, too: [`choice!`] gives each variant its word.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, str::FromStr, thread, time::Duration};

use bytesize::ByteSize;
use http::HeaderName;
use tower_session_memory::{
    Instructions, OnAppendError, OnDisconnect, OnLoadError, OnMissing, store::Durability,
};

/// A type that a setting may have.
pub(crate) trait Value: Sized {
    /// The name of a value in help texts.
    const PLACEHOLDER: &'static str;

    /// Whether a value may hold a password, which no error may repeat.
    const MAY_HOLD_SECRET: bool = false;

    /// Reads the one spelling that files, flags and environment variables share.
    fn parse(text: &str) -> Result<Self, String>;

    /// The value in that spelling.
    fn show(&self) -> String;
}

/// The word `none` is `None`.
impl<T: Value> Value for Option<T> {
    const PLACEHOLDER: &'static str = T::PLACEHOLDER;
    const MAY_HOLD_SECRET: bool = T::MAY_HOLD_SECRET;

    fn parse(text: &str) -> Result<Self, String> {
        if text == "none" { Ok(None) } else { T::parse(text).map(Some) }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), T::show)
    }
}

/// Separated by commas; `none` is the empty list.
impl<T: Value> Value for Vec<T> {
    const PLACEHOLDER: &'static str = T::PLACEHOLDER;
    const MAY_HOLD_SECRET: bool = T::MAY_HOLD_SECRET;

    fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::new());
        }
        text.split(',').map(|item| T::parse(item.trim())).collect()
    }

    fn show(&self) -> String {
        if self.is_empty() {
            return "none".to_owned();
        }
        self.iter().map(T::show).collect::<Vec<_>>().join(",")
    }
}

/// Implements [`Value`] by `FromStr` and `Display`.
macro_rules! by_display {
    ($($type:ty, $placeholder:literal, $expected:literal;)+) => {$(
        impl Value for $type {
            const PLACEHOLDER: &'static str = $placeholder;

            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("expected {}", $expected))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

by_display! {
    bool, "BOOL", "true or false";
    NonZeroUsize, "N", "a number above 0";
    SocketAddr, "ADDRESS", "an address and a port, such as 127.0.0.1:9090";
    HeaderName, "HEADER", "the name of a header";
}

impl Value for String {
    const PLACEHOLDER: &'static str = "NAME";

    fn parse(text: &str) -> Result<Self, String> {
        let fits = (1..=128).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !fits {
            return Err("expected 1 to 128 letters, digits, dots, dashes or underscores".to_owned());
        }
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    const PLACEHOLDER: &'static str = "FILE";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("expected a path".to_owned()) } else { Ok(text.into()) }
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for ByteSize {
    const PLACEHOLDER: &'static str = "SIZE";

    fn parse(text: &str) -> Result<Self, String> {
        match Self::from_str(text) {
            Ok(size) if size.as_u64() > 0 && usize::try_from(size.as_u64()).is_ok() => Ok(size),
            _ => Err("expected a size above 0, such as 32 MiB".to_owned()),
        }
    }

    fn show(&self) -> String {
        let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(unit, _)| self.as_u64().is_multiple_of(*unit)) {
            Some((unit, name)) => format!("{} {name}", self.as_u64() / unit),
            None => format!("{} B", self.as_u64()),
        }
    }
}

impl Value for Duration {
    const PLACEHOLDER: &'static str = "TIME";

    fn parse(text: &str) -> Result<Self, String> {
        let longest = Self::from_secs(100 * 365 * 24 * 60 * 60);
        match humantime::parse_duration(text) {
            Ok(time) if !time.is_zero() && time <= longest => Ok(time),
            _ => Err("expected a time above 0, such as 500ms, 2s or 5min".to_owned()),
        }
    }

    fn show(&self) -> String {
        const DAY: u64 = 24 * 60 * 60;
        let seconds = self.as_secs();
        if self.subsec_nanos() > 0 || seconds == 0 {
            return humantime::format_duration(*self).to_string();
        }
        match seconds {
            _ if seconds.is_multiple_of(DAY) => format!("{}days", seconds / DAY),
            _ if seconds.is_multiple_of(60) => format!("{}min", seconds / 60),
            _ => format!("{seconds}s"),
        }
    }
}

/// A number of threads; the number of cores by default.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Threads(Option<NonZeroUsize>);

impl Threads {
    pub(crate) fn count(self) -> NonZeroUsize {
        self.0.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
    }
}

impl Value for Threads {
    const PLACEHOLDER: &'static str = "N|cores";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "cores" => Ok(Self(None)),
            number => number.parse().map(|count| Self(Some(count))).map_err(|_| {
                "expected a number above 0, or `cores` for the number of this machine's cores".to_owned()
            }),
        }
    }

    fn show(&self) -> String {
        self.0.map_or_else(|| "cores".to_owned(), |count| count.to_string())
    }
}

impl Value for Durability {
    const PLACEHOLDER: &'static str = "LEVEL";

    fn parse(text: &str) -> Result<Self, String> {
        let levels = [Self::None, Self::Process, Self::AboutOneSecond, Self::Fsync, Self::Replicated];
        levels
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| "expected none, process, about-1s, fsync or replicated".to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A setting that is one of a few words.
pub(crate) trait Choice: Copy + PartialEq + 'static {
    /// Every choice, with its word.
    const WORDS: &'static [(&'static str, Self)];
}

macro_rules! choice {
    ($($type:ty { $($word:literal = $variant:ident),+ })+) => {$(
        impl Choice for $type {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }

        impl Value for $type {
            const PLACEHOLDER: &'static str = "WORD";

            fn parse(text: &str) -> Result<Self, String> {
                let found = Self::WORDS.iter().find(|(word, _)| *word == text);
                found.map(|(_, value)| *value).ok_or_else(|| {
                    let words: Vec<_> = Self::WORDS.iter().map(|(word, _)| *word).collect();
                    format!("expected one of: {}", words.join(", "))
                })
            }

            fn show(&self) -> String {
                let found = Self::WORDS.iter().find(|(_, value)| value == self);
                found.map_or("", |(word, _)| word).to_owned()
            }
        }
    )+};
}

choice! {
    OnMissing { "pass" = Pass, "issue" = Issue, "reject" = Reject }
    Instructions { "remember" = Remember, "client" = Client }
    OnLoadError { "reject" = Reject, "bypass" = Bypass }
    OnAppendError { "deliver" = Deliver, "cut" = Cut }
    OnDisconnect { "keep" = Keep, "discard" = Discard, "drain" = Drain }
    LogFormat { "text" = Text, "json" = Json }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// The source of the principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PrincipalFrom {
    Credential,
    Header(HeaderName),
    None,
}

impl Value for PrincipalFrom {
    const PLACEHOLDER: &'static str = "WHERE";

    fn parse(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("header:").map(HeaderName::from_str)) {
            ("credential", _) => Ok(Self::Credential),
            ("none", _) => Ok(Self::None),
            (_, Some(Ok(name))) => Ok(Self::Header(name)),
            _ => Err("expected credential, header:NAME or none".to_owned()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Credential => "credential".to_owned(),
            Self::Header(name) => format!("header:{name}"),
            Self::None => "none".to_owned(),
        }
    }
}

/// A filter of log lines.
#[derive(Debug, Clone)]
pub(crate) struct Filter(pub(crate) String);

impl Value for Filter {
    const PLACEHOLDER: &'static str = "FILTER";

    fn parse(text: &str) -> Result<Self, String> {
        match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err("expected a filter, such as info or session_memory=debug".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn same<T: Value>(text: &str) {
        let value = T::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(value.show(), text, "a value is shown as it is written");
    }

    #[test]
    fn values_are_shown_as_they_are_written() {
        same::<ByteSize>("3 GiB");
        same::<ByteSize>("1000 B");
        same::<Duration>("90s");
        same::<Duration>("250ms");
        same::<PrincipalFrom>("header:x-user");
        same::<Vec<HeaderName>>("x-a,x-b");
        same::<Option<Duration>>("none");
    }

    #[test]
    fn values_that_mean_nothing_are_refused() {
        assert!(ByteSize::parse("12 apples").is_err());
        assert!(ByteSize::parse("0").is_err());
        assert!(Duration::parse("5").is_err(), "a time without a unit is a guess");
        assert!(Duration::parse("0s").is_err());
    }
}
