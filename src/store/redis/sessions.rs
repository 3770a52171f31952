//! The listing of a principal's sessions: a sorted set that says where to look, and a look at each session.

use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::Value;
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    Shared,
    error::{damaged, unexpected},
    layout::LogHeader,
    link::RedisCall,
    millis, read,
    script::{self, Invocation},
    timeouts::Timeouts,
};
use crate::{
    history::RecordError,
    session::{Principal, SessionId, SessionKey},
    store::{
        Page, PrincipalPage, PrincipalSummary, Scope, SessionPage, SessionSummary, StoreError,
        StoreErrorKind,
        erasure::{UnknownPage, place},
        retention::system_time,
        trim::clipped,
    },
};

/// A member of the listing.
struct Listed {
    id: SessionId,
    place: u64,
}

/// A member of a listing of principals, in its order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Active {
    place: u64,
    principal: String,
}

impl Active {
    fn read(next: &str) -> Result<Self, StoreError> {
        let parts = next.split_once(':').map(|(place, principal)| (place.parse(), principal.to_owned()));
        match parts {
            Some((Ok(place), principal)) => Ok(Self { place, principal }),
            _ => Err(StoreError::with_source(StoreErrorKind::Other, UnknownPage)),
        }
    }

    fn write(&self) -> String {
        format!("{}:{}", self.place, self.principal)
    }
}

/// Principals that are expected at most in one microsecond.
const SAME_TIME: usize = 64;

/// What stands under a listed session's key.
enum Look {
    There(SessionSummary),
    Gone,
    /// Something that is no log, or one of a newer version: the others are listed all the same.
    Unreadable,
}

/// Sessions that are looked up at once.
pub(super) const AT_ONCE: usize = 32;

impl Shared {
    /// A page takes no longer than a call, although it may need many.
    pub(super) async fn sessions(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        let listed = timeout(self.limits.call, self.page(scope, page)).await;
        listed.unwrap_or_else(|_| Err(StoreError::new(StoreErrorKind::Timeout)))
    }

    async fn page(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        let mut before = page.after.as_ref().map(|_| place(page, 0)).transpose()?;
        let limit = page.size();
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
        if let Err(error) = self.link().call(&RedisCall::Script(&list), self.brief()).await {
            tracing::warn!(%error, session = %key.digest(), "a session is not listed until its next turn");
        }
    }

    /// Puts a session's principal where its newest turn says: in a Cluster, a step of its own as well.
    pub(super) async fn enlist(&self, key: &SessionKey, time: u64) {
        let principal = key.principal().as_str();
        let enlist = Invocation::new(&script::ENLIST, &[self.keys.principals_of(key.namespace(), principal)])
            .arg(principal)
            .arg(time)
            .arg(millis(self.retention.ttl))
            .arg(self.sweeps());
        if let Err(error) = self.link().call(&RedisCall::Script(&enlist), self.brief()).await {
            tracing::warn!(%error, session = %key.digest(), "a principal is not listed until its next turn");
        }
    }

    /// Takes a session that was deleted at this time off the listing, unless it began anew since, and its principal with
    /// the last one. If that fails, the next listing finds it gone.
    pub(super) async fn unlist(&self, key: &SessionKey, time: u64) {
        let principal = key.principal().as_str();
        let listing = self.keys.listing(key.namespace(), principal);
        let unlisted = async {
            if self.take_off(listing, key.id().as_str(), time).await? {
                return Ok(());
            }
            self.take_off(self.keys.principals_of(key.namespace(), principal), principal, time)
                .await
                .map(drop)
        };
        let unlisted: Result<(), StoreError> = unlisted.await;
        if let Err(error) = unlisted {
            tracing::warn!(%error, session = %key.digest(), "the id of a deleted session is still listed");
        }
    }

    /// Takes a member off a listing unless it moved after this time; whether any is left.
    async fn take_off(&self, listing: String, member: &str, time: u64) -> Result<bool, StoreError> {
        let unlist = Invocation::new(&script::UNLIST, &[listing]).arg(member).arg(time);
        let (left, _) = self.link().call(&RedisCall::Script(&unlist), self.brief()).await?;
        Ok(read::<u64>(left)? > 0)
    }

    /// A page takes no longer than a call, although it may need many.
    pub(super) async fn principals(&self, namespace: &str, page: &Page) -> Result<PrincipalPage, StoreError> {
        let listed = timeout(self.limits.call, self.principals_page(namespace, page)).await;
        listed.unwrap_or_else(|_| Err(StoreError::new(StoreErrorKind::Timeout)))
    }

    /// The principals of all listings by the time of their newest turns, and a look at the newest session of each.
    async fn principals_page(&self, namespace: &str, page: &Page) -> Result<PrincipalPage, StoreError> {
        let after = page.after.as_deref().map(Active::read).transpose()?;
        let limit = page.size();
        let mut active: Vec<Active> = Vec::new();
        for listing in self.keys.all_principals(namespace) {
            active.extend(self.active(&listing, after.as_ref(), limit + 1).await?);
        }
        active.sort_unstable_by(|one, other| other.cmp(one));
        let more = active.len() > limit;
        active.truncate(limit);
        let next = active.last().filter(|_| more).map(Active::write);
        let looked_up: Vec<(Active, Option<SystemTime>)> = stream::iter(active)
            .map(|active| async move {
                let principal = Principal::new(active.principal.as_str());
                let scope = Scope { namespace: namespace.to_owned(), principal };
                let newest = self.page(&scope, &Page::new(1)).await?.sessions.pop();
                Ok::<_, StoreError>((active, newest.map(|newest| newest.updated_at)))
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let mut principals = Vec::with_capacity(looked_up.len());
        for (Active { place, principal }, newest) in looked_up {
            match newest {
                Some(updated) => {
                    principals.push(PrincipalSummary::new(Principal::new(principal), updated));
                }
                None => {
                    let listing = self.keys.principals_of(namespace, &principal);
                    if let Err(error) = self.take_off(listing, &principal, place).await {
                        tracing::warn!(%error, "what is no more could not be taken off a listing");
                    }
                }
            }
        }
        Ok(PrincipalPage { principals, next })
    }

    /// The members of a listing of principals after this one.
    async fn active(
        &self,
        listing: &str,
        after: Option<&Active>,
        limit: usize,
    ) -> Result<Vec<Active>, StoreError> {
        let mut range = redis::cmd("ZREVRANGEBYSCORE");
        range
            .arg(listing)
            .arg(after.map_or_else(|| "+inf".to_owned(), |after| after.place.to_string()))
            .arg("-inf")
            .arg("WITHSCORES")
            .arg("LIMIT")
            .arg(0)
            .arg(limit + SAME_TIME);
        let (value, _) = self.link().call(&RedisCall::Command(&range), self.limits).await?;
        let members: Vec<(String, f64)> = read(value)?;
        let members = members.into_iter().map(|(principal, place)| Active { place: place as u64, principal });
        Ok(members.filter(|found| after.is_none_or(|after| found < after)).take(limit).collect())
    }

    fn brief(&self) -> Timeouts {
        Timeouts { call: self.limits.attempt / 2, ..self.limits }
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
        let (value, _) = self.link().call(&RedisCall::Command(&range), self.limits).await?;
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
        if gone && let Err(error) = self.link().call(&RedisCall::Script(&unlist), self.limits).await {
            tracing::warn!(%error, "what is no more could not be taken off a listing");
        }
        Ok(())
    }

    async fn summary(&self, scope: &Scope, listed: &Listed) -> Result<Look, StoreError> {
        let key = SessionKey::new(scope.namespace.as_str(), scope.principal.clone(), listed.id.clone());
        let look = Invocation::new(&script::LOOK, &[self.keys.log(&key)]);
        let link = self.link();
        let unreadable = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, session = %key.digest(), "a session that cannot be read is left out of a listing");
            Ok(Look::Unreadable)
        };
        let (value, used) = match link.call(&RedisCall::Script(&look), self.limits).await {
            Ok((Value::Nil, _)) => return Ok(Look::Gone),
            Ok(answer) => answer,
            Err(error) if error.kind() == StoreErrorKind::Corrupt => return unreadable(&error),
            Err(error) => return Err(error),
        };
        let (header, left, bytes, model, title): (Vec<u8>, i64, u64, Vec<u8>, Vec<u8>) = read(value)?;
        match LogHeader::read(&header, key.digest()) {
            Ok(LogHeader { kept: 0, .. }) => Ok(Look::Gone),
            Ok(log) => Ok(Look::There(SessionSummary {
                id: listed.id.clone(),
                turns: log.kept,
                bytes,
                created_at: time(log.created),
                updated_at: time(log.at),
                expires_at: u64::try_from(left)
                    .ok()
                    .map(|left| SystemTime::now() + Duration::from_millis(left)),
                model: Named::read(&model).model,
                title: Named::read(&title).title,
            })),
            Err(RecordError::Foreign) => {
                link.distrust(&used);
                Err(damaged(RecordError::Foreign))
            }
            Err(error) => unreadable(&error),
        }
    }
}

/// What a record's header says for listings.
#[derive(Default, Deserialize)]
struct Named {
    model: Option<String>,
    title: Option<String>,
}

impl Named {
    /// A header that cannot be read names nothing: the session is listed all the same.
    fn read(header: &[u8]) -> Self {
        let Self { model, title } = serde_json::from_slice(header).unwrap_or_default();
        let clip = |name: String| clipped(&name).to_owned();
        Self { model: model.map(clip), title: title.map(clip) }
    }
}

/// The time of these microseconds since 1970.
pub(super) fn time(micros: u64) -> SystemTime {
    system_time(i64::try_from(micros / 1000).unwrap_or(i64::MAX))
}
