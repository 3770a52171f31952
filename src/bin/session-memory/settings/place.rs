//! Settings that name a place: the listener's address, the upstream's URL, the store's URL.
//!
//! A store's URL may hold a password, and an upstream's must not: neither is ever shown or quoted with one.

use std::path::PathBuf;

use http::{Uri, uri::Scheme};
use secrecy::SecretString;
use tower_session_memory::store::redis::{InvalidRedisUrl, RedisUrl};

use super::value::Value;

/// Address of a listener, or a name that resolves to one.
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
    /// Whether the URL plainly names the address of `listen`. A name that resolves to it goes unnoticed.
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

/// URL of a store.
#[derive(Debug, Clone)]
pub(crate) enum StoreUrl {
    Memory,
    Sqlite(PathBuf),
    /// The URL as written, with its password, and parsed.
    Redis(SecretString, Box<RedisUrl>),
    Postgres(SecretUrl),
}

/// A URL that may hold a password, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretUrl(String);

impl SecretUrl {
    /// The URL with everything in it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Host, port and path, unless the URL could be read in two ways.
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
            // `//NAME` would be a host, or a file in the root directory.
            Some(("sqlite", path)) if path.starts_with("//") && !path.starts_with("///") => {
                Err(format!("expected sqlite:PATH, such as sqlite:{}", path.trim_start_matches('/')))
            }
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            Some((scheme, _)) if scheme.starts_with("redis") || scheme == "unix" => {
                let url = text.parse().map(Box::new).map_err(|error: InvalidRedisUrl| error.to_string())?;
                Ok(Self::Redis(text.into(), url))
            }
            // The store itself checks the rest, and never quotes the URL.
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

/// End of a path.
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

/// Origin, as browsers write it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_shown_as_they_are_written() {
        assert_eq!(
            StoreUrl::parse("sqlite:/var/lib/a b.db").map(|it| it.show()).as_deref(),
            Ok("sqlite:/var/lib/a b.db")
        );
        assert_eq!(Vec::<PathSuffix>::parse("/a,/b").map(|it| it.show()).as_deref(), Ok("/a,/b"));
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
    fn places_that_mean_nothing_are_refused() {
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
