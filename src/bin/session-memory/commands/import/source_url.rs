//! URL of a source, as `--from` gives it.

use std::{path::PathBuf, str::FromStr};

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

/// A source of sessions.
#[derive(Debug)]
pub(super) enum SourceUrl {
    LangChainRedis(RedisUrl),
    AgentsRedis(RedisUrl),
    AgentsSqlite { path: PathBuf, table: String },
}

/// The URL of a Redis, and the settings of its query.
#[derive(Debug, Default)]
pub(super) struct RedisUrl {
    /// The URL without its query; it may hold a password.
    pub(super) server: SecretString,
    pub(super) prefix: Option<String>,
    pub(super) tls_ca: Option<PathBuf>,
}

impl FromStr for SourceUrl {
    type Err = &'static str;

    /// Parses a URL. No error quotes it, since it may hold a password.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("agents-sqlite:").filter(|path| !path.is_empty()) {
            let (path, table) = path.rsplit_once("?table=").unwrap_or((path, "agent_messages"));
            return Ok(Self::AgentsSqlite { path: path.into(), table: table.to_owned() });
        }
        if let Some(url) = text.strip_prefix("langchain-") {
            return Ok(Self::LangChainRedis(RedisUrl::read(url)?));
        }
        match text.strip_prefix("agents-") {
            Some(url) => Ok(Self::AgentsRedis(RedisUrl::read(url)?)),
            None => Err(EXPECTED),
        }
    }
}

const EXPECTED: &str = "expected langchain-redis://HOST, agents-redis://HOST or agents-sqlite:PATH";

impl RedisUrl {
    /// The URL without its query, with its password.
    pub(super) fn server(&self) -> &str {
        self.server.expose_secret()
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        let (server, query) = text.split_once('?').unwrap_or((text, ""));
        let server = match server.strip_prefix("unix:") {
            Some(path) => format!("unix://{path}"),
            None if server.starts_with("redis://") || server.starts_with("rediss://") => server.to_owned(),
            None => return Err(EXPECTED),
        };
        let mut url = Self { server: server.into(), ..Self::default() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value =
                percent_decode_str(value).decode_utf8().map_err(|_| "the query is not UTF-8")?.into_owned();
            match name {
                "prefix" => url.prefix = Some(value),
                "tls_ca" => url.tls_ca = Some(value.into()),
                _ => return Err("the query takes prefix and tls_ca"),
            }
        }
        Ok(url)
    }
}
