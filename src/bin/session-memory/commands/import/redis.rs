//! The keys that LangChain and the OpenAI Agents SDK write into a Redis.
//!
//! | written by | keys | |
//! |---|---|---|
//! | `langchain_community`'s `RedisChatMessageHistory` | `message_store:ID` | a list, newest first |
//! | `langchain_redis`'s `RedisChatMessageHistory` | `chat:ID:ULID` | a JSON document for each message |
//! | `RedisSession` of the Agents SDK | `agents:session:ID:messages` | a list, oldest first |

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, IntoConnectionInfo, RedisError, RedisResult,
    TlsCertificates, aio::MultiplexedConnection, cmd, pipe,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    contents::{Bounds, Keys, Location, Session, Sessions},
    piece::Entry,
    report::Skipped,
    source_url::RedisUrl,
};

/// An answer of the server may take 60 seconds.
const ANSWER: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(5);
/// Elements of a list, or documents, in one request.
const CHUNK: usize = 100;

/// A connection to the server, and the prefix of the keys that are read.
pub(super) struct SourceServer {
    connection: MultiplexedConnection,
    prefix: Option<String>,
}

/// Error of a source. No text quotes its URL.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("the URL of the source is none that a Redis has")]
    Url,
    #[error("cannot read tls_ca {0}: {1}")]
    Certificates(String, std::io::Error),
    #[error(
        "the source is a node of a Redis Cluster, which holds only a part of the sessions: Clusters cannot be read"
    )]
    Cluster,
    #[error("the source's Redis: {0}")]
    Redis(#[from] RedisError),
}

impl SourceServer {
    /// Connects.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    pub(super) async fn connect(url: &RedisUrl) -> Result<Self, SourceError> {
        let info = url.server().into_connection_info().map_err(|_| SourceError::Url)?;
        let client = if url.server().starts_with("rediss:") {
            let read = |path: &std::path::PathBuf| {
                std::fs::read(path)
                    .map_err(|error| SourceError::Certificates(path.display().to_string(), error))
            };
            let root_cert = url.tls_ca.as_ref().map(read).transpose()?;
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })?
        } else {
            Client::open(info)?
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER));
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        // A user without the right to INFO is assumed to name no node of a Cluster.
        let about: String = cmd("INFO").arg("cluster").query_async(&mut connection).await.unwrap_or_default();
        if about.contains("cluster_enabled:1") {
            return Err(SourceError::Cluster);
        }
        Ok(Self { connection, prefix: url.prefix.clone() })
    }

    /// The sessions of LangChain's histories, of both kinds.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    pub(super) async fn langchain_sessions(&self) -> Result<Sessions, SourceError> {
        let mut sessions = Sessions::new();
        let lists = self.prefix.as_deref().unwrap_or("message_store:");
        for key in self.keys(lists, "", "list").await? {
            let id = key[lists.len()..].to_vec();
            sessions.insert(id, Some(Location::Keys(Keys::NewestFirst(key))));
        }
        let documents = self.prefix.as_deref().unwrap_or("chat:");
        let mut by_session: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        for key in self.keys(documents, "", "ReJSON-RL").await? {
            let rest = &key[documents.len()..];
            // The rest is a ULID.
            let Some(end) = rest.iter().rposition(|byte| *byte == b':') else { continue };
            by_session.entry(rest[..end].to_vec()).or_default().push(key);
        }
        for (id, keys) in by_session {
            let place = Some(Location::Keys(Keys::Documents(keys)));
            sessions.entry(id).and_modify(|twice| *twice = None).or_insert(place);
        }
        Ok(sessions)
    }

    /// The sessions of the Agents SDK.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    pub(super) async fn agents_sessions(&self) -> Result<Sessions, SourceError> {
        let prefix = format!("{}:", self.prefix.as_deref().unwrap_or("agents:session"));
        let suffix = ":messages";
        let keys = self.keys(&prefix, suffix, "list").await?;
        let sessions = keys.into_iter().filter_map(|key| {
            let id = key.get(prefix.len()..key.len() - suffix.len())?.to_vec();
            Some((id, Some(Location::Keys(Keys::OldestFirst(key)))))
        });
        Ok(sessions.collect())
    }

    /// The messages of a session, oldest first.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    pub(super) async fn read(
        &self,
        keys: &Keys,
        bounds: Bounds,
    ) -> Result<Result<Session, Skipped>, SourceError> {
        let entries = match keys {
            Keys::NewestFirst(key) => self.list(key, bounds, true).await?,
            Keys::OldestFirst(key) => self.list(key, bounds, false).await?,
            Keys::Documents(keys) => self.documents(keys, bounds).await?,
        };
        Ok(entries.map(|entries| Session { entries, left: Vec::new() }))
    }

    /// All keys of a type with this prefix and suffix, each once.
    async fn keys(&self, prefix: &str, suffix: &str, kind: &str) -> RedisResult<BTreeSet<Vec<u8>>> {
        let pattern = format!("{}*{}", literal(prefix), literal(suffix));
        let mut keys = BTreeSet::new();
        let mut cursor = 0_u64;
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1000).arg("TYPE").arg(kind);
            let (next, found): (u64, Vec<Vec<u8>>) = self.ask(&scan).await?;
            keys.extend(found);
            if next == 0 {
                return Ok(keys);
            }
            cursor = next;
        }
    }

    /// A list, from its oldest element. Elements that are pushed meanwhile move no older one.
    async fn list(
        &self,
        key: &[u8],
        bounds: Bounds,
        newest_first: bool,
    ) -> RedisResult<Result<Vec<Entry>, Skipped>> {
        let length: u64 = self.ask(cmd("LLEN").arg(key)).await?;
        // Without the right to MEMORY USAGE, the bytes that are read count.
        let size: u64 =
            self.ask(cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0)).await.unwrap_or(0);
        if let Some(skipped) = bounds.refuse(length, size) {
            return Ok(Err(skipped));
        }
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        loop {
            let from = entries.len() as i64;
            let to = from + CHUNK as i64 - 1;
            let mut range = cmd("LRANGE");
            match newest_first {
                true => range.arg(key).arg(-1 - to).arg(-1 - from),
                false => range.arg(key).arg(from).arg(to),
            };
            let mut chunk: Vec<Vec<u8>> = self.ask(&range).await?;
            if newest_first {
                chunk.reverse();
            }
            bytes += chunk.iter().map(|json| json.len() as u64).sum::<u64>();
            let is_last = chunk.len() < CHUNK;
            entries.extend(chunk.into_iter().map(|json| Entry { json, at: None }));
            if let Some(skipped) = bounds.refuse(entries.len() as u64, bytes) {
                return Ok(Err(skipped));
            }
            if is_last {
                return Ok(Ok(entries));
            }
        }
    }

    /// Documents in the order of their times.
    async fn documents(&self, keys: &[Vec<u8>], bounds: Bounds) -> RedisResult<Result<Vec<Entry>, Skipped>> {
        if let Some(skipped) = bounds.refuse(keys.len() as u64, 0) {
            return Ok(Err(skipped));
        }
        let mut documents: Vec<(Time<'_>, Entry)> = Vec::new();
        let mut bytes = 0;
        for chunk in keys.chunks(CHUNK) {
            let mut gets = pipe();
            for key in chunk {
                gets.cmd("JSON.GET").arg(key);
            }
            let found: Vec<Option<Vec<u8>>> = gets.query_async(&mut self.connection.clone()).await?;
            // An expired document is missing.
            for (key, json) in chunk.iter().zip(found).filter_map(|(key, json)| Some((key, json?))) {
                bytes += json.len() as u64;
                let time = Time::read(&json, key);
                documents.push((time, Entry { json, at: time.at() }));
            }
            if let Some(skipped) = bounds.refuse(documents.len() as u64, bytes) {
                return Ok(Err(skipped));
            }
        }
        documents.sort_by_key(|(time, _)| *time);
        Ok(Ok(documents.into_iter().map(|(_, entry)| entry).collect()))
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        command.query_async(&mut self.connection.clone()).await
    }
}

/// A pattern that matches only this text.
fn literal(text: &str) -> String {
    let special = |c| matches!(c, '*' | '?' | '[' | ']' | '\\');
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

/// Time of a document in microseconds; the ULID in the key orders documents of one microsecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Time<'a> {
    micros: u64,
    key: &'a [u8],
}

impl<'a> Time<'a> {
    fn read(json: &[u8], key: &'a [u8]) -> Self {
        #[derive(Deserialize)]
        struct Written<'a> {
            #[serde(borrow)]
            timestamp: &'a RawValue,
        }
        let written = serde_json::from_slice::<Written<'_>>(json).ok();
        let seconds = written.and_then(|written| written.timestamp.get().parse::<f64>().ok());
        Self { micros: (seconds.unwrap_or_default() * 1e6) as u64, key }
    }

    fn at(self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(self.micros)).filter(|_| self.micros > 0)
    }
}
