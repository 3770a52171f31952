//! The statements. Each function runs inside its caller's transaction.
//!
//! They are few and plain, since they are what an append costs: SQLite prepares a statement with an `ON CONFLICT` and
//! a partial index anew for each execution, which took a quarter of the time.

use rusqlite::{Connection, ToSql, params, params_from_iter};

use super::{
    chain::{self, OldestTurns},
    error::store_error,
    schema::SLOT,
    session_row::{self, SessionRow, count, find},
};
use crate::{
    history::{Parent, Record, RecordId},
    session::SessionKey,
    store::{
        Appended, Cursor, Erased, Page, Retention, Scope, StoreError, StoreErrorKind,
        erasure::{FURTHER, UnknownPage},
        head::Head,
        trim::{self, Excess, KeptRecords},
    },
};

/// What no index is made of. Its parameters, and those of the two that follow, are [`write()`]'s.
const TOUCH: &str = "
    UPDATE sessions SET count = ?3, trimmed = ?4, newest = ?5, highest = ?6, touched = ?7, updated_at = ?9,
                        expires = ?10, bytes = ?12, opened = ?13, model = coalesce(?14, model),
                        title = coalesce(?15, title)
    WHERE row = ?16";

const REWRITE: &str = "
    UPDATE sessions SET epoch = ?1, fresh = ?2, count = ?3, trimmed = ?4, newest = ?5, highest = ?6, touched = ?7,
                        slot = ?8, created_at = iif(?3 > 1, created_at, ?9), updated_at = ?9, expires = ?10,
                        sweep_from = ?11, bytes = ?12, opened = ?13, model = iif(?3 > 1, coalesce(?14, model), ?14),
                        title = iif(?3 > 1, coalesce(?15, title), ?15)
    WHERE row = ?16";
const CREATE: &str = "
    INSERT INTO sessions (epoch, fresh, count, trimmed, newest, highest, touched, slot, created_at, updated_at,
                          expires, sweep_from, bytes, opened, model, title, namespace, principal, id)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";

/// Sessions of a principal.
const OF_PRINCIPAL: &str = "
    SELECT row, epoch, fresh, count, trimmed, newest, highest, touched, expires, sweep_from, bytes, opened
    FROM sessions WHERE namespace = ?1 AND principal = ?2 AND slot IS NOT NULL LIMIT ?3";
/// Sessions of a namespace, slot by slot.
const BY_AGE: &str = "
    SELECT row, epoch, fresh, count, trimmed, newest, highest, touched, expires, sweep_from, bytes, opened,
           slot, updated_at
    FROM sessions WHERE namespace = ?1 AND slot IS NOT NULL AND (slot, row) > (?2, ?3)
    ORDER BY slot, row LIMIT ?4";

/// Sessions that one step of an expiry looks at.
const LOOKED_THROUGH: i64 = 256;

/// What one round of the sweep removes at most.
const SWEPT_SESSIONS: i64 = 64;
const SWEPT_TURNS: u64 = 2048;

/// Adds a turn. After an error a part of it may be written: the caller rolls back.
pub(super) fn append(
    connection: &Connection,
    key: &SessionKey,
    at: &Cursor,
    turn: &Record,
    now: i64,
    retention: &Retention,
) -> Result<Appended, StoreError> {
    let expires = retention.session_expiry(now);
    let mut after = RowUpdate {
        now,
        expires,
        sweep: sweep_at(expires, now),
        highest: Some(turn.id()),
        bytes: turn.bytes().len() as u64,
        opened: 1,
        model: trim::model(turn),
        title: trim::title(turn),
    };
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
            after.bytes += session.bytes;
            if session.head.count > 0 {
                let opens = trim::opens_exchange(turn);
                after.opened = if opens { session.head.count + 1 } else { session.opened };
            }
            session
        }
        _ if matches!(turn.parent(), Parent::At(_)) => return Ok(Appended::Gone),
        Some(expired) => {
            clear(connection, &expired).map_err(store_error)?;
            SessionRow { head: Head::fresh(), bytes: 0, opened: 0, ..expired }
        }
        None => {
            let head = Head::fresh().with(turn.id());
            let row = create(connection, key, &head, &after).map_err(store_error)?;
            chain::insert(connection, row, head.count, None, turn, after.highest).map_err(store_error)?;
            return Ok(Appended::Appended { cursor: head.cursor(), before: None });
        }
    };
    let head = session.head.with(turn.id());
    let previous = session.newest().map(|(place, _)| place);
    let place = chain::insert(connection, session.row, head.count, previous, turn, after.highest)
        .map_err(store_error)?;
    let now_longer = SessionRow { head, touched: place, ..session };
    let excess = excess(connection, &now_longer, &after, retention).map_err(store_error)?;
    let head = Head { trimmed: head.trimmed + excess.records, ..head };
    after.bytes = after.bytes.saturating_sub(excess.bytes);
    touch(connection, &session, &head, place, &after).map_err(store_error)?;
    if excess.records > 0 {
        let session = SessionRow { head, touched: place, ..session };
        chain::trim(connection, &session, head.trimmed - excess.records, head.trimmed)
            .map_err(store_error)?;
    }
    Ok(Appended::Appended { cursor: head.cursor(), before: session.head.newest })
}

/// The oldest records of a log that are past its bounds.
fn excess(
    connection: &Connection,
    session: &SessionRow,
    after: &RowUpdate<'_>,
    retention: &Retention,
) -> rusqlite::Result<Excess> {
    let Head { count, trimmed, .. } = session.head;
    let kept = KeptRecords {
        records: count - trimmed,
        bytes: after.bytes,
        before_newest_exchange: after.opened.saturating_sub(trimmed + 1),
    };
    let mut oldest = OldestTurns::new(connection, session);
    kept.excess(retention, |at| oldest.look(trimmed + 1 + at))
}

/// Removes the log and leaves a tombstone.
pub(super) fn delete(
    connection: &Connection,
    key: &SessionKey,
    now: i64,
    retention: &Retention,
) -> Result<(), StoreError> {
    let found = find(connection, key).map_err(store_error)?;
    let after = RowUpdate::deletion(now, retention);
    match found {
        Some(session) => bury(connection, &session, &after).map_err(store_error),
        None => create(connection, key, &Head::tombstone(), &after).map(drop).map_err(store_error),
    }
}

/// Removes a session's turns, and makes its row a tombstone.
fn bury(connection: &Connection, session: &SessionRow, after: &RowUpdate<'_>) -> rusqlite::Result<()> {
    clear(connection, session)?;
    write(connection, REWRITE, &Head::tombstone(), 0, after, &[&session.row])
}

/// One step of the erasure of a principal's sessions. Tombstones are in no slot, so what is left is in the index.
pub(super) fn delete_principal(
    connection: &Connection,
    scope: &Scope,
    most: usize,
    now: i64,
    retention: &Retention,
) -> rusqlite::Result<Erased> {
    let after = RowUpdate::deletion(now, retention);
    let found: Vec<SessionRow> = connection
        .prepare_cached(OF_PRINCIPAL)?
        .query_map(params![scope.namespace, scope.principal.as_str(), most as i64 + 1], session_row::read)?
        .collect::<Result<_, _>>()?;
    let mut erased = Erased::default();
    for session in &found {
        if erased.sessions == most as u64 || erased.records >= Erased::ENOUGH_RECORDS {
            erased.next = Some(FURTHER.to_owned());
            break;
        }
        bury(connection, session, &after)?;
        erased.add(session.head.count - session.head.trimmed, session.bytes);
    }
    Ok(erased)
}

/// Where an expiry goes on: a session's slot and row.
#[derive(Clone, Copy)]
pub(super) struct ExpiryPlace {
    slot: i64,
    row: i64,
}

impl ExpiryPlace {
    pub(super) fn of(page: &Page) -> Result<Self, StoreError> {
        let Some(after) = &page.after else { return Ok(Self { slot: -1, row: 0 }) };
        let parts = after.split_once('-').map(|(slot, row)| (slot.parse(), row.parse()));
        let Some((Ok(slot), Ok(row))) = parts else {
            return Err(StoreError::with_source(StoreErrorKind::Other, UnknownPage));
        };
        Ok(Self { slot, row })
    }
}

/// One step of the erasure of a namespace's sessions that were appended to last before this time.
///
/// The order of slots is the order of time, but for a clock that was set. Within a slot rows are in the order of their
/// creation: so the erasure ends where it goes from one slot into another and finds none.
pub(super) fn expire(
    connection: &Connection,
    namespace: &str,
    before: i64,
    after: ExpiryPlace,
    most: usize,
) -> rusqlite::Result<Erased> {
    let look = connection
        .prepare_cached(BY_AGE)?
        .query_map(params![namespace, after.slot, after.row, LOOKED_THROUGH], |row| {
            Ok((session_row::read(row)?, row.get::<_, i64>(12)?, row.get::<_, i64>(13)?))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    let mut erased = Erased::default();
    let (mut old, mut last) = (false, None);
    for (session, slot, updated) in &look {
        if *updated < before {
            old = true;
            if erased.sessions == most as u64 || erased.records >= Erased::ENOUGH_RECORDS {
                break;
            }
            clear(connection, session)?;
            forget(connection, session.row)?;
            erased.add(session.head.count - session.head.trimmed, session.bytes);
        }
        last = Some(format!("{slot}-{}", session.row));
    }
    let within_a_slot = look.first().map(|(_, slot, _)| slot) == look.last().map(|(_, slot, _)| slot);
    let more = old || (within_a_slot && look.len() as i64 == LOOKED_THROUGH);
    erased.next = last.filter(|_| more);
    Ok(erased)
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
struct RowUpdate<'a> {
    now: i64,
    expires: i64,
    sweep: i64,
    highest: Option<RecordId>,
    bytes: u64,
    opened: u64,
    /// Where the change names one.
    model: Option<&'a str>,
    title: Option<&'a str>,
}

impl RowUpdate<'_> {
    fn deletion(now: i64, retention: &Retention) -> Self {
        let expires = retention.tombstone_expiry(now);
        let sweep = sweep_at(expires, now);
        Self { now, expires, sweep, highest: None, bytes: 0, opened: 0, model: None, title: None }
    }
}

/// When the sweep is to look at a session that expires then: at that time or up to an hour or a 64th of its time to
/// live later, so that its place in the index changes rarely.
fn sweep_at(expires: i64, now: i64) -> i64 {
    let step = (expires.saturating_sub(now) / 64).clamp(1, 60 * 60 * 1000);
    (expires / step).saturating_add(1).saturating_mul(step)
}

fn has_parent(connection: &Connection, session: &SessionRow, turn: &Record) -> rusqlite::Result<bool> {
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
fn create(
    connection: &Connection,
    key: &SessionKey,
    head: &Head,
    after: &RowUpdate<'_>,
) -> rusqlite::Result<i64> {
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
    session: &SessionRow,
    head: &Head,
    place: i64,
    after: &RowUpdate<'_>,
) -> rusqlite::Result<()> {
    let indexed = slot(head, place) != slot(&session.head, session.touched) || after.sweep != session.sweep;
    write(connection, if indexed { REWRITE } else { TOUCH }, head, place, after, &[&session.row])
}

/// Executes what writes a session's row: the first fifteen parameters are what it is to say, the others which it is.
fn write(
    connection: &Connection,
    statement: &str,
    head: &Head,
    touched: i64,
    after: &RowUpdate<'_>,
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
        after.bytes as i64,
        after.opened as i64,
        after.model,
        after.title,
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
fn clear(connection: &Connection, session: &SessionRow) -> rusqlite::Result<()> {
    let Some((newest, _)) = session.newest() else { return Ok(()) };
    let removed = chain::remove(connection, session.row, newest, u64::MAX)?;
    if removed.met_a_gap(session.head.trimmed) {
        chain::remove_broken(connection, &[session.row], u64::MAX)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
