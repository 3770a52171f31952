//! The statements. Each function runs inside its caller's transaction.
//!
//! They are few and plain, since they are what an append costs: SQLite prepares a statement with an `ON CONFLICT` and
//! a partial index anew for each execution, which took a quarter of the time.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{error::store_error, schema::SLOT};
use crate::{
    history::{Parent, Turn, TurnId},
    session::SessionKey,
    store::{Appended, Cursor, Epoch, StoreError, head::Head, retention::Retention},
};

/// A log or tombstone, expired or not.
pub(super) struct Session {
    pub(super) row: i64,
    pub(super) head: Head,
    /// The highest id of all its turns: ids grow with time, so a higher one was never here.
    highest: Option<TurnId>,
    slot: Option<i64>,
    pub(super) expires: i64,
    sweep: i64,
}

/// What an append executes.
const FIND: &str = "
    SELECT row, epoch, fresh, count, trimmed, newest, highest, slot, expiry, sweep_at FROM sessions
    WHERE namespace = ?1 AND principal = ?2 AND id = ?3";
const INSERT: &str = "INSERT INTO turns (session, seq, id, record) VALUES (?1, ?2, ?3, ?4)";
const TOUCH: &str = "
    UPDATE sessions SET count = ?2, trimmed = ?3, newest = ?4, highest = ?5, touched = ?6, updated_at = ?7,
                        expiry = ?8
    WHERE row = ?1";

/// What one round of the sweep removes at most.
const SWEPT_SESSIONS: i64 = 64;
const SWEPT_TURNS: i64 = 2048;

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
    turn: &Turn,
    now: i64,
    retention: &Retention,
) -> Result<Appended, StoreError> {
    let expires = retention.session_expiry(now);
    let mut after = After { now, expires, sweep: sweep_at(expires, now), highest: Some(turn.id()) };
    let found = find(connection, key).map_err(store_error)?;
    let session = match found {
        Some(session) if session.expires > now => {
            if session.highest >= Some(turn.id())
                && place_of(connection, &session, turn.id()).map_err(store_error)?.is_some()
            {
                return Ok(Appended::AlreadyThere(session.head.cursor()));
            }
            if !session.head.accepts(at) || !has_parent(connection, &session, turn).map_err(store_error)? {
                return Ok(Appended::Gone);
            }
            after.highest = after.highest.max(session.highest);
            session
        }
        _ if matches!(turn.parent(), Parent::Turn(_)) => return Ok(Appended::Gone),
        Some(expired) => {
            clear(connection, expired.row).map_err(store_error)?;
            Session { head: Head::fresh(), slot: None, ..expired }
        }
        None => {
            let head = Head::fresh().with(turn.id());
            let row = create(connection, key, &head, &after).map_err(store_error)?;
            insert(connection, row, head.count, turn).map_err(store_error)?;
            return Ok(Appended::Appended(head.cursor()));
        }
    };
    let mut head = session.head.with(turn.id());
    let excess = head.excess(retention.max_turns);
    head.trimmed += excess;
    let place = insert(connection, session.row, head.count, turn).map_err(store_error)?;
    touch(connection, &session, &head, place, &after).map_err(store_error)?;
    if excess > 0 {
        trim(connection, session.row, head.trimmed - excess, head.trimmed).map_err(store_error)?;
    }
    Ok(Appended::Appended(head.cursor()))
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
            clear(connection, session.row).map_err(store_error)?;
            rewrite(connection, session.row, &tombstone, 0, &after).map_err(store_error)
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
            "UPDATE sessions SET expiry = max(expiry, ?4), sweep_at = max(sweep_at, ?5)
             WHERE namespace = ?1 AND principal = ?2 AND id = ?3 AND expiry > ?6 AND count > 0",
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
    let expired: Vec<i64> = connection
        .prepare_cached("SELECT row FROM sessions WHERE sweep_at <= ?1 ORDER BY sweep_at LIMIT ?2")?
        .query_map(params![now, SWEPT_SESSIONS], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut room = SWEPT_TURNS;
    for row in &expired {
        let removed = connection
            .prepare_cached(
                "DELETE FROM turns WHERE place IN (SELECT place FROM turns WHERE session = ?1 LIMIT ?2)",
            )?
            .execute(params![row, room])?;
        room -= removed as i64;
        if room <= 0 {
            return Ok(true);
        }
        connection.prepare_cached("DELETE FROM sessions WHERE row = ?1")?.execute([row])?;
    }
    Ok(expired.len() as i64 == SWEPT_SESSIONS)
}

/// What a session's row is to say after a change, beside its head.
struct After {
    now: i64,
    expires: i64,
    sweep: i64,
    highest: Option<TurnId>,
}

/// When the sweep is to look at a session that expires then: at that time or up to an hour or a 64th of its time to
/// live later, so that its place in the index changes rarely.
fn sweep_at(expires: i64, now: i64) -> i64 {
    let step = (expires.saturating_sub(now) / 64).clamp(1, 60 * 60 * 1000);
    (expires / step).saturating_add(1).saturating_mul(step)
}

/// The turn's place in the log, kept or trimmed. The newest are looked at first.
fn place_of(connection: &Connection, session: &Session, id: TurnId) -> rusqlite::Result<Option<u64>> {
    connection
        .prepare_cached("SELECT seq FROM turns WHERE session = ?1 AND +id = ?2 ORDER BY seq DESC LIMIT 1")?
        .query_row(params![session.row, id.as_bytes()], |row| count(row, 0))
        .optional()
}

/// Whether this turn is at this place of the log.
pub(super) fn is_at(connection: &Connection, row: i64, seq: u64, id: TurnId) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM turns WHERE session = ?1 AND seq = ?2 AND id = ?3")?
        .exists(params![row, seq as i64, id.as_bytes()])
}

/// The records after that many turns, each with the id that its row names; those that are not larger than so many
/// bytes.
pub(super) fn records(
    connection: &Connection,
    row: i64,
    skipped: u64,
    largest: usize,
) -> rusqlite::Result<Vec<(TurnId, Bytes)>> {
    connection
        .prepare_cached(
            "SELECT id, record FROM turns WHERE session = ?1 AND seq > ?2 AND length(record) <= ?3 ORDER BY seq",
        )?
        .query_map(params![row, skipped as i64, i64::try_from(largest).unwrap_or(i64::MAX)], |row| {
            Ok((TurnId::from_bytes(row.get(0)?), Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?)))
        })?
        .collect()
}

fn has_parent(connection: &Connection, session: &Session, turn: &Turn) -> rusqlite::Result<bool> {
    match turn.parent() {
        Parent::Previous | Parent::Root => Ok(true),
        Parent::Turn(parent) if Some(parent) == session.head.newest => Ok(true),
        Parent::Turn(parent) => {
            let place = place_of(connection, session, parent)?;
            Ok(place.is_some_and(|place| place > session.head.trimmed))
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
    connection
        .prepare_cached(
            "INSERT INTO sessions (namespace, principal, id, epoch, fresh, count, trimmed, newest, highest,
                                   touched, slot, created_at, updated_at, expiry, sweep_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12, ?13, ?14)",
        )?
        .execute(params![
            key.namespace(),
            key.principal().as_str(),
            key.id().as_str(),
            head.epoch.as_bytes(),
            head.fresh,
            head.count as i64,
            head.trimmed as i64,
            head.newest.as_ref().map(TurnId::as_bytes),
            after.highest.as_ref().map(TurnId::as_bytes),
            touched,
            slot(head, touched),
            after.now,
            after.expires,
            after.sweep,
        ])?;
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
    if slot(head, place) != session.slot || after.sweep != session.sweep {
        return rewrite(connection, session.row, head, place, after);
    }
    // What no index is made of.
    connection.prepare_cached(TOUCH)?.execute(params![
        session.row,
        head.count as i64,
        head.trimmed as i64,
        head.newest.as_ref().map(TurnId::as_bytes),
        after.highest.as_ref().map(TurnId::as_bytes),
        place,
        after.now,
        after.expires,
    ])?;
    Ok(())
}

fn rewrite(
    connection: &Connection,
    row: i64,
    head: &Head,
    touched: i64,
    after: &After,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE sessions SET epoch = ?2, fresh = ?3, count = ?4, trimmed = ?5, newest = ?6, highest = ?7,
                                 touched = ?8, slot = ?9, created_at = iif(?4 > 1, created_at, ?10),
                                 updated_at = ?10, expiry = ?11, sweep_at = ?12
             WHERE row = ?1",
        )?
        .execute(params![
            row,
            head.epoch.as_bytes(),
            head.fresh,
            head.count as i64,
            head.trimmed as i64,
            head.newest.as_ref().map(TurnId::as_bytes),
            after.highest.as_ref().map(TurnId::as_bytes),
            touched,
            slot(head, touched),
            after.now,
            after.expires,
            after.sweep,
        ])?;
    Ok(())
}

/// Tombstones are in no slot.
fn slot(head: &Head, touched: i64) -> Option<i64> {
    (head.count > 0).then_some(touched / SLOT)
}

/// Adds a turn behind all others, of whichever session; answers its place.
fn insert(connection: &Connection, row: i64, seq: u64, turn: &Turn) -> rusqlite::Result<i64> {
    connection.prepare_cached(INSERT)?.execute(params![
        row,
        seq as i64,
        turn.id().as_bytes(),
        &turn.record()[..]
    ])?;
    Ok(connection.last_insert_rowid())
}

/// Forgets the records of the turns after the one and up to the other.
fn trim(connection: &Connection, row: i64, after: u64, upto: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE turns SET record = NULL WHERE session = ?1 AND seq > ?2 AND seq <= ?3")?
        .execute(params![row, after as i64, upto as i64])?;
    connection
        .prepare_cached("DELETE FROM turns WHERE session = ?1 AND seq <= ?2")?
        .execute(params![row, upto as i64 - Retention::REMEMBERED as i64])?;
    Ok(())
}

fn clear(connection: &Connection, row: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM turns WHERE session = ?1")?.execute([row])?;
    Ok(())
}

fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    let id =
        |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<[u8; 16]>>(column)?.map(TurnId::from_bytes));
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
        slot: row.get(7)?,
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
