//! Moves the write-ahead log (WAL) into the file while the writer goes on.
//!
//! Saves: tens of milliseconds, nearly all of them waits for the disk, in which a write-ahead log of 16 MiB is moved.
//! Without it: SQLite does that in the middle of some transaction, and every append that shares it waits.
//! Held by: `the_log_is_moved_while_the_writer_is_in_the_middle_of_a_transaction` and the tests beside it, below.
//!
//! A thread of its own moves the write-ahead log, in rounds: what was written meanwhile is little, and is moved in the
//! next one. The last little the writer moves itself, between two transactions, since the write-ahead log starts over
//! only when all is moved. The writer waits for it where the disk does not keep up, or a long read keeps the write-ahead
//! log from starting over, so that it stays bounded. Where the thread fails for good, the writer does all of it.
//!
//! Thread and connection live as long as one checkpoint: a store at rest has neither.

use std::{
    error::Error,
    path::PathBuf,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{error::is_failed_sync, file::FileId, schema};

pub(super) struct Checkpoints {
    path: PathBuf,
    /// Which file was opened.
    file: FileId,
    limits: WalLimits,
    running: Option<JoinHandle<Result<(), CheckpointError>>>,
    /// Pages that are to be in the write-ahead log before the next step.
    due: u64,
}

/// How large the WAL may become, in pages.
#[derive(Clone, Copy)]
pub(super) struct WalLimits {
    /// A checkpoint begins.
    pub(super) begin: u64,
    /// The writer waits for it.
    pub(super) wait: u64,
}

/// Pages of a write-ahead log that is moved into the file: 16 MiB. Pages that were written more than once are moved
/// once, and the file is synced as rarely. It grows to about 64 MiB, and what one transaction or one long read holds.
pub(super) const WAL: WalLimits = WalLimits { begin: 4096, wait: 4 * 4096 };

/// What stands in the way of a checkpoint. The WAL still holds what was not moved.
pub(super) type CheckpointError = Box<dyn Error + Send + Sync>;

/// The write-ahead log, in pages.
#[derive(Debug, Clone, Copy)]
struct Wal {
    pages: u64,
    /// The number of them that are in the file, too.
    moved: u64,
    /// Another connection was in the way.
    busy: bool,
}

impl Checkpoints {
    pub(super) fn new(path: PathBuf, file: FileId, limits: WalLimits) -> Self {
        // Absolute, as SQLite's own: the process may go to another directory.
        let path = std::path::absolute(&path).unwrap_or(path);
        Self { path, file, limits, running: None, due: limits.begin }
    }

    /// Does what is to be done now; to be called between transactions. A failed sync is to
    /// [close](super::writer::Writer::fail) the store, anything else is tried again when the WAL has grown further.
    pub(super) fn tend(&mut self, connection: &Connection) -> Result<(), CheckpointError> {
        if self.running.as_ref().is_some_and(JoinHandle::is_finished) {
            self.finish(connection)?;
        }
        let log = look(connection)?;
        if log.pages < self.due || log.pages == log.moved {
            return Ok(());
        }
        if self.running.is_some() {
            return self.finish(connection);
        }
        self.due = self.limits.wait.max(self.later(log));
        match self.begin() {
            Ok(running) => self.running = Some(running),
            Err(_no_thread) => self.start_over(connection)?,
        }
        Ok(())
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Waits for what runs, and moves the rest: all of it where what ran did not succeed. After a failed sync it moves
    /// nothing, and neither may the [connection](super::writer::Writer::fail) when it is closed.
    pub(super) fn end(&mut self, connection: &Connection) -> Result<(), CheckpointError> {
        if let Err(trouble) = self.wait()
            && is_fatal(&trouble)
        {
            return Err(trouble);
        }
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }

    /// Waits for what runs.
    pub(super) fn wait(&mut self) -> Result<(), CheckpointError> {
        let ended = self.running.take().map(JoinHandle::join);
        ended.unwrap_or(Ok(Ok(()))).unwrap_or_else(|_| Err("the checkpoint's thread panicked".into()))
    }

    fn begin(&self) -> std::io::Result<JoinHandle<Result<(), CheckpointError>>> {
        let (path, file) = (self.path.clone(), self.file.clone());
        thread::Builder::new().name("sqlite-checkpoint".to_owned()).spawn(move || {
            let connection = schema::open_beside(&path)?;
            // Looked at after it was opened: what this connection has is not another file.
            if file.is_still_there() { rounds(&connection) } else { Ok(()) }
        })
    }

    fn finish(&mut self, connection: &Connection) -> Result<(), CheckpointError> {
        let Err(trouble) = self.wait() else { return self.start_over(connection) };
        // First of all: whatever else fails must not hide it.
        if is_fatal(&trouble) {
            return Err(trouble);
        }
        let log = look(connection)?;
        self.due = self.later(log);
        if log.pages >= self.limits.wait {
            // What keeps the thread from its work (no file can be opened any more, say) need not keep the writer.
            self.start_over(connection)?;
        }
        Err(trouble)
    }

    /// Moves what is left, so that the next transaction writes the WAL from its start.
    fn start_over(&mut self, connection: &Connection) -> Result<(), CheckpointError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if !checkpoint(connection, "PRAGMA wal_checkpoint(RESTART)")?.busy {
                self.due = self.limits.begin;
                return Ok(());
            }
            let log = look(connection)?;
            if log.pages < self.limits.wait || Instant::now() > deadline {
                self.due = self.later(log);
                return Ok(());
            }
            #[expect(clippy::disallowed_methods, reason = "this thread is the store's own")]
            thread::sleep(BETWEEN_TRIES);
        }
    }

    /// Where the WAL is to be when what did not succeed is tried again.
    fn later(&self, log: Wal) -> u64 {
        self.limits.begin.max(log.pages + self.limits.begin / 4)
    }
}

/// Whether the checkpoint failed in a way after which nothing can be trusted.
pub(super) fn is_fatal(trouble: &CheckpointError) -> bool {
    trouble.downcast_ref().is_some_and(is_failed_sync)
}

/// Moves the WAL, and what was written meanwhile, until little is left. None of this waits for others or lets others
/// wait. SQLite syncs the file at the end of a round in which nothing was written, as happens in the short ones soon;
/// the writer finds little to sync then.
fn rounds(connection: &Connection) -> Result<(), CheckpointError> {
    for round in 1..=MOST_ROUNDS {
        let log = checkpoint(connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
        let left = look(connection)?.left();
        // Another process is at it, or another connection reads what was there before.
        let in_the_way = log.busy || log.left() > 0;
        if in_the_way || left == 0 || (round >= ROUNDS && left <= LITTLE) {
            break;
        }
    }
    Ok(())
}

/// How long the WAL is.
fn look(connection: &Connection) -> rusqlite::Result<Wal> {
    checkpoint(connection, "PRAGMA wal_checkpoint(NOOP)")
}

fn checkpoint(connection: &Connection, pragma: &str) -> rusqlite::Result<Wal> {
    connection.prepare_cached(pragma)?.query_row([], |row| {
        // -1 where SQLite has not looked: there is no log yet, or another connection is at it.
        let pages = |column| row.get(column).map(|pages: i64| u64::try_from(pages).unwrap_or(0));
        Ok(Wal { busy: row.get::<_, i64>(0)? != 0, pages: pages(1)?, moved: pages(2)? })
    })
}

impl Wal {
    fn left(self) -> u64 {
        self.pages.saturating_sub(self.moved)
    }
}

/// The least number of rounds, so that most likely one of them syncs, and the largest.
const ROUNDS: usize = 5;
const MOST_ROUNDS: usize = 16;

/// Pages that the writer may move.
const LITTLE: u64 = 128;

/// How long the writer waits for others so that a log that is too long can start over.
const PATIENCE: Duration = Duration::from_millis(50);
const BETWEEN_TRIES: Duration = Duration::from_millis(1);

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(super) mod tests {
    use rusqlite::ffi;
    use tempfile::TempDir;

    use super::{
        super::setup::{Setup, Synchronous},
        *,
    };

    const FEW: WalLimits = WalLimits { begin: 64, wait: 256 };

    impl Checkpoints {
        /// As if one had run and failed so.
        pub(in super::super) fn fail(&mut self, error: rusqlite::Error) {
            let running = thread::spawn(move || Err(error.into()));
            wait_until(|| running.is_finished());
            self.running = Some(running);
        }
    }

    /// A connection as the writer's, and what looks after its WAL.
    pub(in super::super) fn file(limits: WalLimits) -> (TempDir, Connection, Checkpoints) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions.db");
        let setup =
            Setup { synchronous: Synchronous::Full, busy_timeout: Duration::from_secs(5), max_bytes: None };
        schema::prepare(&path).unwrap();
        let connection = schema::open_writer(&path, &setup).unwrap();
        // These tests write much, and no machine dies in them.
        connection.execute_batch("PRAGMA synchronous = OFF; CREATE TABLE pages (page BLOB)").unwrap();
        let checkpoints = Checkpoints::new(path.clone(), FileId::of(&path), limits);
        (directory, connection, checkpoints)
    }

    pub(in super::super) fn write(connection: &Connection) {
        connection.execute("INSERT INTO pages VALUES (zeroblob(4000))", []).unwrap();
    }

    fn write_to(connection: &Connection, pages: u64) -> Wal {
        loop {
            write(connection);
            let log = look(connection).unwrap();
            if log.pages >= pages {
                return log;
            }
        }
    }

    fn wait_until(mut what: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !what() {
            assert!(Instant::now() < deadline, "it has not come about in time");
            thread::yield_now();
        }
    }

    #[test]
    fn the_log_is_moved_while_the_writer_is_in_the_middle_of_a_transaction() {
        let (_directory, connection, mut checkpoints) = file(FEW);
        let before = write_to(&connection, FEW.begin);
        assert_eq!(before.moved, 0, "SQLite does not do it by itself, on the writer's thread");
        checkpoints.tend(&connection).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        write(&connection);
        wait_until(|| checkpoints.running.as_ref().is_none_or(JoinHandle::is_finished));
        connection.execute_batch("COMMIT").unwrap();
        let log = look(&connection).unwrap();
        assert!(log.moved >= before.pages, "{log:?}");
        assert!(log.left() > 0, "what was written meanwhile is still to be moved: {log:?}");
        checkpoints.tend(&connection).unwrap();
        assert_eq!(look(&connection).unwrap().left(), 0, "the writer has moved the rest");
        write(&connection);
        assert!(look(&connection).unwrap().pages < FEW.begin, "and the log has started over");
    }

    #[test]
    fn a_log_that_grows_faster_than_it_is_moved_waits_for_that_and_stays_bounded() {
        let (_directory, connection, mut checkpoints) = file(FEW);
        let mut longest = 0;
        for _ in 0..1000 {
            if checkpoints.running.is_none() {
                // One that is too slow: it ends only when it is waited for.
                let path = checkpoints.path.clone();
                checkpoints.running = Some(thread::spawn(move || {
                    let connection = schema::open_beside(&path)?;
                    wait_until(|| look(&connection).is_ok_and(|log| log.pages >= FEW.wait));
                    Ok(())
                }));
                checkpoints.due = FEW.wait;
            }
            write(&connection);
            checkpoints.tend(&connection).unwrap();
            longest = longest.max(look(&connection).unwrap().pages);
        }
        assert!((FEW.wait..FEW.wait + 8).contains(&longest), "{longest}");
        write_to(&connection, FEW.wait);
        checkpoints.end(&connection).unwrap();
        assert_eq!(look(&connection).unwrap().pages, 0);
    }

    #[test]
    fn a_log_that_no_thread_can_open_is_moved_by_the_writer() {
        let (directory, connection, mut checkpoints) = file(FEW);
        checkpoints.path = directory.path().join("none.db");
        let (mut longest, mut tries) = (0, 0);
        for _ in 0..4 * FEW.wait {
            write(&connection);
            if let Err(trouble) = checkpoints.tend(&connection) {
                assert!(!is_fatal(&trouble), "{trouble}");
                tries += 1;
            }
            wait_until(|| checkpoints.running.as_ref().is_none_or(JoinHandle::is_finished));
            longest = longest.max(look(&connection).unwrap().pages);
        }
        assert!((FEW.wait..FEW.wait + FEW.begin / 2).contains(&longest), "{longest}");
        assert!((4..200).contains(&tries), "it is tried again, and not all the time: {tries}");
    }

    #[test]
    fn a_relative_path_is_the_same_file_wherever_the_process_goes() {
        let (_directory, _connection, checkpoints) = file(FEW);
        let relative = Checkpoints::new(PathBuf::from("sessions.db"), checkpoints.file.clone(), FEW);
        assert!(relative.path.is_absolute(), "{:?}", relative.path);
    }

    #[test]
    fn a_failed_sync_is_told_whatever_else_fails() {
        let (_directory, connection, mut checkpoints) = file(FEW);
        write(&connection);
        let sync = || rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_FSYNC), None);
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(look(&connection).is_err(), "in a transaction nobody may look at the log");
        checkpoints.fail(sync());
        assert!(is_fatal(&checkpoints.tend(&connection).unwrap_err()));
        connection.execute_batch("COMMIT").unwrap();
        checkpoints.fail(sync());
        assert!(is_fatal(&checkpoints.end(&connection).unwrap_err()));
        let log = look(&connection).unwrap();
        assert!(log.left() > 0, "nothing is moved after it: {log:?}");
    }

    #[test]
    fn the_end_moves_what_a_checkpoint_in_trouble_has_left() {
        let (_directory, connection, mut checkpoints) = file(FEW);
        write(&connection);
        checkpoints.fail(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None));
        checkpoints.end(&connection).unwrap();
        assert_eq!(look(&connection).unwrap().pages, 0);
    }

    #[test]
    fn who_reads_what_was_before_lets_the_log_grow_and_neither_fails_nor_stops_the_writer() {
        let (_directory, connection, mut checkpoints) = file(FEW);
        write(&connection);
        let reader = schema::open_beside(&checkpoints.path).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM pages").unwrap();
        let mut tries = 0;
        for _ in 0..6 * FEW.begin {
            write(&connection);
            let ran = checkpoints.is_running();
            checkpoints.tend(&connection).unwrap();
            tries += u64::from(!ran && checkpoints.is_running());
            wait_until(|| checkpoints.running.as_ref().is_none_or(JoinHandle::is_finished));
        }
        let log = look(&connection).unwrap();
        assert!(log.pages > FEW.wait && log.left() > FEW.wait, "{log:?}");
        assert!((2..60).contains(&tries), "it is tried again, and not all the time: {tries}");
        reader.execute_batch("COMMIT").unwrap();
        wait_until(|| {
            write(&connection);
            checkpoints.tend(&connection).unwrap();
            look(&connection).unwrap().pages < FEW.begin
        });
    }
}
