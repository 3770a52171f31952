//! A connection that reads, on a thread of its own or on [the caller's](super::inline_reader). In WAL mode none waits for
//! the writer.

use std::{
    collections::HashSet,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use super::{
    chain::{self, ChainRecords},
    error::{damaged, store_error},
    file::FileId,
    queue::{Popped, Queue, closed},
    schema::SLOT,
    session_row::{self, SessionRow},
    transaction::at_one_moment,
};
use crate::{
    history::{Record, RecordId},
    session::{Principal, SessionId, SessionKey},
    store::{
        Cursor, Loaded, Page, PrincipalPage, PrincipalSummary, ReadOptions, RecordPage, Retention, Scope,
        SessionPage, SessionSummary, StoreError, StoreErrorKind,
        erasure::place,
        head::{CursorPlace, Head},
        retention::{Clock, expiry_time, system_time},
    },
};

/// One question that a caller waits for.
pub(super) struct Read {
    pub(super) question: Question,
    pub(super) deadline: Instant,
}

pub(super) enum Question {
    Load { key: SessionKey, after: Option<Cursor>, answer: oneshot::Sender<Result<LoadAnswer, StoreError>> },
    Read { key: SessionKey, options: ReadOptions, answer: oneshot::Sender<Result<RecordPage, StoreError>> },
    Sessions { scope: Scope, page: Page, answer: oneshot::Sender<Result<SessionPage, StoreError>> },
    Principals { namespace: String, page: Page, answer: oneshot::Sender<Result<PrincipalPage, StoreError>> },
}

pub(super) struct LoadAnswer {
    pub(super) loaded: Loaded,
    /// The expiry that the load is to give the session.
    pub(super) refresh: Option<i64>,
}

pub(super) struct Reader {
    pub(super) connection: Connection,
    pub(super) retention: Retention,
    pub(super) clock: Clock,
    /// Which file was opened.
    pub(super) file: FileId,
}

/// How much one load may read.
#[derive(Clone, Copy)]
pub(super) struct LoadLimit {
    pub(super) turns: u64,
    /// Of one turn.
    pub(super) bytes: usize,
}

impl LoadLimit {
    const ALL: Self = Self { turns: u64::MAX, bytes: usize::MAX };
}

impl Reader {
    /// Works until the queue is closed and empty.
    pub(super) fn run(self, reads: &Arc<Queue<Read>>) {
        let _end = AbandonInPanic(reads);
        loop {
            match reads.pop(Duration::from_secs(3600)) {
                Popped::Job(read) => self.answer(read),
                Popped::Idle => {}
                Popped::Closed => return,
            }
        }
    }

    fn answer(&self, read: Read) {
        let refused = match read.deadline <= Instant::now() {
            true => Err(StoreError::new(StoreErrorKind::Unavailable)),
            false => self.is_still_there(),
        };
        // The caller may have left: before the work, which is then spared, or since.
        match read.question {
            Question::Load { key, after, answer } if !answer.is_closed() => {
                let whole = || self.load(&key, after.as_ref(), LoadLimit::ALL)?.ok_or_else(corrupt);
                let _ = answer.send(refused.and_then(|()| whole()));
            }
            Question::Read { key, options, answer } if !answer.is_closed() => {
                let _ = answer.send(refused.and_then(|()| self.page(&key, &options)));
            }
            Question::Sessions { scope, page, answer } if !answer.is_closed() => {
                let _ = answer.send(refused.and_then(|()| self.sessions(&scope, &page)));
            }
            Question::Principals { namespace, page, answer } if !answer.is_closed() => {
                let _ = answer.send(refused.and_then(|()| self.principals(&namespace, &page)));
            }
            Question::Load { .. }
            | Question::Read { .. }
            | Question::Sessions { .. }
            | Question::Principals { .. } => {}
        }
    }

    /// The log after a cursor; `None` when there is more to read than that.
    pub(super) fn load(
        &self,
        key: &SessionKey,
        after: Option<&Cursor>,
        most: LoadLimit,
    ) -> Result<Option<LoadAnswer>, StoreError> {
        self.is_still_there()?;
        let now = self.clock.now();
        // So that the head and the turns are of one moment.
        at_one_moment(&self.connection, |connection| {
            let found = session_row::find(connection, key).map_err(store_error)?;
            let Some(session) = found.filter(|session| session.expires > now) else {
                return Ok(Some(LoadAnswer { loaded: Loaded::unknown(after), refresh: None }));
            };
            let Some((from_start, turns)) = turns(connection, key, &session, after, most)? else {
                return Ok(None);
            };
            let refresh = self.retention.refreshed(session.expires, now).filter(|_| session.head.count > 0);
            let (cursor, trimmed) = (session.head.cursor(), session.head.trimmed);
            let loaded = Loaded { cursor, records: turns.into(), from_start, trimmed };
            Ok(Some(LoadAnswer { loaded, refresh }))
        })
    }

    fn page(&self, key: &SessionKey, options: &ReadOptions) -> Result<RecordPage, StoreError> {
        self.is_still_there()?;
        let now = self.clock.now();
        at_one_moment(&self.connection, |connection| {
            let found = session_row::find(connection, key).map_err(store_error)?;
            let Some(session) = found.filter(|session| session.expires > now) else {
                return Ok(RecordPage::unknown());
            };
            let Head { count, trimmed, .. } = session.head;
            let (first, mut bytes) = (options.from.clamp(trimmed, count), 0);
            let records = chain::page(connection, &session, first, |records, more| {
                let takes = options.takes(records, bytes, more);
                bytes += more;
                takes
            });
            let records = decode(records.map_err(store_error)?, key)?;
            // A page without records goes nowhere: the log is damaged.
            if records.is_empty() && first < count {
                return Err(corrupt());
            }
            Ok(RecordPage::new(session.head.cursor(), first, records))
        })
    }

    /// The writer will notice, too; until then no answer comes from a file that is gone.
    fn is_still_there(&self) -> Result<(), StoreError> {
        if self.file.is_still_there() { Ok(()) } else { Err(closed()) }
    }

    fn sessions(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        let before = place(page, i64::MAX as u64)?.min(i64::MAX as u64) as i64;
        let limit = page.size();
        let mut found = self.listed(scope, before, limit + 1).map_err(store_error)?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|listed| listed.touched.to_string());
        let sessions = found.into_iter().map(Listed::summary).collect::<Result<_, _>>()?;
        Ok(SessionPage { sessions, next })
    }

    /// A principal stands where its newest session does; the others of it are passed over.
    fn principals(&self, namespace: &str, page: &Page) -> Result<PrincipalPage, StoreError> {
        let before = place(page, i64::MAX as u64)?.min(i64::MAX as u64) as i64;
        let limit = page.size();
        let now = self.clock.now();
        let mut principals = PrincipalPage::default();
        let mut look = || -> rusqlite::Result<()> {
            let mut newest = self.connection.prepare_cached(NEWEST_OF)?;
            let mut recent = self.connection.prepare_cached(RECENT)?;
            let mut rows = recent.query(params![namespace, before / SLOT, before, now, LOOKED_THROUGH])?;
            // Newest first: a principal that was met on this page stands before.
            let mut met = HashSet::new();
            let (mut looked, mut last) = (0, None);
            while let Some(row) = rows.next()? {
                let touched: i64 = row.get(2)?;
                if principals.principals.len() == limit {
                    principals.next = last.map(|last: i64| last.to_string());
                    return Ok(());
                }
                let principal: String = row.get(0)?;
                if !met.contains(&principal) {
                    let first: i64 =
                        newest.query_row(params![namespace, principal, now], |row| row.get(0))?;
                    if first == touched {
                        let updated = system_time(row.get(1)?);
                        let summary = PrincipalSummary::new(Principal::new(principal.clone()), updated);
                        principals.principals.push(summary);
                    }
                    met.insert(principal);
                }
                (looked, last) = (looked + 1, Some(touched));
            }
            if looked == LOOKED_THROUGH {
                principals.next = last.map(|last| last.to_string());
            }
            Ok(())
        };
        look().map_err(store_error)?;
        Ok(principals)
    }

    fn listed(&self, scope: &Scope, before: i64, limit: usize) -> rusqlite::Result<Vec<Listed>> {
        let now = self.clock.now();
        self.connection
            .prepare_cached(LISTED)?
            .query_map(
                params![scope.namespace, scope.principal.as_str(), before / SLOT, before, now, limit as i64],
                |row| {
                    Ok(Listed {
                        id: row.get(0)?,
                        turns: row.get(1)?,
                        updated: row.get(2)?,
                        touched: row.get(3)?,
                        bytes: row.get(4)?,
                        created: row.get(5)?,
                        expires: row.get(6)?,
                        model: row.get(7)?,
                        title: row.get(8)?,
                    })
                },
            )?
            .collect()
    }
}

/// Sessions of a principal, from the most recently appended to on. At one time only one slot is sorted.
pub(super) const LISTED: &str = "
    SELECT id, count - trimmed, updated_at, touched, bytes, created_at, expires, model, title FROM sessions
    WHERE namespace = ?1 AND principal = ?2 AND slot <= ?3 AND touched < ?4 AND expires > ?5
    ORDER BY slot DESC, touched DESC LIMIT ?6";
/// Sessions of a namespace in the same order.
pub(super) const RECENT: &str = "
    SELECT principal, updated_at, touched FROM sessions
    WHERE namespace = ?1 AND slot IS NOT NULL AND slot <= ?2 AND touched < ?3 AND expires > ?4
    ORDER BY slot DESC, touched DESC LIMIT ?5";
/// A principal's newest session.
pub(super) const NEWEST_OF: &str = "
    SELECT touched FROM sessions
    WHERE namespace = ?1 AND principal = ?2 AND slot IS NOT NULL AND expires > ?3
    ORDER BY slot DESC, touched DESC LIMIT 1";

/// Sessions that one page of principals looks at.
const LOOKED_THROUGH: i64 = 4096;

/// Should a reader panic, no caller waits for it forever.
struct AbandonInPanic<'a>(&'a Queue<Read>);

impl Drop for AbandonInPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            drop(self.0.abandon());
        }
    }
}

fn corrupt() -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt)
}

struct Listed {
    id: String,
    turns: i64,
    updated: i64,
    touched: i64,
    bytes: i64,
    created: i64,
    expires: i64,
    model: Option<String>,
    title: Option<String>,
}

impl Listed {
    fn summary(self) -> Result<SessionSummary, StoreError> {
        let number = |number: i64| u64::try_from(number).map_err(|_| corrupt());
        Ok(SessionSummary {
            id: SessionId::from_bytes(self.id.as_bytes()).map_err(|_| corrupt())?,
            turns: number(self.turns)?,
            bytes: number(self.bytes)?,
            created_at: system_time(self.created),
            updated_at: system_time(self.updated),
            expires_at: expiry_time(self.expires),
            model: self.model,
            title: self.title,
        })
    }
}

/// What the caller does not have, and whether that is the whole log; `None` when that is more than may be read.
fn turns(
    connection: &Connection,
    key: &SessionKey,
    session: &SessionRow,
    after: Option<&Cursor>,
    most: LoadLimit,
) -> Result<Option<(bool, Vec<Record>)>, StoreError> {
    let Head { count, trimmed, newest, .. } = session.head;
    let known = match session.head.place(after) {
        CursorPlace::Unknown => None,
        CursorPlace::Start => Some((0, None)),
        CursorPlace::After(known, id) if known == count => (Some(id) == newest).then_some((known, newest)),
        CursorPlace::After(known, id) => Some((known, Some(id))),
    };
    if let Some((known, id)) = known {
        match newer(connection, key, session, known, most)? {
            Some(NewerTurns { turns, before }) if before == id => return Ok(Some((false, turns))),
            Some(_) => {}
            None => return Ok(None),
        }
    }
    Ok(newer(connection, key, session, trimmed, most)?.map(|newer| (true, newer.turns)))
}

/// The end of a log.
struct NewerTurns {
    turns: Vec<Record>,
    /// The turn before them, if it is known.
    before: Option<RecordId>,
}

/// The turns after that many, which must all be there; `None` when that is more than may be read.
fn newer(
    connection: &Connection,
    key: &SessionKey,
    session: &SessionRow,
    skipped: u64,
    most: LoadLimit,
) -> Result<Option<NewerTurns>, StoreError> {
    let Head { count, newest, .. } = session.head;
    let expected = count - skipped;
    if expected == 0 {
        return Ok(Some(NewerTurns { turns: Vec::new(), before: newest }));
    }
    if expected > most.turns {
        return Ok(None);
    }
    let ChainRecords { records, before } =
        chain::records(connection, session, skipped, most.bytes).map_err(store_error)?;
    let turns = decode(records, key)?;
    let whole = turns.len() as u64 == expected && turns.last().map(Record::id) == newest;
    // A reader without this limit finds out whether the rest is too large or damaged.
    if whole { Ok(Some(NewerTurns { turns, before })) } else { Ok(None) }
}

fn decode(records: Vec<(RecordId, Bytes)>, key: &SessionKey) -> Result<Vec<Record>, StoreError> {
    let decode = |(id, record)| {
        let record = Record::decode(record, key.digest()).map_err(damaged)?;
        // The row of one turn with the record of another.
        if record.id() != id { Err(corrupt()) } else { Ok(record) }
    };
    records.into_iter().map(decode).collect()
}

#[cfg(test)]
mod tests;
