//! The erasure of a principal's sessions, and of those of an age.
//!
//! No index names every session: a listing has a longest length, and in a Cluster it may miss one. So the names of all keys
//! are gone through with `SCAN`, some at a time, on one server after the other. Each session is erased by a script of
//! its own.
//!
//! A place in this walk names what it is valid for. A cursor names the server process that gave it: another one is gone
//! through from its start. In a Cluster the place also names which server has which slots: where these changed, keys may have
//! moved to a server that the walk has passed, and the walk begins again.

use std::collections::HashSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use redis::{FromRedisValue, Value};
use sha2::{Digest, Sha256};

use super::{
    Shared,
    error::unexpected,
    hex::{Hex, hex},
    layout::LogHeader,
    link::RedisCall,
    millis, read,
    script::{self, Invocation},
    sessions::AT_ONCE,
};
use crate::{
    session::SessionKey,
    store::{Epoch, Erased, Page, Scope, StoreError, StoreErrorKind, erasure::UnknownPage},
};

/// Where the walk through all keys stands.
struct Walk {
    /// The [layout](Servers::layout) that it was begun with.
    layout: String,
    /// A slot of the server; 0 outside of a Cluster.
    slot: u16,
    /// The run id of the server process that gave the cursor; empty at the start.
    process: String,
    cursor: u64,
}

/// The servers that take writes.
struct Servers {
    /// One slot of each, in order.
    slots: Vec<u16>,
    /// A digest of which server has which slots.
    layout: Hex,
}

/// What is erased.
enum Which<'a> {
    /// All sessions, with a tombstone.
    Of(&'a Scope),
    /// Those whose newest turn was appended before this time, in microseconds since 1970.
    Before(&'a str, u64),
}

/// Keys that a server goes through for one answer, and answers without a session of ours after which a step ends.
const KEYS: usize = 64;
const EMPTY_ANSWERS: usize = 64;

/// Sessions that are erased at once: other calls come between their scripts.
const ERASED_AT_ONCE: usize = 8;

/// A header's line fits into this number of bytes.
const HEADER_BYTES: usize = 1024;

impl Shared {
    pub(super) async fn delete_principal(&self, scope: &Scope, page: &Page) -> Result<Erased, StoreError> {
        let erased = self.erase(&Which::Of(scope), page).await?;
        if erased.next.is_none() {
            // What is listed and is no more is taken off. What is left there is found by the next listing.
            let _ = self.sessions(scope, &Page::new(1000)).await;
        }
        Ok(erased)
    }

    pub(super) async fn expire(
        &self,
        namespace: &str,
        age: std::time::Duration,
        page: &Page,
    ) -> Result<Erased, StoreError> {
        let (now, _) = self.link().call(&RedisCall::Command(&redis::cmd("TIME")), self.limits).await?;
        let (seconds, micros): (u64, u64) = read(now)?;
        let before = (seconds * 1_000_000 + micros).saturating_sub(millis(age).saturating_mul(1000));
        self.erase(&Which::Before(namespace, before), page).await
    }

    async fn erase(&self, which: &Which<'_>, page: &Page) -> Result<Erased, StoreError> {
        let most = Erased::sessions_of(page) as u64;
        let servers = self.servers().await?;
        let after = page.after.as_deref().map(Walk::read).transpose()?;
        let mut at = match after.filter(|at| at.layout == servers.layout.as_str()) {
            Some(at) => at,
            None => servers.start()?,
        };
        let mut erased = Erased::default();
        for _ in 0..EMPTY_ANSWERS {
            let (process, cursor, found) = self.names(which, &at).await?;
            let mut rest = found.as_slice();
            while !rest.is_empty() {
                if erased.sessions == most {
                    // The server answers the same names again, less those that were erased.
                    erased.next = Some(at.write());
                    return Ok(erased);
                }
                let left = usize::try_from(most - erased.sessions).unwrap_or(usize::MAX);
                let (now, later) = rest.split_at(rest.len().min(left));
                self.erase_all(which, now, &mut erased).await?;
                rest = later;
            }
            at = if cursor > 0 {
                Walk { process, cursor, ..at }
            } else if let Some(slot) = servers.slots.iter().find(|slot| **slot > at.slot) {
                servers.start_of(*slot)
            } else {
                let now = self.servers().await?;
                let moved = now.layout != servers.layout;
                erased.next = moved.then(|| now.start()).transpose()?.map(|start| start.write());
                return Ok(erased);
            };
            erased.next = Some(at.write());
            if erased.sessions > 0 {
                break;
            }
        }
        Ok(erased)
    }

    async fn servers(&self) -> Result<Servers, StoreError> {
        if !self.in_cluster {
            return Ok(Servers::of(&[(0, 0, String::new())]));
        }
        let mut slots = redis::cmd("CLUSTER");
        slots.arg("SLOTS");
        let (value, _) = self.link().call(&RedisCall::Slot(0, &slots), self.limits).await?;
        let mut ranges: Vec<(u16, u16, String)> = Vec::new();
        for range in read::<Vec<Value>>(value)? {
            let range: Vec<Value> = read(range)?;
            let [first, last, master, ..] = range.as_slice() else { return Err(unexpected()) };
            let master: Vec<Value> = from(master)?;
            let [_, _, node, ..] = master.as_slice() else { return Err(unexpected()) };
            ranges.push((from(first)?, from(last)?, from(node)?));
        }
        ranges.sort_unstable();
        Ok(Servers::of(&ranges))
    }

    /// Some of a server's sessions that may be of the kind, and its run id and cursor behind them.
    async fn names(
        &self,
        which: &Which<'_>,
        at: &Walk,
    ) -> Result<(String, u64, Vec<SessionKey>), StoreError> {
        let pattern = match which {
            Which::Of(scope) => self.keys.logs_of(&scope.namespace, Some(scope.principal.as_str())),
            Which::Before(namespace, _) => self.keys.logs_of(namespace, None),
        };
        let scan = Invocation::new(&script::SCAN, &[]);
        let scan = scan.arg(&at.process).arg(at.cursor).arg(pattern).arg(KEYS).in_full();
        let (value, _) = self.link().call(&RedisCall::Slot(at.slot, &scan), self.limits).await?;
        let (process, cursor, names): (String, u64, Vec<Vec<u8>>) = read(value)?;
        let names = names.iter().filter_map(|name| std::str::from_utf8(name).ok());
        let keys: Vec<SessionKey> = names.filter_map(|name| self.keys.session(name)).collect();
        let Which::Before(_, before) = which else { return Ok((process, cursor, keys)) };
        let old: Vec<Option<SessionKey>> = stream::iter(keys)
            .map(
                |key| async move { Ok::<_, StoreError>(self.is_before(&key, *before).await?.then_some(key)) },
            )
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok((process, cursor, old.into_iter().flatten().collect()))
    }

    /// Whether a session's newest turn is older, as far as can be read. The erasure looks again.
    async fn is_before(&self, key: &SessionKey, before: u64) -> Result<bool, StoreError> {
        let mut header = redis::cmd("GETRANGE");
        header.arg(self.keys.log(key)).arg(0).arg(HEADER_BYTES - 1);
        match self.link().call(&RedisCall::Command(&header), self.limits).await {
            Ok((Value::BulkString(value), _)) => {
                Ok(LogHeader::read(&value, key.digest()).is_ok_and(|log| log.kept > 0 && log.at < before))
            }
            Ok(_) => Ok(false),
            Err(error) if error.kind() == StoreErrorKind::Corrupt => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn erase_all(
        &self,
        which: &Which<'_>,
        keys: &[SessionKey],
        erased: &mut Erased,
    ) -> Result<(), StoreError> {
        let mut erasures = stream::iter(keys.to_vec())
            .map(|key| async move { self.erase_one(which, &key).await })
            .buffered(ERASED_AT_ONCE);
        while let Some(one) = erasures.try_next().await? {
            if let Some((records, bytes)) = one {
                erased.add(records, bytes);
            }
        }
        Ok(())
    }

    /// Records and bytes of a session that was erased.
    async fn erase_one(&self, which: &Which<'_>, key: &SessionKey) -> Result<Option<(u64, u64)>, StoreError> {
        let erase =
            Invocation::new(&script::ERASE, &self.written_keys(key)).arg(hex(key.digest().as_bytes()));
        let erase = match which {
            Which::Of(_) => erase.arg("").arg(hex(Epoch::random().as_bytes())),
            Which::Before(_, before) => erase.arg(*before).arg(""),
        };
        let erase = erase
            .arg(millis(self.retention.tombstone_ttl))
            .arg(key.id().as_str())
            .arg(key.principal().as_str())
            .arg(self.waits());
        let (time, records, bytes): (u64, u64, u64) = read(self.write(&erase).await?)?;
        if time == 0 {
            return Ok(None);
        }
        if self.in_cluster {
            self.unlist(key, time).await;
        }
        Ok(Some((records, bytes)))
    }
}

impl Servers {
    /// From the slots of each server, in order: the first, the last and the server's id.
    fn of(ranges: &[(u16, u16, String)]) -> Self {
        let mut found = HashSet::new();
        let slots = ranges.iter().filter(|(.., node)| found.insert(node)).map(|(first, ..)| *first).collect();
        let whole = Sha256::digest(format!("{ranges:?}"));
        let mut digest = [0; 16];
        digest.copy_from_slice(&whole[..16]);
        Self { slots, layout: hex(&digest) }
    }

    fn start(&self) -> Result<Walk, StoreError> {
        self.slots.first().map(|slot| self.start_of(*slot)).ok_or_else(unexpected)
    }

    fn start_of(&self, slot: u16) -> Walk {
        Walk { layout: self.layout.as_str().to_owned(), slot, process: String::new(), cursor: 0 }
    }
}

impl Walk {
    fn read(next: &str) -> Result<Self, StoreError> {
        let unknown = || StoreError::with_source(StoreErrorKind::Other, UnknownPage);
        let parts: Vec<&str> = next.split('-').collect();
        let [layout, slot, process, cursor] = parts[..] else { return Err(unknown()) };
        let slot: u16 = slot.parse().map_err(|_| unknown())?;
        let cursor = cursor.parse().map_err(|_| unknown())?;
        Ok(Self { layout: layout.to_owned(), slot, process: process.to_owned(), cursor })
    }

    fn write(&self) -> String {
        let Self { layout, slot, process, cursor } = self;
        format!("{layout}-{slot}-{process}-{cursor}")
    }
}

fn from<T: FromRedisValue>(value: &Value) -> Result<T, StoreError> {
    T::from_redis_value_ref(value).map_err(|_| unexpected())
}
