//! The listing of a principal's sessions: a sorted set that says where to look, and a look at each session.

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::Value;
use tokio::time::timeout;

use super::{
    Shared,
    error::{damaged, unexpected},
    layout::Log,
    link::{Ask, Limits},
    millis, read,
    script::{self, Invocation},
};
use crate::{
    history::RecordError,
    session::{SessionId, SessionKey},
    store::{Page, Scope, SessionPage, SessionSummary, StoreError, StoreErrorKind, retention::system_time},
};

/// A member of the listing.
struct Listed {
    id: SessionId,
    place: u64,
}

/// What stands under a listed session's key.
enum Look {
    There(SessionSummary),
    Gone,
    /// Something that is no log, or one of a newer version: the others are listed all the same.
    Unreadable,
}

/// So many sessions are looked up at once.
const AT_ONCE: usize = 32;

/// A header's line fits into so many bytes.
const HEADER_BYTES: usize = 1024;

impl Shared {
    /// A page takes no longer than a call: it may need many, and those who list wait for all.
    pub(super) async fn sessions(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        let listed = timeout(self.limits.call, self.page(scope, page)).await;
        listed.unwrap_or_else(|_| Err(StoreError::new(StoreErrorKind::Timeout)))
    }

    async fn page(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        let before = page.after.as_deref().map(str::parse::<u64>).transpose();
        let mut before = before.map_err(|error| StoreError::with_source(StoreErrorKind::Other, error))?;
        let limit = page.limit.clamp(1, 1000);
        let mut found: Vec<(u64, SessionSummary)> = Vec::new();
        loop {
            let wanted = limit + 1 - found.len();
            let listed = self.listed(scope, before, wanted).await?;
            let last = listed.len() < wanted;
            before = listed.last().map(|listed| listed.place).or(before);
            self.look_up(scope, listed, &mut found).await?;
            if last || found.len() > limit {
                break;
            }
        }
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|(place, _)| place.to_string());
        Ok(SessionPage { sessions: found.into_iter().map(|(_, session)| session).collect(), next })
    }

    /// Puts a session where its newest turn says. In a Cluster this is a step of its own, for which the turn
    /// does not wait long: the listing may be on a master that is away.
    pub(super) async fn list(&self, key: &SessionKey, time: u64) {
        let listing = self.keys.listing(key.namespace(), key.principal().as_str());
        let list = Invocation::new(&script::LIST, &[listing])
            .arg(key.id().as_str())
            .arg(time)
            .arg(millis(self.retention.ttl))
            .arg(self.listed.get())
            .arg(self.sweeps());
        if let Err(error) = self.link().call(&Ask::Script(&list), self.brief()).await {
            tracing::warn!(%error, session = %key.digest(), "a session is not listed until its next turn");
        }
    }

    /// Takes a session that was deleted at this time off the listing, unless it began anew since. If that fails,
    /// the next one who lists finds it gone.
    pub(super) async fn unlist(&self, key: &SessionKey, time: u64) {
        let listing = self.keys.listing(key.namespace(), key.principal().as_str());
        let unlist = Invocation::new(&script::UNLIST, &[listing]).arg(key.id().as_str()).arg(time);
        if let Err(error) = self.link().call(&Ask::Script(&unlist), self.brief()).await {
            tracing::warn!(%error, session = %key.digest(), "the id of a deleted session is still listed");
        }
    }

    fn brief(&self) -> Limits {
        Limits { call: self.limits.attempt / 2, ..self.limits }
    }

    async fn listed(
        &self,
        scope: &Scope,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let mut range = redis::cmd("ZREVRANGEBYSCORE");
        range
            .arg(self.keys.listing_of(scope))
            .arg(before.map_or_else(|| "+inf".to_owned(), |before| format!("({before}")))
            .arg("-inf")
            .arg("WITHSCORES")
            .arg("LIMIT")
            .arg(0)
            .arg(limit);
        let (value, _) = self.link().call(&Ask::Command(&range), self.limits).await?;
        let members: Vec<(Vec<u8>, f64)> = read(value)?;
        members
            .into_iter()
            .map(|(id, place)| {
                let id = SessionId::from_bytes(&id).map_err(|_| unexpected())?;
                // Microseconds since 1970 are whole and far below 2^53.
                Ok(Listed { id, place: place as u64 })
            })
            .collect()
    }

    /// Adds those that are there, and takes the others off the listing.
    async fn look_up(
        &self,
        scope: &Scope,
        listed: Vec<Listed>,
        found: &mut Vec<(u64, SessionSummary)>,
    ) -> Result<(), StoreError> {
        let looked_up: Vec<(Listed, Look)> = stream::iter(listed)
            .map(|listed| async move {
                let summary = self.summary(scope, &listed).await?;
                Ok::<_, StoreError>((listed, summary))
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let mut gone = false;
        let mut unlist = Invocation::new(&script::UNLIST, &[self.keys.listing_of(scope)]);
        for (listed, summary) in looked_up {
            match summary {
                Look::There(summary) => found.push((listed.place, summary)),
                Look::Unreadable => {}
                Look::Gone => {
                    gone = true;
                    unlist = unlist.arg(listed.id.as_str()).arg(listed.place);
                }
            }
        }
        if gone && let Err(error) = self.link().call(&Ask::Script(&unlist), self.limits).await {
            tracing::warn!(%error, "what is no more could not be taken off a listing");
        }
        Ok(())
    }

    async fn summary(&self, scope: &Scope, listed: &Listed) -> Result<Look, StoreError> {
        let key = SessionKey::new(scope.namespace.as_str(), scope.principal.clone(), listed.id.clone());
        let mut header = redis::cmd("GETRANGE");
        header.arg(self.keys.log(&key)).arg(0).arg(HEADER_BYTES - 1);
        let link = self.link();
        let unreadable = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, session = %key.digest(), "a session that cannot be read is left out of a listing");
            Ok(Look::Unreadable)
        };
        let (value, used) = match link.call(&Ask::Command(&header), self.limits).await {
            Ok((Value::BulkString(value), used)) => (value, used),
            Ok((Value::Nil, _)) => return Ok(Look::Gone),
            Ok(_) => return Err(unexpected()),
            Err(error) if error.kind() == StoreErrorKind::Corrupt => return unreadable(&error),
            Err(error) => return Err(error),
        };
        if value.is_empty() {
            return Ok(Look::Gone);
        }
        match Log::read(&value, key.digest()) {
            Ok(Log { kept: 0, .. }) => Ok(Look::Gone),
            Ok(log) => Ok(Look::There(SessionSummary {
                id: listed.id.clone(),
                turns: log.kept,
                updated_at: system_time(i64::try_from(log.at / 1000).unwrap_or(i64::MAX)),
            })),
            Err(RecordError::Foreign) => {
                link.distrust(&used);
                Err(damaged(RecordError::Foreign))
            }
            Err(error) => unreadable(&error),
        }
    }
}
