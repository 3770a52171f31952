//! The threads that read. Each has a connection of its own and takes the next job; in WAL mode none waits for
//! the writer.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use super::{
    error::{damaged, store_error},
    file::FileId,
    log,
    queue::{Popped, Queue},
    writer::closed,
};
use crate::{
    history::Turn,
    session::{SessionId, SessionKey},
    store::{
        Cursor, Epoch, Loaded, Page, Scope, SessionPage, SessionSummary, StoreError, StoreErrorKind,
        head::{Head, Place},
        retention::{Retention, system_time},
    },
};

/// One question that somebody waits for.
pub(super) struct Read {
    pub(super) question: Question,
    pub(super) deadline: Instant,
}

pub(super) enum Question {
    Load { key: SessionKey, after: Option<Cursor>, answer: oneshot::Sender<Result<Answer, StoreError>> },
    Sessions { scope: Scope, page: Page, answer: oneshot::Sender<Result<SessionPage, StoreError>> },
}

pub(super) struct Answer {
    pub(super) loaded: Loaded,
    /// The expiry that the load is to give the session.
    pub(super) refresh: Option<i64>,
}

pub(super) struct Reader {
    pub(super) connection: Connection,
    pub(super) reads: Arc<Queue<Read>>,
    pub(super) retention: Retention,
    /// Which file was opened.
    pub(super) file: FileId,
}

impl Reader {
    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        loop {
            match self.reads.pop(Duration::from_secs(3600)) {
                Popped::Job(read) => self.answer(read),
                Popped::Idle => {}
                Popped::Closed => return,
            }
        }
    }

    fn answer(&mut self, read: Read) {
        let refused = if read.deadline <= Instant::now() {
            Err(StoreError::new(StoreErrorKind::Unavailable))
        } else if !self.file.is_still_there() {
            Err(closed()) // the writer will notice, too; until then nobody is shown a file that is gone
        } else {
            Ok(())
        };
        // Whoever asked may have left: before the work, which is then spared, or since.
        match read.question {
            Question::Load { key, after, answer } if !answer.is_closed() => {
                let _ = answer.send(refused.and_then(|()| self.load(&key, after.as_ref())));
            }
            Question::Sessions { scope, page, answer } if !answer.is_closed() => {
                let _ = answer.send(refused.and_then(|()| self.sessions(&scope, &page)));
            }
            Question::Load { .. } | Question::Sessions { .. } => {}
        }
    }

    fn load(&mut self, key: &SessionKey, after: Option<&Cursor>) -> Result<Answer, StoreError> {
        let now = self.retention.clock.now();
        // One transaction, so that the head and the turns are of one moment.
        let transaction = self.connection.transaction().map_err(store_error)?;
        let found = log::find(&transaction, key).map_err(store_error)?;
        let Some(session) = found.filter(|session| session.expires > now) else {
            let cursor = Cursor::start_of(Epoch::UNBORN);
            let from_start = after != Some(&cursor);
            let loaded = Loaded { cursor, turns: Vec::new().into(), from_start, trimmed: 0 };
            return Ok(Answer { loaded, refresh: None });
        };
        let known = known(&transaction, &session, after).map_err(store_error)?;
        let turns = turns(&transaction, key, &session, known.unwrap_or(session.head.trimmed))?;
        let refresh = self.retention.refreshed(session.expires, now).filter(|_| session.head.count > 0);
        let Head { trimmed, .. } = session.head;
        let loaded = Loaded {
            cursor: session.head.cursor(),
            turns: turns.into(),
            from_start: known.is_none(),
            trimmed,
        };
        Ok(Answer { loaded, refresh })
    }

    fn sessions(&mut self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        let before = page.after.as_deref().map_or(Ok(i64::MAX), str::parse);
        let before = before.map_err(|error| StoreError::with_source(StoreErrorKind::Other, error))?;
        let limit = page.limit.clamp(1, 1000);
        let mut found = self.listed(scope, before, limit + 1).map_err(store_error)?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|listed| listed.touched.to_string());
        let sessions = found.into_iter().map(Listed::summary).collect::<Result<_, _>>()?;
        Ok(SessionPage { sessions, next })
    }

    fn listed(&self, scope: &Scope, before: i64, limit: usize) -> rusqlite::Result<Vec<Listed>> {
        let now = self.retention.clock.now();
        self.connection
            .prepare_cached(
                "SELECT id, count - trimmed, updated_at, touched FROM sessions
                 WHERE namespace = ?1 AND principal = ?2 AND count > 0 AND touched < ?3 AND expires_at > ?4
                 ORDER BY touched DESC LIMIT ?5",
            )?
            .query_map(
                params![scope.namespace, scope.principal.as_str(), before, now, limit as i64],
                |row| {
                    Ok(Listed {
                        id: row.get(0)?,
                        turns: row.get(1)?,
                        updated: row.get(2)?,
                        touched: row.get(3)?,
                    })
                },
            )?
            .collect()
    }
}

impl Drop for Reader {
    /// Should a reader panic, nobody waits for it forever.
    fn drop(&mut self) {
        if thread::panicking() {
            drop(self.reads.abandon());
        }
    }
}

struct Listed {
    id: String,
    turns: i64,
    updated: i64,
    touched: i64,
}

impl Listed {
    fn summary(self) -> Result<SessionSummary, StoreError> {
        let corrupt = |_| StoreError::new(StoreErrorKind::Corrupt);
        Ok(SessionSummary {
            id: SessionId::from_bytes(self.id.as_bytes()).map_err(corrupt)?,
            turns: u64::try_from(self.turns).map_err(|_| StoreError::new(StoreErrorKind::Corrupt))?,
            updated_at: system_time(self.updated),
        })
    }
}

/// How many turns the caller has already; `None` if its cursor says nothing here.
fn known(
    connection: &Connection,
    session: &log::Session,
    after: Option<&Cursor>,
) -> rusqlite::Result<Option<u64>> {
    Ok(match session.head.place(after) {
        Place::Unknown => None,
        Place::Start => Some(0),
        Place::After(count, id) => {
            (log::seq(connection, session.row, id)? == Some(count as i64)).then_some(count)
        }
    })
}

/// The turns after that many, which must all be there.
fn turns(
    connection: &Connection,
    key: &SessionKey,
    session: &log::Session,
    skipped: u64,
) -> Result<Vec<Turn>, StoreError> {
    let records = log::records(connection, session.row, skipped).map_err(store_error)?;
    let turns: Vec<Turn> = records
        .into_iter()
        .map(|(id, record)| {
            let turn = Turn::decode(record, key.digest()).map_err(damaged)?;
            // The row of one turn with the record of another.
            if turn.id() != id { Err(StoreError::new(StoreErrorKind::Corrupt)) } else { Ok(turn) }
        })
        .collect::<Result<_, _>>()?;
    let Head { count, newest, .. } = session.head;
    let whole =
        turns.len() as u64 == count - skipped && turns.last().is_none_or(|turn| Some(turn.id()) == newest);
    if !whole {
        return Err(StoreError::new(StoreErrorKind::Corrupt));
    }
    Ok(turns)
}
