//! Where an import reads from.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    str::FromStr,
    sync::{Mutex, PoisonError},
};

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

use super::{
    piece::{Entry, Said},
    redis::{Keys, Server},
    report::{Skipped, Why},
    sqlite::AgentsFile,
    {agents, langchain},
};
use crate::BoxError;

/// What `--from` names.
#[derive(Debug)]
pub(crate) enum SourceUrl {
    LangChainRedis(Url),
    AgentsRedis(Url),
    AgentsSqlite { path: PathBuf, table: String },
}

/// The URL of a Redis, with what its query says.
#[derive(Debug, Default)]
pub(crate) struct Url {
    /// Without the query; it may hold a password.
    pub(super) server: SecretString,
    pub(super) prefix: Option<String>,
    pub(super) tls_ca: Option<PathBuf>,
}

/// An open source.
pub(super) enum Source {
    LangChain(Server),
    AgentsRedis(Server),
    AgentsSqlite(Mutex<AgentsFile>),
}

/// The sessions of a source by their ids as they are there; `None` for one that is there twice.
pub(super) type Sessions = BTreeMap<Vec<u8>, Option<Place>>;

/// Where a session stands in its source.
pub(super) enum Place {
    Keys(Keys),
    Rows,
}

/// A session as it is in the source.
pub(super) struct Session {
    /// Oldest first.
    pub(super) entries: Vec<Entry>,
    /// What the source itself keeps back.
    pub(super) left: Vec<(usize, Why)>,
}

/// How much of one session is read.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl Bounds {
    /// More than any conversation has, and no more than fits into memory a few times.
    pub(super) const ALL: Self = Self { entries: 100_000, bytes: 256 << 20 };

    /// What is said of a session that is larger.
    pub(super) fn refuse(self, entries: u64, bytes: u64) -> Option<Skipped> {
        (entries > self.entries || bytes > self.bytes).then_some(Skipped::TooLarge { entries, bytes })
    }
}

impl FromStr for SourceUrl {
    type Err = &'static str;

    /// Reads it; what is wrong is said without repeating it, for there may be a password in it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("agents-sqlite:").filter(|path| !path.is_empty()) {
            let (path, table) = path.rsplit_once("?table=").unwrap_or((path, "agent_messages"));
            return Ok(Self::AgentsSqlite { path: path.into(), table: table.to_owned() });
        }
        if let Some(url) = text.strip_prefix("langchain-") {
            return Ok(Self::LangChainRedis(Url::read(url)?));
        }
        match text.strip_prefix("agents-") {
            Some(url) => Ok(Self::AgentsRedis(Url::read(url)?)),
            None => Err(EXPECTED),
        }
    }
}

const EXPECTED: &str = "expected langchain-redis://HOST, agents-redis://HOST or agents-sqlite:PATH";

impl Url {
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

impl Source {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// When it is not there, or is something else.
    pub(super) async fn open(from: &SourceUrl) -> Result<Self, BoxError> {
        Ok(match from {
            SourceUrl::LangChainRedis(url) => Self::LangChain(Server::connect(url).await?),
            SourceUrl::AgentsRedis(url) => Self::AgentsRedis(Server::connect(url).await?),
            SourceUrl::AgentsSqlite { path, table } => {
                let file = tokio::task::block_in_place(|| AgentsFile::open(path, table));
                Self::AgentsSqlite(Mutex::new(file.map_err(unreadable)?))
            }
        })
    }

    /// Its sessions.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub(super) async fn sessions(&self) -> Result<Sessions, BoxError> {
        match self {
            Self::LangChain(server) => Ok(server.langchain_sessions().await?),
            Self::AgentsRedis(server) => Ok(server.agents_sessions().await?),
            Self::AgentsSqlite(file) => {
                let file = file.lock().unwrap_or_else(PoisonError::into_inner);
                let ids = tokio::task::block_in_place(|| file.sessions()).map_err(unreadable)?;
                Ok(ids.into_iter().map(|id| (id, Some(Place::Rows))).collect())
            }
        }
    }

    /// A session whose id is `id`, or why it is skipped.
    ///
    /// # Errors
    ///
    /// When the source cannot be read any more.
    pub(super) async fn read(&self, id: &str, place: &Place) -> Result<Result<Session, Skipped>, BoxError> {
        match (self, place) {
            (Self::LangChain(server) | Self::AgentsRedis(server), Place::Keys(keys)) => {
                Ok(server.read(keys, Bounds::ALL).await?)
            }
            (Self::AgentsSqlite(file), Place::Rows) => {
                let file = file.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(tokio::task::block_in_place(|| file.read(id, Bounds::ALL)).map_err(unreadable)?)
            }
            _ => Ok(Err(Skipped::Unreadable("it is gone".to_owned()))),
        }
    }

    /// What wrote it: part of the ids of its turns, so never to be changed.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::LangChain(_) => "langchain",
            Self::AgentsRedis(_) | Self::AgentsSqlite(_) => "agents",
        }
    }

    /// What its entries say.
    ///
    /// # Errors
    ///
    /// [`Skipped`], when only what wrote them can read them.
    pub(super) fn understand(&self, entries: &[Entry]) -> Result<Said, Skipped> {
        match self {
            Self::LangChain(_) => Ok(langchain::read_all(entries)),
            _ if agents::are_encrypted(entries) => Err(Skipped::Encrypted),
            Self::AgentsRedis(_) | Self::AgentsSqlite(_) => Ok(agents::read_all(entries)),
        }
    }
}

fn unreadable(error: rusqlite::Error) -> BoxError {
    format!("cannot read the sessions of the Agents SDK: {error}").into()
}

impl Url {
    pub(super) fn server(&self) -> &str {
        self.server.expose_secret()
    }
}
