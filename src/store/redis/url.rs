//! URLs of Redis stores.
//!
//! Read by hand, since the crates `url` and `redis` read one host: the schemes of Cluster and Sentinel name several, and no
//! error may quote a password. Without it: one URL for each server. Held by the tests below.

use std::{borrow::Cow, fmt, path::PathBuf, str::FromStr};

use percent_encoding::percent_decode_str;

/// Address of a [`RedisStore`](super::RedisStore), with its user and settings.
///
/// | URL | |
/// |---|---|
/// | `redis://[user:password@]host[:6379][/db]` | one server |
/// | `unix:/path/to/socket`, `unix://[user:password@]/path` | one server, by its socket |
/// | `redis-cluster://[user:password@]h1[:6379],h2,h3` | a Cluster; any of its nodes are enough to find the others |
/// | `redis-sentinel://[user:password@]h1[:26379],h2/master[/db]` | the server that the sentinels name; user and password are the server's |
///
/// `rediss://`, `rediss-cluster://` and `rediss-sentinel://` are the same over TLS, with the feature `redis-tls`. A query adds settings:
/// `prefix=NAME`, `tls_ca=FILE`, `tls_cert=FILE`, `tls_key=FILE`, `wait_replicas=N`, `sentinel_user=NAME`,
/// `sentinel_password=WORD`. Anything but letters and digits in a user or a password may be written as `%XX`.
///
/// `Display` and `Debug` leave out user, passwords and query: `redis://secret@host` is easily written for
/// `redis://:secret@host`.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    pub(super) place: Deployment,
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) db: i64,
    pub(super) query: Query,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Deployment {
    Server(Host),
    Socket(PathBuf),
    Cluster(Vec<Host>),
    Sentinel { sentinels: Vec<Host>, master: String },
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
}

#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Query {
    pub(super) prefix: Option<String>,
    pub(super) tls_ca: Option<PathBuf>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) wait_replicas: Option<u8>,
    pub(super) sentinel_user: Option<String>,
    pub(super) sentinel_password: Option<String>,
}

/// Why a text is no [`RedisUrl`]. It quotes nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRedisUrl {
    /// None of the schemes that there are.
    #[error(
        "the URL of a Redis store begins with redis://, rediss://, unix:, redis-cluster:// or redis-sentinel://"
    )]
    Scheme,
    /// A host or port is missing or cannot be read.
    #[error("the URL of the Redis store names no host, or a port that is no number")]
    Host,
    /// A path that is no database number, or a Cluster with a database.
    #[error("the URL of the Redis store ends in something that is no database number")]
    Database,
    /// A Sentinel URL without the name of the master.
    #[error("the URL of the Redis store names no master: redis-sentinel://host/master-name")]
    Master,
    /// A `%` that no two hex digits follow.
    #[error("the URL of the Redis store holds a % that no two hex digits follow")]
    Escape,
    /// A setting that there is not, or a value that it does not take.
    #[error(
        "the query of the Redis store's URL holds a setting or a value that is not known; \
         there are prefix, tls_ca, tls_cert, tls_key, wait_replicas, sentinel_user and sentinel_password"
    )]
    Query,
}

impl FromStr for RedisUrl {
    type Err = InvalidRedisUrl;

    fn from_str(text: &str) -> Result<Self, InvalidRedisUrl> {
        let (scheme, rest) = text.split_once(':').ok_or(InvalidRedisUrl::Scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let query = Query::parse(query)?;
        if scheme == "unix" {
            return socket(rest, query);
        }
        let rest = rest.strip_prefix("//").ok_or(InvalidRedisUrl::Scheme)?;
        let (tls, kind) = match scheme {
            "redis" | "rediss" => (scheme.len() == 6, ""),
            _ => match scheme.split_once('-') {
                Some((redis @ ("redis" | "rediss"), kind)) => (redis.len() == 6, kind),
                _ => return Err(InvalidRedisUrl::Scheme),
            },
        };
        let (user, password, rest) = credentials(rest)?;
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (place, db) = match kind {
            "" => (Deployment::Server(host(hosts, 6379)?), path),
            "cluster" => (Deployment::Cluster(all(hosts, 6379)?), path),
            "sentinel" => {
                let (master, db) = path.split_once('/').unwrap_or((path, ""));
                let master = unescape(master)?;
                if master.is_empty() {
                    return Err(InvalidRedisUrl::Master);
                }
                (Deployment::Sentinel { sentinels: all(hosts, 26379)?, master }, db)
            }
            _ => return Err(InvalidRedisUrl::Scheme),
        };
        let db = database(db)?;
        if db != 0 && matches!(place, Deployment::Cluster(_)) {
            return Err(InvalidRedisUrl::Database);
        }
        Ok(Self { place, tls, user, password, db, query })
    }
}

fn socket(rest: &str, query: Query) -> Result<RedisUrl, InvalidRedisUrl> {
    let (user, password, path) = match rest.strip_prefix("//") {
        Some(rest) => credentials(rest)?,
        None => (None, None, rest),
    };
    if path.is_empty() {
        return Err(InvalidRedisUrl::Host);
    }
    Ok(RedisUrl { place: Deployment::Socket(path.into()), tls: false, user, password, db: 0, query })
}

type Credentials<'a> = (Option<String>, Option<String>, &'a str);

fn credentials(rest: &str) -> Result<Credentials<'_>, InvalidRedisUrl> {
    let Some((who, rest)) = rest.rsplit_once('@') else { return Ok((None, None, rest)) };
    let (user, password) = who.split_once(':').unwrap_or((who, ""));
    let given = |text: &str| unescape(text).map(|text| Some(text).filter(|text| !text.is_empty()));
    Ok((given(user)?, given(password)?, rest))
}

fn all(hosts: &str, port: u16) -> Result<Vec<Host>, InvalidRedisUrl> {
    hosts.split(',').map(|text| host(text, port)).collect()
}

/// A name or an address; one of IPv6 stands in brackets.
fn host(text: &str, port: u16) -> Result<Host, InvalidRedisUrl> {
    let (name, rest) = match text.strip_prefix('[') {
        Some(text) => text.split_once(']').ok_or(InvalidRedisUrl::Host)?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().map_err(|_| InvalidRedisUrl::Host)?,
        None if rest.is_empty() => port,
        None => return Err(InvalidRedisUrl::Host),
    };
    if name.is_empty() || name.contains(['/', ' ', '@']) {
        return Err(InvalidRedisUrl::Host);
    }
    Ok(Host { name: name.to_owned(), port })
}

fn database(text: &str) -> Result<i64, InvalidRedisUrl> {
    match text {
        "" => Ok(0),
        _ => text.parse::<u16>().map(i64::from).map_err(|_| InvalidRedisUrl::Database),
    }
}

impl Query {
    fn parse(text: &str) -> Result<Self, InvalidRedisUrl> {
        let mut query = Self::default();
        for setting in text.split('&').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').ok_or(InvalidRedisUrl::Query)?;
            let value = unescape(value)?;
            match name {
                "prefix" => query.prefix = Some(value),
                "tls_ca" => query.tls_ca = Some(value.into()),
                "tls_cert" => query.tls_cert = Some(value.into()),
                "tls_key" => query.tls_key = Some(value.into()),
                "wait_replicas" => {
                    query.wait_replicas = Some(value.parse().map_err(|_| InvalidRedisUrl::Query)?);
                }
                "sentinel_user" => query.sentinel_user = Some(value),
                "sentinel_password" => query.sentinel_password = Some(value),
                _ => return Err(InvalidRedisUrl::Query),
            }
        }
        Ok(query)
    }
}

fn unescape(text: &str) -> Result<String, InvalidRedisUrl> {
    // `percent_encoding` leaves a % that means nothing as it is.
    let is_escape = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !text.split('%').skip(1).all(is_escape) {
        return Err(InvalidRedisUrl::Escape);
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| InvalidRedisUrl::Escape)
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        match &self.place {
            Deployment::Socket(path) => return write!(f, "unix:{}", path.display()),
            Deployment::Server(host) => write!(f, "{scheme}://{host}")?,
            Deployment::Cluster(hosts) => write!(f, "{scheme}-cluster://{}", joined(hosts))?,
            Deployment::Sentinel { sentinels, master } => {
                write!(f, "{scheme}-sentinel://{}/{master}", joined(sentinels))?;
            }
        }
        if self.db != 0 { write!(f, "/{}", self.db) } else { Ok(()) }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = self.name.contains(':');
        let (open, close) = if brackets { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.name, self.port)
    }
}

fn joined(hosts: &[Host]) -> String {
    hosts.iter().map(Host::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<RedisUrl>().map_err(|error| format!("{text}: {error}")).unwrap().to_string()
    }

    #[test]
    fn a_url_is_shown_without_user_and_passwords() {
        assert_eq!(shown("redis://localhost"), "redis://localhost:6379");
        assert_eq!(shown("rediss://me:p%40ss@[::1]:7000/3"), "rediss://[::1]:7000/3");
        assert_eq!(shown("unix:/run/redis.sock"), "unix:/run/redis.sock");
        assert_eq!(shown("unix://:secret@/run/redis.sock"), "unix:/run/redis.sock");
        assert_eq!(shown("redis-cluster://:p@a,b:7001"), "redis-cluster://a:6379,b:7001");
        assert_eq!(
            shown("rediss-sentinel://u:p@a,b:1/main/2?sentinel_password=secret"),
            "rediss-sentinel://a:26379,b:1/main/2"
        );
        let url: RedisUrl = "redis://me:p%40s:s@h".parse().unwrap();
        assert_eq!(url.password.as_deref(), Some("p@s:s"));
        assert!(!format!("{url:?}").contains("s:s"), "Debug is for logs");
    }

    #[test]
    fn a_url_that_means_nothing_is_refused_without_being_quoted() {
        for text in [
            "",
            "redis",
            "redis:host",
            "http://host",
            "redis-cluster:a",
            "redis-other://a",
            "redis://",
            "redis://:secret@",
            "redis://h:port",
            "redis://h:70000",
            "redis://[::1",
            "redis://h/x",
            "redis-cluster://a,b/1",
            "redis-cluster://a,,b",
            "redis-sentinel://a",
            "redis://secret%zz@h",
            "redis://h?secret=1",
            "redis://h?wait_replicas=many",
            "unix:",
        ] {
            let error = text.parse::<RedisUrl>().err();
            let error = error.unwrap_or_else(|| panic!("{text:?} means nothing"));
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
