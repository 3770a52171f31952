//! The statements. Each function runs inside its caller's transaction.
//!
//! They are few and plain, since they are what an append costs: SQLite prepares a statement with an `ON CONFLICT` and
//! a partial index anew for each execution, which took a quarter of the time.

use rusqlite::{Connection, OptionalExtension, Row, ToSql, params, params_from_iter};

use super::{chain, error::store_error, schema::SLOT};
use crate::{
    history::{Parent, Record, RecordId},
    session::SessionKey,
    store::{Appended, Cursor, Epoch, StoreError, head::Head, retention::Retention},
};

/// A log or tombstone, expired or not.
pub(super) struct Session {
    pub(super) row: i64,
    pub(super) head: Head,
    /// The highest id of all its turns: ids grow with time, so a higher one was never here.
    highest: Option<RecordId>,
    /// The place of its newest turn.
    touched: i64,
    pub(super) expires: i64,
    sweep: i64,
}

impl Session {
    /// Place and number of its newest turn.
    pub(super) fn newest(&self) -> Option<(i64, u64)> {
        (self.head.count > 0).then_some((self.touched, self.head.count))
    }
}

/// What an append executes.
const FIND: &str = "
    SELECT row, epoch, fresh, count, trimmed, newest, highest, touched, expires, sweep_from FROM sessions
    WHERE namespace = ?1 AND principal = ?2 AND id = ?3";
/// What no index is made of. Its parameters, and those of the two that follow, are [`write()`]'s.
const TOUCH: &str = "
    UPDATE sessions SET count = ?3, trimmed = ?4, newest = ?5, highest = ?6, touched = ?7, updated_at = ?9,
                        expires = ?10
    WHERE row = ?12";

const REWRITE: &str = "
    UPDATE sessions SET epoch = ?1, fresh = ?2, count = ?3, trimmed = ?4, newest = ?5, highest = ?6, touched = ?7,
                        slot = ?8, created_at = iif(?3 > 1, created_at, ?9), updated_at = ?9, expires = ?10,
                        sweep_from = ?11
    WHERE row = ?12";
const CREATE: &str = "
    INSERT INTO sessions (epoch, fresh, count, trimmed, newest, highest, touched, slot, created_at, updated_at,
                          expires, sweep_from, namespace, principal, id)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?10, ?11, ?12, ?13, ?14)";

/// What one round of the sweep removes at most.
const SWEPT_SESSIONS: i64 = 64;
const SWEPT_TURNS: u64 = 2048;

pub(super) fn find(connection: &Connection, key: &SessionKey) -> rusqlite::Result<Option<Session>> {
    connection
        .prepare_cached(FIND)?
        .query_row(params![key.namespace(), key.principal().as_str(), key.id().as_str()], session)
        .optional()
}

/// Adds a turn. An error may leave a part of it written, which is to be rolled back.
pub(super) fn append(
    connection: &Connection,
    key: &SessionKey,
    at: &Cursor,
    turn: &Record,
    now: i64,
    retention: &Retention,
) -> Result<Appended, StoreError> {
    let expires = retention.session_expiry(now);
    let mut after = After { now, expires, sweep: sweep_at(expires, now), highest: Some(turn.id()) };
    let found = find(connection, key).map_err(store_error)?;
    let session = match found {
        Some(session) if session.expires > now => {
            if session.highest >= Some(turn.id())
                && chain::number_of(connection, &session, turn.id()).map_err(store_error)?.is_some()
            {
                return Ok(Appended::AlreadyThere(session.head.cursor()));
            }
            if !session.head.accepts(at) || !has_parent(connection, &session, turn).map_err(store_error)? {
                return Ok(Appended::Gone);
            }
            after.highest = after.highest.max(session.highest);
            session
        }
        _ if matches!(turn.parent(), Parent::At(_)) => return Ok(Appended::Gone),
        Some(expired) => {
            clear(connection, &expired).map_err(store_error)?;
            Session { head: Head::fresh(), ..expired }
        }
        None => {
            let head = Head::fresh().with(turn.id());
            let row = create(connection, key, &head, &after).map_err(store_error)?;
            chain::insert(connection, row, head.count, None, turn, after.highest).map_err(store_error)?;
            return Ok(Appended::Appended { cursor: head.cursor(), before: None });
        }
    };
    let mut head = session.head.with(turn.id());
    let excess = head.excess(retention.max_turns);
    head.trimmed += excess;
    let previous = session.newest().map(|(place, _)| place);
    let place = chain::insert(connection, session.row, head.count, previous, turn, after.highest)
        .map_err(store_error)?;
    touch(connection, &session, &head, place, &after).map_err(store_error)?;
    if excess > 0 {
        let session = Session { head, touched: place, ..session };
        chain::trim(connection, &session, head.trimmed - excess, head.trimmed).map_err(store_error)?;
    }
    Ok(Appended::Appended { cursor: head.cursor(), before: session.head.newest })
}

/// Removes the log and leaves a tombstone.
pub(super) fn delete(
    connection: &Connection,
    key: &SessionKey,
    now: i64,
    retention: &Retention,
) -> Result<(), StoreError> {
    let tombstone = Head::tombstone();
    let expires = retention.tombstone_expiry(now);
    let after = After { now, expires, sweep: sweep_at(expires, now), highest: None };
    match find(connection, key).map_err(store_error)? {
        Some(session) => {
            clear(connection, &session).map_err(store_error)?;
            write(connection, REWRITE, &tombstone, 0, &after, &[&session.row]).map_err(store_error)
        }
        None => create(connection, key, &tombstone, &after).map(drop).map_err(store_error),
    }
}

/// Puts off a live log's expiry.
pub(super) fn refresh(
    connection: &Connection,
    key: &SessionKey,
    now: i64,
    expires: i64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE sessions SET expires = max(expires, ?4), sweep_from = max(sweep_from, ?5)
             WHERE namespace = ?1 AND principal = ?2 AND id = ?3 AND expires > ?6 AND count > 0",
        )?
        .execute(params![
            key.namespace(),
            key.principal().as_str(),
            key.id().as_str(),
            expires,
            sweep_at(expires, now),
            now
        ])?;
    Ok(())
}

/// Removes a part of what expired; whether there may be more.
pub(super) fn sweep(connection: &Connection, now: i64) -> rusqlite::Result<bool> {
    let expired: Vec<(i64, Option<i64>, u64)> = connection
        .prepare_cached(
            "SELECT row, iif(count > 0, touched, NULL), trimmed FROM sessions
             WHERE sweep_from <= ?1 ORDER BY sweep_from LIMIT ?2",
        )?
        .query_map(params![now, SWEPT_SESSIONS], |row| Ok((row.get(0)?, row.get(1)?, count(row, 2)?)))?
        .collect::<Result<_, _>>()?;
    let mut room = SWEPT_TURNS;
    let mut broken = Vec::new();
    for (row, newest, trimmed) in &expired {
        if let Some(newest) = newest {
            let removed = chain::remove(connection, *row, *newest, room)?;
            if removed.left.is_some() {
                connection
                    .prepare_cached("UPDATE sessions SET touched = ?2 WHERE row = ?1")?
                    .execute(params![row, removed.left])?;
                return Ok(true);
            }
            room -= removed.turns;
            if removed.met_a_gap(*trimmed) {
                broken.push(*row);
                continue;
            }
        }
        forget(connection, *row)?;
    }
    if !broken.is_empty() {
        // All at once: to find them takes a look at every turn of the table.
        if chain::remove_broken(connection, &broken, room)? == room {
            return Ok(true);
        }
        broken.iter().try_for_each(|row| forget(connection, *row))?;
    }
    Ok(expired.len() as i64 == SWEPT_SESSIONS)
}

/// Removes a session's row.
fn forget(connection: &Connection, row: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM sessions WHERE row = ?1")?.execute([row])?;
    Ok(())
}

/// What a session's row is to say after a change, beside its head.
struct After {
    now: i64,
    expires: i64,
    sweep: i64,
    highest: Option<RecordId>,
}

/// When the sweep is to look at a session that expires then: at that time or up to an hour or a 64th of its time to
/// live later, so that its place in the index changes rarely.
fn sweep_at(expires: i64, now: i64) -> i64 {
    let step = (expires.saturating_sub(now) / 64).clamp(1, 60 * 60 * 1000);
    (expires / step).saturating_add(1).saturating_mul(step)
}

fn has_parent(connection: &Connection, session: &Session, turn: &Record) -> rusqlite::Result<bool> {
    match turn.parent() {
        Parent::Previous | Parent::Root => Ok(true),
        Parent::At(place) if Some(place.turn) == session.head.newest => Ok(true),
        Parent::At(place) => {
            let number = chain::number_of(connection, session, place.turn)?;
            Ok(number.is_some_and(|number| number > session.head.trimmed))
        }
    }
}

/// Writes a session's first row; a log's first turn is to be inserted next.
fn create(connection: &Connection, key: &SessionKey, head: &Head, after: &After) -> rusqlite::Result<i64> {
    let touched: i64 = match head.count {
        0 => 0,
        _ => connection
            .prepare_cached("SELECT coalesce(max(place), 0) + 1 FROM turns")?
            .query_row([], |row| row.get(0))?,
    };
    let key: [&dyn ToSql; 3] = [&key.namespace(), &key.principal().as_str(), &key.id().as_str()];
    write(connection, CREATE, head, touched, after, &key)?;
    Ok(connection.last_insert_rowid())
}

/// Tells in the session's row of a turn that was added at this place.
fn touch(
    connection: &Connection,
    session: &Session,
    head: &Head,
    place: i64,
    after: &After,
) -> rusqlite::Result<()> {
    let indexed = slot(head, place) != slot(&session.head, session.touched) || after.sweep != session.sweep;
    write(connection, if indexed { REWRITE } else { TOUCH }, head, place, after, &[&session.row])
}

/// Executes what writes a session's row: the first eleven parameters are what it is to say, the others which it is.
fn write(
    connection: &Connection,
    statement: &str,
    head: &Head,
    touched: i64,
    after: &After,
    which: &[&dyn ToSql],
) -> rusqlite::Result<()> {
    let values = params![
        head.epoch.as_bytes(),
        head.fresh,
        head.count as i64,
        head.trimmed as i64,
        head.newest.as_ref().map(RecordId::as_bytes),
        after.highest.as_ref().map(RecordId::as_bytes),
        touched,
        slot(head, touched),
        after.now,
        after.expires,
        after.sweep,
    ];
    let values = params_from_iter(values.iter().chain(which));
    connection.prepare_cached(statement)?.execute(values)?;
    Ok(())
}

/// Tombstones are in no slot.
fn slot(head: &Head, touched: i64) -> Option<i64> {
    (head.count > 0).then_some(touched / SLOT)
}

/// Removes all turns of a session.
fn clear(connection: &Connection, session: &Session) -> rusqlite::Result<()> {
    let Some((newest, _)) = session.newest() else { return Ok(()) };
    let removed = chain::remove(connection, session.row, newest, u64::MAX)?;
    if removed.met_a_gap(session.head.trimmed) {
        chain::remove_broken(connection, &[session.row], u64::MAX)?;
    }
    Ok(())
}

fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    let id =
        |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<[u8; 16]>>(column)?.map(RecordId::from_bytes));
    let head = Head {
        epoch: Epoch::from_bytes(row.get(1)?),
        fresh: row.get(2)?,
        count: count(row, 3)?,
        trimmed: count(row, 4)?,
        newest: id(5)?,
    };
    if head.trimmed > head.count || head.newest.is_none() != (head.count == 0) {
        return Err(rusqlite::Error::IntegralValueOutOfRange(4, head.trimmed as i64));
    }
    Ok(Session {
        row: row.get(0)?,
        head,
        highest: id(6)?,
        touched: row.get(7)?,
        expires: row.get(8)?,
        sweep: row.get(9)?,
    })
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

#[cfg(test)]
mod tests;
