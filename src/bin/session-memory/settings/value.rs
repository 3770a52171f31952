//! The types of settings: each is read from text, and written as the same text.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, str::FromStr, thread, time::Duration};

use bytesize::ByteSize;
use http::{HeaderName, Uri, uri::Scheme};
use secrecy::SecretString;
use tower_session_memory::store::{
    Durability,
    redis::{InvalidRedisUrl, RedisUrl},
};

/// A type that a setting may have.
pub(crate) trait Value: Sized {
    /// What help texts call a value.
    const PLACEHOLDER: &'static str;

    /// Whether a value may hold a password, so that no error repeats it.
    const MAY_HOLD_SECRET: bool = false;

    /// Reads the one spelling that files, flags and environment variables share.
    fn parse(text: &str) -> Result<Self, String>;

    /// The value in that spelling.
    fn show(&self) -> String;
}

/// `none` is none.
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

/// How many threads; as many as there are cores unless it says otherwise.
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
                "expected a number above 0, or `cores` for as many as this machine has".to_owned()
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
    ($($(#[$doc:meta])* $type:ident { $($word:literal = $variant:ident),+ })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $type { $($variant),+ }

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
    /// What happens to a request without a session id.
    MissingSession { "pass" = Pass, "issue" = Issue, "reject" = Reject }
    /// Whether instructions are stored.
    RememberInstructions { "remember" = Remember, "client" = Client }
    /// What happens when a session cannot be loaded.
    OnLoad { "reject" = Reject, "bypass" = Bypass }
    /// What happens when a turn cannot be stored in time.
    OnAppend { "deliver" = Deliver, "cut" = Cut }
    /// What happens when a client leaves.
    OnDrop { "keep" = Keep, "discard" = Discard, "drain" = Drain }
    /// How log lines look.
    LogFormat { "text" = Text, "json" = Json }
}

/// Where to listen: an address, or a name that resolves to one.
#[derive(Debug, Clone)]
pub(crate) struct Listen(pub(crate) String);

impl Value for Listen {
    const PLACEHOLDER: &'static str = "ADDRESS";

    fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').unwrap_or_default();
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err("expected an address and a port, such as 127.0.0.1:8080".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// The base URL of the upstream.
#[derive(Debug, Clone)]
pub(crate) struct UpstreamUrl(pub(crate) Uri);

impl UpstreamUrl {
    /// Whether it plainly names the place where `listen` listens. (A name that resolves to it goes unnoticed.)
    pub(crate) fn is_at(&self, listen: &str) -> bool {
        let here = |host: &str| ["localhost", "127.0.0.1", "[::1]", "0.0.0.0", "[::]"].contains(&host);
        let (host, port) = listen.rsplit_once(':').unwrap_or_default();
        let default = if self.0.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let (own_host, own_port) = (self.0.host().unwrap_or_default(), self.0.port_u16().unwrap_or(default));
        let same_host = own_host == host || (here(own_host) && here(host));
        same_host && own_port > 0 && port.parse() == Ok(own_port)
    }
}

impl Value for UpstreamUrl {
    const PLACEHOLDER: &'static str = "URL";
    const MAY_HOLD_SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let expected = || "expected a URL, such as http://127.0.0.1:11434 or https://host/prefix".to_owned();
        let uri: Uri = text.parse().map_err(|_| expected())?;
        let known = [&Scheme::HTTP, &Scheme::HTTPS].into_iter().any(|known| uri.scheme() == Some(known));
        let Some(authority) = uri.authority().filter(|authority| known && !authority.host().is_empty())
        else {
            return Err(expected());
        };
        if authority.as_str().contains('@') {
            return Err("a URL with a user or a password is not taken: clients send their own".to_owned());
        }
        if uri.query().is_some() {
            return Err("a URL with a query is not taken".to_owned());
        }
        Ok(Self(uri))
    }

    fn show(&self) -> String {
        self.0.to_string().trim_end_matches('/').to_owned()
    }
}

/// Which store.
#[derive(Debug, Clone)]
pub(crate) enum StoreUrl {
    Memory,
    Sqlite(PathBuf),
    /// As it was written, with its password.
    Redis(SecretString, Box<RedisUrl>),
    Postgres(SecretUrl),
}

/// A URL that may hold a password: no part that may is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretUrl(String);

impl SecretUrl {
    /// The URL with everything in it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Host, port and path; nothing of a URL that could be read in two ways.
    fn redacted(&self) -> String {
        let uri: Option<Uri> = self.0.parse().ok();
        let marks = |text: &str| text.matches('@').count();
        match uri.as_ref().and_then(|uri| Some((uri, uri.authority()?))) {
            Some((uri, authority)) if marks(&self.0) <= 1 && marks(&self.0) == marks(authority.as_str()) => {
                let port = authority.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
                format!("postgres://{}{port}{}", authority.host(), uri.path().trim_end_matches('/'))
            }
            _ => "postgres://…".to_owned(),
        }
    }
}

impl std::fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl Value for StoreUrl {
    const PLACEHOLDER: &'static str = "STORE";
    const MAY_HOLD_SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            // The first part of `//NAME` would be a host, and without one it is a path that nobody meant.
            Some(("sqlite", path)) if path.starts_with("//") && !path.starts_with("///") => {
                Err(format!("expected sqlite:PATH, such as sqlite:{}", path.trim_start_matches('/')))
            }
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            Some((scheme, _)) if scheme.starts_with("redis") || scheme == "unix" => {
                let url = text.parse().map(Box::new).map_err(|error: InvalidRedisUrl| error.to_string())?;
                Ok(Self::Redis(text.into(), url))
            }
            // What else is wrong with it the store says, without repeating it.
            Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => {
                Ok(Self::Postgres(SecretUrl(text.to_owned())))
            }
            _ => Err("expected sqlite:PATH, the URL of a Redis or a PostgreSQL, or memory".to_owned()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Memory => "memory".to_owned(),
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Redis(_, url) => url.to_string(),
            Self::Postgres(url) => url.redacted(),
        }
    }
}

/// Where the principal comes from.
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

/// The end of a path.
#[derive(Debug, Clone)]
pub(crate) struct PathSuffix(pub(crate) String);

impl Value for PathSuffix {
    const PLACEHOLDER: &'static str = "SUFFIX";

    fn parse(text: &str) -> Result<Self, String> {
        let fits = text.len() > 1 && text.starts_with('/') && !text.contains(['?', '#', ' ']);
        if !fits {
            return Err("expected the end of a path, such as /chat/completions".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// An origin, as browsers write it.
#[derive(Debug, Clone)]
pub(crate) struct Origin(pub(crate) String);

impl Value for Origin {
    const PLACEHOLDER: &'static str = "ORIGIN";

    fn parse(text: &str) -> Result<Self, String> {
        let uri: Option<Uri> = text.parse().ok();
        match uri {
            Some(uri) if uri.scheme().is_some() && uri.path() == "/" && !text.ends_with('/') => {
                Ok(Self(text.to_ascii_lowercase()))
            }
            _ => Err("expected an origin, such as https://app.example".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Which log lines are written.
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
        same::<StoreUrl>("sqlite:/var/lib/a b.db");
        same::<PrincipalFrom>("header:x-user");
        same::<Vec<PathSuffix>>("/a,/b");
        same::<Option<Duration>>("none");
    }

    #[test]
    fn the_password_of_a_store_is_never_shown() {
        let text = "rediss-sentinel://me:s3cret@a,b/main/2?sentinel_password=s3cret";
        let value = StoreUrl::parse(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(value.show(), "rediss-sentinel://a:26379,b:26379/main/2");
        assert!(!format!("{value:?}").contains("s3cret"));
        let error = StoreUrl::parse("redis://me:s3cret@host:port").err();
        assert!(error.is_some_and(|error| !error.contains("s3cret")), "it is refused, and not quoted");
    }

    #[test]
    fn an_upstream_that_is_the_proxy_itself_is_noticed() {
        let at = |url, listen| UpstreamUrl::parse(url).is_ok_and(|url| url.is_at(listen));
        assert!(at("http://127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(at("http://localhost:8080/v1", "0.0.0.0:8080"));
        assert!(at("http://[::1]", "[::]:80"));
        assert!(!at("http://127.0.0.1:8081", "127.0.0.1:8080"));
        assert!(!at("http://10.0.0.1:8080", "127.0.0.1:8080"));
    }

    #[test]
    fn a_password_in_a_stores_url_is_never_shown() {
        for (url, shown) in [
            ("postgres://me:hunter2@db.example:5433/app?sslmode=require", "postgres://db.example:5433/app"),
            ("postgresql://db/app?password=hunter2&user=me", "postgres://db/app"),
            ("postgres://me:hunter2@h@db/app", "postgres://…"),
            ("postgres://me:hun/ter2@db/app", "postgres://…"),
            ("postgres://me:hun?ter2@db/app", "postgres://…"),
            ("postgres://me@a:1,b:2/app", "postgres://…"),
        ] {
            let store = StoreUrl::parse(url).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(store.show(), shown);
            assert!(!format!("{store:?}").contains("hunter2"), "{store:?}");
        }
    }

    #[test]
    fn values_that_mean_nothing_are_refused() {
        assert!(ByteSize::parse("12 apples").is_err());
        assert!(ByteSize::parse("0").is_err());
        assert!(Duration::parse("5").is_err(), "a time without a unit is a guess");
        assert!(Duration::parse("0s").is_err());
        assert!(StoreUrl::parse("mysql://localhost").is_err());
        assert!(StoreUrl::parse("redis://").is_err());
        assert!(StoreUrl::parse("postgres:hunter2").is_err_and(|error| !error.contains("hunter2")));
        assert!(StoreUrl::parse("sqlite:").is_err());
        assert!(StoreUrl::parse("sqlite://s.db").is_err(), "that would be a file in the root directory");
        assert!(UpstreamUrl::parse("ftp://host").is_err());
        assert!(UpstreamUrl::parse("localhost:8080").is_err());
        assert!(UpstreamUrl::parse("http://user:secret@host").is_err());
        assert!(PathSuffix::parse("/").is_err(), "every path would be a chat");
        assert!(Origin::parse("https://app.example/path").is_err());
        assert!(Listen::parse("8080").is_err());
    }
}
