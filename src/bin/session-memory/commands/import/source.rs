//! Source of an import, whichever kind it is.

use std::sync::{Mutex, PoisonError};

use super::{
    agents,
    contents::{Bounds, Location, Session, Sessions},
    langchain,
    piece::{Entry, Transcript},
    redis::SourceServer,
    report::Skipped,
    source_url::SourceUrl,
    sqlite::AgentsFile,
};
use crate::error::BoxError;

/// An open source.
pub(super) enum Source {
    LangChain(SourceServer),
    AgentsRedis(SourceServer),
    AgentsSqlite(Mutex<AgentsFile>),
}

impl Source {
    /// Opens a source.
    ///
    /// # Errors
    ///
    /// When the source is missing, or is of another kind.
    pub(super) async fn open(from: &SourceUrl) -> Result<Self, BoxError> {
        Ok(match from {
            SourceUrl::LangChainRedis(url) => Self::LangChain(SourceServer::connect(url).await?),
            SourceUrl::AgentsRedis(url) => Self::AgentsRedis(SourceServer::connect(url).await?),
            SourceUrl::AgentsSqlite { path, table } => {
                let file = tokio::task::block_in_place(|| AgentsFile::open(path, table));
                Self::AgentsSqlite(Mutex::new(file.map_err(unreadable)?))
            }
        })
    }

    /// The sessions of the source.
    ///
    /// # Errors
    ///
    /// When the source cannot be read.
    pub(super) async fn sessions(&self) -> Result<Sessions, BoxError> {
        match self {
            Self::LangChain(server) => Ok(server.langchain_sessions().await?),
            Self::AgentsRedis(server) => Ok(server.agents_sessions().await?),
            Self::AgentsSqlite(file) => {
                let file = file.lock().unwrap_or_else(PoisonError::into_inner);
                let ids = tokio::task::block_in_place(|| file.sessions()).map_err(unreadable)?;
                Ok(ids.into_iter().map(|id| (id, Some(Location::Rows))).collect())
            }
        }
    }

    /// The entries of a session, or the reason to skip it.
    ///
    /// # Errors
    ///
    /// When the source cannot be read any more.
    pub(super) async fn read(
        &self,
        id: &str,
        place: &Location,
    ) -> Result<Result<Session, Skipped>, BoxError> {
        match (self, place) {
            (Self::LangChain(server) | Self::AgentsRedis(server), Location::Keys(keys)) => {
                Ok(server.read(keys, Bounds::ALL).await?)
            }
            (Self::AgentsSqlite(file), Location::Rows) => {
                let file = file.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(tokio::task::block_in_place(|| file.read(id, Bounds::ALL)).map_err(unreadable)?)
            }
            _ => Ok(Err(Skipped::Unreadable("it is gone".to_owned()))),
        }
    }

    /// Name of the program that wrote the source: a part of the turns' ids, so it never changes.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::LangChain(_) => "langchain",
            Self::AgentsRedis(_) | Self::AgentsSqlite(_) => "agents",
        }
    }

    /// The messages of a session's entries.
    ///
    /// # Errors
    ///
    /// [`Skipped`], when only the program that wrote them can read them.
    pub(super) fn understand(&self, entries: &[Entry]) -> Result<Transcript, Skipped> {
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
