use std::{
    fs,
    io::ErrorKind,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, MAIN_DB, OpenFlags, TransactionBehavior, config::DbConfig};

use super::{
    error::{OpenFailure, OpenProblem, is_busy},
    setup::{Setup, Synchronous},
};
use crate::store::Durability;

/// `PRAGMA application_id`: "TSM1".
const APPLICATION_ID: i64 = 0x5453_4D31;
/// `PRAGMA user_version`.
const SCHEMA_VERSION: i64 = 1;
/// The first SQLite without the WAL-reset bug: <https://www.sqlite.org/wal.html#walresetbug>.
const OLDEST_SQLITE: i32 = 3_051_003;

/// A session without turns (`count` = 0) is a tombstone. Times are milliseconds since 1970. `touched` is the place of
/// a session's newest turn, which orders the sessions by commit, whatever the clock did. A trimmed turn keeps its id
/// for a while and loses its record. `bytes` is the sum of the records that are kept, `opened` the number of the newest
/// turn that opens an exchange, and a turn's `opens` says whether it does.
///
/// An append writes to as few pages as can be: the table of turns at its end, and the session's row. So a session's
/// turns are in no index but every sixteenth, and those few that have a lower id than one before them; each names
/// the place of the one before ([`chain`](super::chain)), and the highest id up to it where that is not its own.
/// The other indexes are of roundings that change rarely: `slot` of `touched`, and `sweep_from` of `expires`.
pub(super) const SCHEMA: &str = "
    CREATE TABLE sessions (
        row        INTEGER PRIMARY KEY,
        namespace  TEXT    NOT NULL,
        principal  TEXT    NOT NULL,
        id         TEXT    NOT NULL,
        epoch      BLOB    NOT NULL,
        fresh      INTEGER NOT NULL,
        count      INTEGER NOT NULL,
        trimmed    INTEGER NOT NULL,
        newest     BLOB,
        highest    BLOB,
        bytes      INTEGER NOT NULL,
        opened     INTEGER NOT NULL,
        model      TEXT,
        title      TEXT,
        touched    INTEGER NOT NULL,
        slot       INTEGER,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        expires    INTEGER NOT NULL,
        sweep_from INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX sessions_by_key ON sessions (namespace, principal, id);
    CREATE INDEX sessions_by_slot ON sessions (namespace, principal, slot) WHERE slot IS NOT NULL;
    CREATE INDEX sessions_by_age ON sessions (namespace, slot) WHERE slot IS NOT NULL;
    CREATE INDEX sessions_by_sweep ON sessions (sweep_from);

    CREATE TABLE turns (
        place      INTEGER PRIMARY KEY,
        session    INTEGER NOT NULL,
        seq        INTEGER NOT NULL,
        previous   INTEGER,
        id         BLOB    NOT NULL,
        highest    BLOB,
        opens      INTEGER NOT NULL,
        record     BLOB
    ) STRICT;
    CREATE INDEX turns_by_sixteenth ON turns (session, seq, highest, id) WHERE seq % 16 = 0;
    CREATE INDEX turns_late ON turns (session, id) WHERE highest IS NOT NULL;
";

/// Places that share a slot: a session moves in the indexes of the listings once in this number of appends. A listing
/// sorts at most this number of sessions to find those of one page.
pub(super) const SLOT: i64 = 1 << 14;

/// Checks what can be checked without opening the file, and creates it if it is not there, for its owner's
/// eyes only: it will hold conversations.
pub(super) fn prepare(path: &Path) -> Result<(), OpenProblem> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(OpenProblem::LibraryTooOld(rusqlite::version()));
    }
    if path.as_os_str().is_empty() || path.as_os_str() == ":memory:" {
        return Err(OpenProblem::NoFile);
    }
    if path.is_dir() {
        return Err(OpenProblem::IsDirectory);
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(OpenProblem::CannotCreate(error)),
    }
}

/// Opens the connection that writes, and makes the schema where there is none.
pub(super) fn open_writer(path: &Path, setup: &Setup) -> Result<Connection, OpenFailure> {
    let mut connection = connect(path, setup.busy_timeout)?;
    // In one transaction: another process may be creating the schema between two looks.
    let look = connection.transaction()?;
    let known = identify(&look)?;
    drop(look);
    switch_to_wal(&connection, setup.busy_timeout)?;
    let synchronous = match setup.synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "fullfsync", true)?; // where fsync alone does not reach the disk: macOS
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "secure_delete", true)?; // what was deleted is overwritten in the file
    connection.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?; // see `checkpoints`
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    if known != FileContent::Current {
        create(&mut connection)?;
    }
    if let Some(bytes) = setup.max_bytes {
        let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
        connection.pragma_update(None, "max_page_count", pages.clamp(1, i64::from(u32::MAX - 1)))?;
    }
    // Fails where a file says that it is ours and is not.
    connection.prepare(
        "SELECT row, epoch, fresh, count, trimmed, newest, highest, bytes, opened, model, title, touched, slot, expires,
                sweep_from FROM sessions",
    )?;
    connection.prepare("SELECT place, session, seq, previous, id, highest, opens, record FROM turns")?;
    // Fails where the file can be opened for writing, but not written.
    connection.transaction_with_behavior(TransactionBehavior::Immediate)?.rollback()?;
    connection.busy_timeout(Duration::ZERO)?; // the writer waits in its own way
    Ok(connection)
}

/// Opens a connection that reads. The writer's must be open.
pub(super) fn open_reader(path: &Path, setup: &Setup) -> Result<Connection, OpenFailure> {
    let connection = connect(path, setup.busy_timeout)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// Opens a connection that moves the WAL into the file. The writer's must be open.
pub(super) fn open_beside(path: &Path) -> Result<Connection, OpenFailure> {
    let connection = connect(path, Duration::ZERO)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// What SQLite itself says of this connection's commits: <https://www.sqlite.org/pragma.html#pragma_synchronous>.
pub(super) fn durability(connection: &Connection) -> rusqlite::Result<Durability> {
    let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    Ok(match synchronous {
        0 | 1 => Durability::Process,
        2 | 3 => Durability::Fsync,
        _ => Durability::Unknown,
    })
}

fn connect(path: &Path, busy_timeout: Duration) -> Result<Connection, OpenFailure> {
    // Absolute, so that nothing in it is taken for one of SQLite's URIs.
    let path = std::path::absolute(path).map_err(OpenProblem::CannotCreate)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(32);
    if connection.is_readonly(MAIN_DB)? {
        return Err(OpenProblem::ReadOnly.into());
    }
    Ok(connection)
}

/// What the file holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileContent {
    Nothing,
    Current,
}

/// Whether the file holds our schema; an empty file holds none. Any other is refused before it is touched.
fn identify(connection: &Connection) -> Result<FileContent, OpenFailure> {
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let objects: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, version) {
        (APPLICATION_ID, SCHEMA_VERSION) => Ok(FileContent::Current),
        (APPLICATION_ID, found) if found > SCHEMA_VERSION => {
            Err(OpenProblem::NewerSchema { found, known: SCHEMA_VERSION }.into())
        }
        (0, 0) if objects == 0 => Ok(FileContent::Nothing),
        _ => Err(OpenProblem::OtherProgram.into()),
    }
}

/// SQLite does not wait for a lock while it changes the journal mode, so this does.
fn switch_to_wal(connection: &Connection, patience: Duration) -> Result<(), OpenFailure> {
    let deadline = Instant::now() + patience;
    loop {
        let mode =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        match mode {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(_) => return Err(OpenProblem::NoWal.into()),
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                #[expect(clippy::disallowed_methods, reason = "this thread is the store's own")]
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes the schema; another process may have done so since, or be about it.
fn create(connection: &mut Connection) -> Result<(), OpenFailure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if identify(&transaction)? == FileContent::Current {
        return Ok(());
    }
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// A larger write-ahead log is cut back to this when it starts over.
const WAL_KEPT_BYTES: i64 = 64 * 1024 * 1024;

/// Pages that a connection keeps in memory. The system keeps them, too, and a reader's are forgotten at each commit.
const WRITER_CACHE_KIB: i64 = 4 * 1024;
const READER_CACHE_KIB: i64 = 512;
