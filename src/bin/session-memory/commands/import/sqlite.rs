//! The SQLite file of the OpenAI Agents SDK: `SQLiteSession`, its asynchronous and its advanced relatives.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, OpenFlags, types::ValueRef};

use super::{
    contents::{Bounds, Session},
    piece::Entry,
    report::{Skipped, Why},
};

/// The file, open for reading only.
pub(super) struct AgentsFile {
    connection: Connection,
    /// The table of the items, quoted.
    table: String,
    /// Whether `AdvancedSQLiteSession` keeps branches in it.
    has_branches: bool,
}

impl AgentsFile {
    /// Opens the file and checks that it has the table.
    ///
    /// # Errors
    ///
    /// When the file is missing, is no SQLite file, or lacks the table.
    pub(super) fn open(path: &Path, table: &str) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        let has_branches = connection.table_exists(None, "message_structure")?;
        let table = format!("\"{}\"", table.replace('"', "\"\""));
        connection.prepare(&format!("SELECT id, session_id, message_data, created_at FROM {table}"))?;
        Ok(Self { connection, table, has_branches })
    }

    /// The ids of its sessions.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub(super) fn sessions(&self) -> rusqlite::Result<Vec<Vec<u8>>> {
        let select = format!("SELECT DISTINCT session_id FROM {}", self.table);
        let mut statement = self.connection.prepare(&select)?;
        statement.query_map([], |row| Ok(bytes(row.get_ref(0)?)))?.collect()
    }

    /// The items of a session, oldest first.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub(super) fn read(&self, id: &str, bounds: Bounds) -> rusqlite::Result<Result<Session, Skipped>> {
        // One transaction, so that the rows that are measured are the rows that are read.
        let transaction = self.connection.unchecked_transaction()?;
        let table = &self.table;
        let size = format!(
            "SELECT COUNT(*), COALESCE(SUM(LENGTH(CAST(message_data AS BLOB))), 0) FROM {table} WHERE session_id = ?1"
        );
        let (count, bytes): (i64, i64) =
            transaction.query_row(&size, [id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if let Some(skipped) = bounds.refuse(count.unsigned_abs(), bytes.unsigned_abs()) {
            return Ok(Err(skipped));
        }
        let branches = if self.has_branches { self.branches(id)? } else { 0 };
        let select = match branches {
            0 => format!("FROM {table} AS m WHERE m.session_id = ?1 ORDER BY m.id"),
            _ => format!(
                "FROM {table} AS m JOIN message_structure AS s ON s.message_id = m.id \
                 WHERE s.session_id = ?1 AND s.branch_id = 'main' ORDER BY s.sequence_number"
            ),
        };
        let select = format!("SELECT m.message_data, CAST(strftime('%s', m.created_at) AS INTEGER) {select}");
        let mut statement = transaction.prepare(&select)?;
        let entries = statement.query_map([id], |row| {
            let at = row.get::<_, i64>(1).ok().and_then(|at| u64::try_from(at).ok());
            let at = at.and_then(|at| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at)));
            Ok(Entry { json: self::bytes(row.get_ref(0)?), at })
        })?;
        let entries = entries.collect::<rusqlite::Result<_>>()?;
        let left = if branches > 0 { vec![(0, Why::Branches(branches))] } else { Vec::new() };
        Ok(Ok(Session { entries, left }))
    }

    /// The number of branches beside the first. The branch in use is not stored.
    fn branches(&self, id: &str) -> rusqlite::Result<i64> {
        self.connection.query_row(
            "SELECT COUNT(DISTINCT branch_id) FROM message_structure WHERE session_id = ?1 AND branch_id <> 'main'",
            [id],
            |row| row.get(0),
        )
    }
}

/// Text or bytes unchanged; any other value is no JSON.
fn bytes(value: ValueRef<'_>) -> Vec<u8> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => Vec::new(),
    }
}
