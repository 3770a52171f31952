//! The statements. Each function runs inside its caller's transaction.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::{no_randomness, store_error};
use crate::{
    history::{Parent, Turn, TurnId},
    session::SessionKey,
    store::{Appended, Cursor, Epoch, StoreError, head::Head, retention::Retention},
};

/// A log or tombstone, expired or not.
pub(super) struct Session {
    pub(super) row: i64,
    pub(super) head: Head,
    pub(super) expires: i64,
}

/// What one round of the sweep removes at most.
const SWEPT_SESSIONS: i64 = 64;
const SWEPT_TURNS: i64 = 2048;

pub(super) fn find(connection: &Connection, key: &SessionKey) -> rusqlite::Result<Option<Session>> {
    connection
        .prepare_cached(
            "SELECT row, epoch, fresh, count, trimmed, newest, expires_at FROM sessions
             WHERE namespace = ?1 AND principal = ?2 AND id = ?3",
        )?
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
    let found = find(connection, key).map_err(store_error)?;
    let mut head = match &found {
        Some(session) if session.expires > now => {
            let kept = is_kept(connection, session.row, turn.id()).map_err(store_error)?;
            if kept.is_some() {
                return Ok(Appended::AlreadyThere(session.head.cursor()));
            }
            if !session.head.accepts(at) || !has_parent(connection, session.row, turn).map_err(store_error)? {
                return Ok(Appended::Gone);
            }
            session.head
        }
        _ if matches!(turn.parent(), Parent::Turn(_)) => return Ok(Appended::Gone),
        expired => {
            if let Some(expired) = expired {
                clear(connection, expired.row).map_err(store_error)?;
            }
            Head::fresh().map_err(no_randomness)?
        }
    };
    head = head.with(turn.id());
    let excess = head.excess(retention.max_turns);
    head.trimmed += excess;
    let row = put(connection, key, &head, now, retention.session_expiry(now)).map_err(store_error)?;
    insert(connection, row, head.count, turn).map_err(store_error)?;
    if excess > 0 {
        trim(connection, row, head.trimmed - excess, head.trimmed).map_err(store_error)?;
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
    if let Some(session) = find(connection, key).map_err(store_error)? {
        clear(connection, session.row).map_err(store_error)?;
    }
    let tombstone = Head::tombstone().map_err(no_randomness)?;
    put(connection, key, &tombstone, now, retention.tombstone_expiry(now)).map_err(store_error)?;
    Ok(())
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
            "UPDATE sessions SET expires_at = max(expires_at, ?4)
             WHERE namespace = ?1 AND principal = ?2 AND id = ?3 AND expires_at > ?5 AND count > 0",
        )?
        .execute(params![key.namespace(), key.principal().as_str(), key.id().as_str(), expires, now])?;
    Ok(())
}

/// Removes a part of what expired; whether there may be more.
pub(super) fn sweep(connection: &Connection, now: i64) -> rusqlite::Result<bool> {
    let expired: Vec<i64> = connection
        .prepare_cached("SELECT row FROM sessions WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2")?
        .query_map(params![now, SWEPT_SESSIONS], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut room = SWEPT_TURNS;
    for row in &expired {
        let removed = connection
            .prepare_cached(
                "DELETE FROM turns WHERE rowid IN (SELECT rowid FROM turns WHERE session = ?1 LIMIT ?2)",
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

/// Whether the turn's record is kept; `None` for a turn that was never here.
fn is_kept(connection: &Connection, row: i64, id: TurnId) -> rusqlite::Result<Option<bool>> {
    connection
        .prepare_cached("SELECT record IS NOT NULL FROM turns WHERE session = ?1 AND id = ?2")?
        .query_row(params![row, id.as_bytes()], |row| row.get(0))
        .optional()
}

/// The turn's place in the log.
pub(super) fn seq(connection: &Connection, row: i64, id: TurnId) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT seq FROM turns WHERE session = ?1 AND id = ?2")?
        .query_row(params![row, id.as_bytes()], |row| row.get(0))
        .optional()
}

/// The records after that many turns, each with the id that its row names.
pub(super) fn records(
    connection: &Connection,
    row: i64,
    skipped: u64,
) -> rusqlite::Result<Vec<(TurnId, Bytes)>> {
    connection
        .prepare_cached(
            "SELECT id, record FROM turns WHERE session = ?1 AND seq > ?2 AND record IS NOT NULL ORDER BY seq",
        )?
        .query_map(params![row, skipped as i64], |row| {
            Ok((TurnId::from_bytes(row.get(0)?), Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?)))
        })?
        .collect()
}

fn has_parent(connection: &Connection, row: i64, turn: &Turn) -> rusqlite::Result<bool> {
    match turn.parent() {
        Parent::Previous | Parent::Root => Ok(true),
        Parent::Turn(parent) => Ok(is_kept(connection, row, parent)? == Some(true)),
    }
}

/// Writes the session's row, as the most recently changed of its principal.
fn put(
    connection: &Connection,
    key: &SessionKey,
    head: &Head,
    now: i64,
    expires: i64,
) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "INSERT INTO sessions (namespace, principal, id, epoch, fresh, count, trimmed, newest,
                                   touched, created_at, updated_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8,
                     (SELECT coalesce(max(touched), 0) + 1 FROM sessions
                      WHERE namespace = ?1 AND principal = ?2 AND count > 0),
                     ?9, ?9, ?10)
             ON CONFLICT (namespace, principal, id) DO UPDATE SET
                 epoch = excluded.epoch, fresh = excluded.fresh, count = excluded.count,
                 trimmed = excluded.trimmed, newest = excluded.newest, touched = excluded.touched,
                 created_at = iif(excluded.count > 1, created_at, excluded.created_at),
                 updated_at = excluded.updated_at, expires_at = excluded.expires_at
             RETURNING row",
        )?
        .query_row(
            params![
                key.namespace(),
                key.principal().as_str(),
                key.id().as_str(),
                head.epoch.as_bytes(),
                head.fresh,
                head.count as i64,
                head.trimmed as i64,
                head.newest.as_ref().map(TurnId::as_bytes),
                now,
                expires,
            ],
            |row| row.get(0),
        )
}

fn insert(connection: &Connection, row: i64, seq: u64, turn: &Turn) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO turns (session, seq, id, record) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![row, seq as i64, turn.id().as_bytes(), &turn.record()[..]])?;
    Ok(())
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
    let head = Head {
        epoch: Epoch::from_bytes(row.get(1)?),
        fresh: row.get(2)?,
        count: count(row, 3)?,
        trimmed: count(row, 4)?,
        newest: row.get::<_, Option<[u8; 16]>>(5)?.map(TurnId::from_bytes),
    };
    if head.trimmed > head.count || head.newest.is_none() != (head.count == 0) {
        return Err(rusqlite::Error::IntegralValueOutOfRange(4, head.trimmed as i64));
    }
    Ok(Session { row: row.get(0)?, head, expires: row.get(6)? })
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}
