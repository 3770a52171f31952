//! How a log is read: all of it, or what came after a cursor.

use bytes::Bytes;
use redis::Value;

use super::{
    Shared,
    error::{damaged, unexpected},
    hex::hex,
    layout::{self, LogHeader, frame_line, newest_hex},
    link::{Link, RedisCall, UsedConnection},
    log_ends::{LogEnd, LogEnds},
    millis,
    script::{self, Invocation},
};
use crate::{
    history::RecordError,
    session::SessionKey,
    store::{Cursor, Epoch, Loaded, ReadOptions, RecordPage, StoreError, TtlRefresh},
};

/// What a load found: the log's header, and frames.
struct FoundLog {
    log: LogHeader,
    frames: Bytes,
    /// Whether the frames are what came after the cursor.
    known: bool,
}

impl FoundLog {
    fn loaded(self, key: &SessionKey, after: Option<&Cursor>, ends: &LogEnds) -> Result<Loaded, RecordError> {
        let known = after.filter(|_| self.known);
        let turns = self.log.turns(&self.frames, key, known.map(|after| after.count))?;
        if let Some(newest) = turns.last() {
            let end = self.log.end(newest.bytes().len());
            ends.put(newest.id(), end, known.and_then(|after| after.newest));
        }
        let LogHeader { cursor, kept, .. } = self.log;
        Ok(Loaded { cursor, records: turns.into(), from_start: !self.known, trimmed: cursor.count - kept })
    }
}

/// The largest number that a script counts with.
const MOST_TURNS: u64 = 1 << 52;

impl Shared {
    pub(super) async fn load(&self, key: &SessionKey, after: Option<&Cursor>) -> Result<Loaded, StoreError> {
        let link = self.link();
        let refresh = self.refreshes();
        if let Some(after) = after.filter(|_| self.loads_known())
            && let Some(end) = after.newest.and_then(|newest| self.ends.of(newest))
            && let Some(loaded) = self.news(link, key, after, end).await?
        {
            return Ok(loaded);
        }
        // Of a session that had no log, too, a caller knows nothing.
        let from_start = after.is_none_or(|after| after.epoch == Epoch::UNBORN);
        let (found, used) = if from_start && !refresh {
            self.whole(link, key).await?
        } else {
            self.tail(link, key, after, refresh).await?
        };
        let loaded =
            found.map_or_else(|| Ok(Loaded::unknown(after)), |found| found.loaded(key, after, &self.ends));
        loaded.map_err(|error| {
            if matches!(error, RecordError::Foreign) {
                link.distrust(&used);
            }
            damaged(error)
        })
    }

    pub(super) async fn read_page(
        &self,
        key: &SessionKey,
        options: &ReadOptions,
    ) -> Result<RecordPage, StoreError> {
        let link = self.link();
        let read = Invocation::new(&script::READ, &[self.keys.log(key)])
            .arg(hex(key.digest().as_bytes()))
            .arg(options.from.min(MOST_TURNS))
            .arg(options.max_records.max(1))
            .arg(options.max_bytes.min(MOST_TURNS));
        let (value, used) = link.call(&RedisCall::Script(&read), self.limits).await?;
        if matches!(value, Value::Nil) {
            return Ok(RecordPage::unknown());
        }
        let Value::Array(parts) = value else { return Err(unexpected()) };
        let Ok([Value::BulkString(header), Value::Int(first), Value::BulkString(frames)]) =
            <[Value; 3]>::try_from(parts)
        else {
            return Err(unexpected());
        };
        let log = self.header(&header, key, link, &used)?;
        let first = u64::try_from(first).map_err(|_| unexpected())?;
        let records = layout::records(&frames.into(), key).map_err(|error| {
            if matches!(error, RecordError::Foreign) {
                link.distrust(&used);
            }
            damaged(error)
        })?;
        Ok(RecordPage::new(log.cursor, first, records))
    }

    /// Whether a load puts off the expiry, which takes a script.
    fn refreshes(&self) -> bool {
        self.retention.refresh == TtlRefresh::OnLoad
    }

    /// Whether what is known of logs is of use to loads. A Cluster's client takes pipelines apart, and sends their parts
    /// again by rules of its own.
    fn loads_known(&self) -> bool {
        !self.refreshes() && !self.in_cluster
    }

    /// What came after a cursor whose place is known, without a script: the header, the first line of the newest turn
    /// that the caller has, and whatever stands behind it, from its last byte on. `None` unless all of it fits
    /// together: then the script tells.
    ///
    /// Another caller's write may come between the three. They fit together all the same only if they are of one
    /// log: the frames, as many as the header says came since, must end with its newest turn, and stand behind the
    /// cursor's.
    async fn news(
        &self,
        link: &Link,
        key: &SessionKey,
        after: &Cursor,
        end: LogEnd,
    ) -> Result<Option<Loaded>, StoreError> {
        let name = self.keys.log(key);
        let mut ranges = redis::pipe();
        for (from, to) in [
            (0, end.head as i64 - 1),
            (end.last as i64, (end.last + LogHeader::FRAME) as i64 - 1),
            (end.end as i64 - 1, -1),
        ] {
            ranges.cmd("GETRANGE").arg(&name).arg(from).arg(to);
        }
        let (value, used) = match link.call(&RedisCall::Together(ranges.ignore_errors()), self.limits).await {
            Err(error) if !error.is_transient() => return Ok(None),
            answer => answer?,
        };
        let Value::Array(parts) = value else { return Err(unexpected()) };
        let Ok([Value::BulkString(header), Value::BulkString(line), Value::BulkString(frames)]) =
            <[Value; 3]>::try_from(parts)
        else {
            return Err(unexpected());
        };
        if header.is_empty() {
            return Ok(Some(Loaded::unknown(Some(after))));
        }
        let log = match LogHeader::read(&header, key.digest()) {
            Ok(log) => log,
            Err(RecordError::Foreign) => {
                link.distrust(&used);
                return Err(damaged(RecordError::Foreign));
            }
            Err(_) => return Ok(None),
        };
        let of_this_log = log.cursor.epoch == after.epoch
            && (log.cursor.count > after.count || log.cursor == *after)
            && after.count > log.cursor.count - log.kept
            && frame_line(&line, 0).is_some_and(|(id, len)| {
                Some(id) == after.newest && end.last + LogHeader::FRAME + len + 1 == end.end
            });
        // The line feed that ends the record: the log is no shorter than it was.
        if !of_this_log || !frames.starts_with(b"\n") {
            return Ok(None);
        }
        let found = FoundLog { log, frames: Bytes::from(frames).slice(1..), known: true };
        match found.loaded(key, Some(after), &self.ends) {
            Ok(loaded) => Ok(Some(loaded)),
            Err(_) => Ok(None),
        }
    }

    /// All of a log, without a script: the server need not copy it twice.
    async fn whole(
        &self,
        link: &Link,
        key: &SessionKey,
    ) -> Result<(Option<FoundLog>, UsedConnection), StoreError> {
        let mut get = redis::cmd("GET");
        get.arg(self.keys.log(key));
        let (value, used) = link.call(&RedisCall::Command(&get), self.limits).await?;
        let found = match value {
            Value::Nil => None,
            Value::BulkString(bytes) => {
                let log = self.header(&bytes, key, link, &used)?;
                if log.first > bytes.len() {
                    return Err(damaged(RecordError::Malformed("the log is cut off")));
                }
                Some(FoundLog { frames: Bytes::from(bytes).slice(log.first..), log, known: false })
            }
            _ => return Err(unexpected()),
        };
        Ok((found, used))
    }

    async fn tail(
        &self,
        link: &Link,
        key: &SessionKey,
        after: Option<&Cursor>,
        refresh: bool,
    ) -> Result<(Option<FoundLog>, UsedConnection), StoreError> {
        let start = Cursor::start_of(Epoch::UNBORN);
        let cursor = after.unwrap_or(&start);
        let load = Invocation::new(&script::LOAD, &[self.keys.log(key)])
            .arg(hex(key.digest().as_bytes()))
            .arg(hex(cursor.epoch.as_bytes()))
            .arg(after.map_or(-1, |after| i64::try_from(after.count).unwrap_or(i64::MAX)))
            .arg(newest_hex(cursor.newest))
            .arg(if refresh { millis(self.retention.ttl) } else { 0 });
        let (value, used) = link.call(&RedisCall::Script(&load), self.limits).await?;
        if matches!(value, Value::Nil) {
            return Ok((None, used));
        }
        let Value::Array(parts) = value else { return Err(unexpected()) };
        match <[Value; 3]>::try_from(parts) {
            Ok([Value::BulkString(header), Value::Int(known), Value::BulkString(frames)]) => {
                let log = self.header(&header, key, link, &used)?;
                Ok((Some(FoundLog { log, frames: frames.into(), known: known == 1 }), used))
            }
            Ok(_) | Err(_) => Err(unexpected()),
        }
    }

    fn header(
        &self,
        value: &[u8],
        key: &SessionKey,
        link: &Link,
        used: &UsedConnection,
    ) -> Result<LogHeader, StoreError> {
        LogHeader::read(value, key.digest()).map_err(|error| {
            if matches!(error, RecordError::Foreign) {
                link.distrust(used);
            }
            damaged(error)
        })
    }
}
