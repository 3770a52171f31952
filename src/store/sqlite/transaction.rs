//! Transactions that either take effect or leave nothing, and steps of one that can fail by themselves.

use std::{
    thread,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::error::{is_busy, store_error};
use crate::store::StoreError;

/// Where a transaction failed. It was rolled back.
pub(super) enum Failed {
    Begin(rusqlite::Error),
    /// A change made SQLite roll back the whole transaction, as it does when the disk is full.
    Work(StoreError),
    Commit(rusqlite::Error),
}

impl Failed {
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Work(error) => error,
            Self::Begin(error) | Self::Commit(error) => store_error(error),
        }
    }
}

/// Runs work in a transaction, which is committed or leaves nothing.
pub(super) fn within<T>(
    connection: &Connection,
    patience: Duration,
    work: impl FnOnce(&Connection) -> Result<T, Failed>,
) -> Result<T, Failed> {
    begin(connection, patience).map_err(Failed::Begin)?;
    let done = work(connection).and_then(|done| execute(connection, "COMMIT").map(|()| done));
    if done.is_err() && !connection.is_autocommit() {
        // Should this fail too, the next BEGIN says so.
        let _ = execute(connection, "ROLLBACK");
    }
    done
}

/// Takes the write lock. SQLite's own way to wait for it sleeps longer and longer, up to a tenth of a second:
/// beside a busy process that would mean to miss every gap that it leaves.
fn begin(connection: &Connection, patience: Duration) -> rusqlite::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match connection.prepare_cached("BEGIN IMMEDIATE")?.execute([]) {
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                #[expect(clippy::disallowed_methods, reason = "this thread is the store's own")]
                thread::sleep(BETWEEN_TRIES);
            }
            begun => return begun.map(drop),
        }
    }
}

/// Runs work that reads, so that all of it sees one moment.
pub(super) fn at_one_moment<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    execute(connection, "BEGIN").map_err(Failed::into_error)?;
    let done = work(connection);
    let ended = match connection.is_autocommit() {
        true => Ok(()), // an error has ended it
        false => execute(connection, "COMMIT").map_err(Failed::into_error),
    };
    done.and_then(|done| ended.map(|()| done))
}

/// Runs one change of a transaction, which fails with it. Nearly none does, and [`apart`] costs as much as a change:
/// so this is tried first.
pub(super) fn together<T>(
    _connection: &Connection,
    work: &dyn Fn() -> Result<T, StoreError>,
) -> Result<Result<T, StoreError>, Failed> {
    work().map(Ok).map_err(Failed::Work)
}

/// Runs one change of a transaction so that its failure undoes nothing but itself.
pub(super) fn apart<T>(
    connection: &Connection,
    work: &dyn Fn() -> Result<T, StoreError>,
) -> Result<Result<T, StoreError>, Failed> {
    execute(connection, "SAVEPOINT work")?;
    let done = work();
    if done.is_err() {
        if connection.is_autocommit() {
            return done.map(Ok).map_err(Failed::Work);
        }
        execute(connection, "ROLLBACK TO work")?;
    }
    execute(connection, "RELEASE work")?;
    Ok(done)
}

fn execute(connection: &Connection, sql: &str) -> Result<(), Failed> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.execute([])).map_err(Failed::Commit)?;
    Ok(())
}

const BETWEEN_TRIES: Duration = Duration::from_millis(1);

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::store::StoreErrorKind;

    fn numbers(connection: &Connection) -> Vec<i64> {
        let mut numbers = connection.prepare("SELECT n FROM numbers ORDER BY n").unwrap();
        numbers.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn write(connection: &Connection, number: i64) -> Result<(), StoreError> {
        connection.execute("INSERT INTO numbers VALUES (?1)", [number]).map(drop).map_err(store_error)
    }

    fn connection() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE numbers (n INTEGER)").unwrap();
        connection
    }

    #[test]
    fn a_change_that_fails_half_way_leaves_nothing_and_takes_no_other_along() {
        let connection = connection();
        let done = within(&connection, Duration::ZERO, |connection| {
            let before = apart(connection, &|| write(connection, 1))?;
            let half = apart(connection, &|| {
                write(connection, 2)?;
                Err::<(), _>(StoreError::new(StoreErrorKind::Corrupt))
            })?;
            let after = apart(connection, &|| write(connection, 3))?;
            Ok((before.is_ok(), half.is_ok(), after.is_ok()))
        });
        assert_eq!(done.ok(), Some((true, false, true)));
        assert_eq!(numbers(&connection), [1, 3]);
    }

    #[test]
    fn a_transaction_that_fails_leaves_nothing_and_the_next_one_can_begin() {
        let connection = connection();
        let failed = within(&connection, Duration::ZERO, |connection| {
            apart(connection, &|| write(connection, 1))?.map_err(Failed::Work)?;
            Err::<(), _>(Failed::Work(StoreError::new(StoreErrorKind::Unavailable)))
        });
        assert!(failed.is_err());
        assert!(numbers(&connection).is_empty());
        let next = within(&connection, Duration::ZERO, |connection| {
            apart(connection, &|| write(connection, 2))?.map_err(Failed::Work)
        });
        assert!(next.is_ok());
        assert_eq!(numbers(&connection), [2]);
    }
}
