//! A session's row: what the table of sessions says of a log or a tombstone.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{
    history::RecordId,
    session::SessionKey,
    store::{Epoch, head::Head},
};

/// A log or tombstone, expired or not.
pub(super) struct SessionRow {
    pub(super) row: i64,
    pub(super) head: Head,
    /// The highest id of all its turns: ids grow with time, so a higher one was never here.
    pub(super) highest: Option<RecordId>,
    /// The place of its newest turn.
    pub(super) touched: i64,
    pub(super) expires: i64,
    pub(super) sweep: i64,
    /// Bytes of the records that are kept.
    pub(super) bytes: u64,
    /// The number of the newest turn that opens an exchange.
    pub(super) opened: u64,
}

impl SessionRow {
    /// Place and number of its newest turn.
    pub(super) fn newest(&self) -> Option<(i64, u64)> {
        (self.head.count > 0).then_some((self.touched, self.head.count))
    }
}

/// What an append executes.
pub(super) const FIND: &str = "
    SELECT row, epoch, fresh, count, trimmed, newest, highest, touched, expires, sweep_from, bytes, opened
    FROM sessions WHERE namespace = ?1 AND principal = ?2 AND id = ?3";

pub(super) fn find(connection: &Connection, key: &SessionKey) -> rusqlite::Result<Option<SessionRow>> {
    connection
        .prepare_cached(FIND)?
        .query_row(params![key.namespace(), key.principal().as_str(), key.id().as_str()], read)
        .optional()
}

/// Reads the columns that [`FIND`] names.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
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
    Ok(SessionRow {
        row: row.get(0)?,
        head,
        highest: id(6)?,
        touched: row.get(7)?,
        expires: row.get(8)?,
        sweep: row.get(9)?,
        bytes: count(row, 10)?,
        opened: count(row, 11)?,
    })
}

/// Reads a column that counts.
pub(super) fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}
