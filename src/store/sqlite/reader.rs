//! What reads: a connection of its own, on a thread that takes the next job or [on the spot](super::spot). In WAL mode
//! none waits for the writer.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use super::{
    chain::{self, Records},
    error::{damaged, store_error},
    file::FileId,
    log,
    queue::{Popped, Queue},
    schema::SLOT,
    transaction::at_one_moment,
    writer::closed,
};
use crate::{
    history::{Record, RecordId},
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
    pub(super) retention: Retention,
    /// Which file was opened.
    pub(super) file: FileId,
}

/// How much one load may read.
#[derive(Clone, Copy)]
pub(super) struct Most {
    pub(super) turns: u64,
    /// Of one turn.
    pub(super) bytes: usize,
}

impl Most {
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
        // Whoever asked may have left: before the work, which is then spared, or since.
        match read.question {
            Question::Load { key, after, answer } if !answer.is_closed() => {
                let whole = || self.load(&key, after.as_ref(), Most::ALL)?.ok_or_else(corrupt);
                let _ = answer.send(refused.and_then(|()| whole()));
            }
            Question::Sessions { scope, page, answer } if !answer.is_closed() => {
                let _ = answer.send(refused.and_then(|()| self.sessions(&scope, &page)));
            }
            Question::Load { .. } | Question::Sessions { .. } => {}
        }
    }

    /// The log after a cursor; `None` when there is more to read than that.
    pub(super) fn load(
        &self,
        key: &SessionKey,
        after: Option<&Cursor>,
        most: Most,
    ) -> Result<Option<Answer>, StoreError> {
        self.is_still_there()?;
        let now = self.retention.clock.now();
        // So that the head and the turns are of one moment.
        at_one_moment(&self.connection, |connection| {
            let found = log::find(connection, key).map_err(store_error)?;
            let Some(session) = found.filter(|session| session.expires > now) else {
                let cursor = Cursor::start_of(Epoch::UNBORN);
                let from_start = after != Some(&cursor);
                let loaded = Loaded { cursor, records: Vec::new().into(), from_start, trimmed: 0 };
                return Ok(Some(Answer { loaded, refresh: None }));
            };
            let Some((from_start, turns)) = turns(connection, key, &session, after, most)? else {
                return Ok(None);
            };
            let refresh = self.retention.refreshed(session.expires, now).filter(|_| session.head.count > 0);
            let (cursor, trimmed) = (session.head.cursor(), session.head.trimmed);
            let loaded = Loaded { cursor, records: turns.into(), from_start, trimmed };
            Ok(Some(Answer { loaded, refresh }))
        })
    }

    /// The writer will notice, too; until then nobody is shown a file that is gone.
    fn is_still_there(&self) -> Result<(), StoreError> {
        if self.file.is_still_there() { Ok(()) } else { Err(closed()) }
    }

    fn sessions(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
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
                 WHERE namespace = ?1 AND principal = ?2 AND slot <= ?3 AND touched < ?4 AND expires > ?5
                 ORDER BY slot DESC, touched DESC LIMIT ?6",
            )?
            .query_map(
                params![scope.namespace, scope.principal.as_str(), before / SLOT, before, now, limit as i64],
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

/// Should a reader panic, nobody waits for it forever.
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

/// What the caller does not have, and whether that is the whole log; `None` when that is more than may be read.
fn turns(
    connection: &Connection,
    key: &SessionKey,
    session: &log::Session,
    after: Option<&Cursor>,
    most: Most,
) -> Result<Option<(bool, Vec<Record>)>, StoreError> {
    let Head { count, trimmed, newest, .. } = session.head;
    let known = match session.head.place(after) {
        Place::Unknown => None,
        Place::Start => Some((0, None)),
        Place::After(known, id) if known == count => (Some(id) == newest).then_some((known, newest)),
        Place::After(known, id) => Some((known, Some(id))),
    };
    if let Some((known, id)) = known {
        match newer(connection, key, session, known, most)? {
            Some(Newer { turns, before }) if before == id => return Ok(Some((false, turns))),
            Some(_) => {}
            None => return Ok(None),
        }
    }
    Ok(newer(connection, key, session, trimmed, most)?.map(|newer| (true, newer.turns)))
}

/// The end of a log.
struct Newer {
    turns: Vec<Record>,
    /// The turn before them, if it is known.
    before: Option<RecordId>,
}

/// The turns after that many, which must all be there; `None` when that is more than may be read.
fn newer(
    connection: &Connection,
    key: &SessionKey,
    session: &log::Session,
    skipped: u64,
    most: Most,
) -> Result<Option<Newer>, StoreError> {
    let Head { count, newest, .. } = session.head;
    let expected = count - skipped;
    if expected == 0 {
        return Ok(Some(Newer { turns: Vec::new(), before: newest }));
    }
    if expected > most.turns {
        return Ok(None);
    }
    let Records { records, before } =
        chain::records(connection, session, skipped, most.bytes).map_err(store_error)?;
    let turns: Vec<Record> = records
        .into_iter()
        .map(|(id, record)| {
            let turn = Record::decode(record, key.digest()).map_err(damaged)?;
            // The row of one turn with the record of another.
            if turn.id() != id { Err(corrupt()) } else { Ok(turn) }
        })
        .collect::<Result<_, _>>()?;
    let whole = turns.len() as u64 == expected && turns.last().map(Record::id) == newest;
    // Of a part, whoever may read all tells whether it is too large or damaged.
    if whole { Ok(Some(Newer { turns, before })) } else { Ok(None) }
}
