use std::{
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{ErrorCode, ffi};

use crate::{
    history::RecordError,
    store::{StoreError, StoreErrorKind},
};

/// Why an SQLite store could not be opened. Its text names the path and what is wrong with it.
#[derive(Debug)]
pub struct OpenError {
    path: PathBuf,
    problem: OpenProblem,
}

/// What stands in the way of opening an SQLite store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenProblem {
    /// The SQLite that this program runs with has a bug that corrupts WAL databases with several connections;
    /// 3.51.3 is the first without it.
    #[error("SQLite {0} can corrupt it; at least 3.51.3 is needed")]
    LibraryTooOld(&'static str),
    /// The path is empty, or one of SQLite's names for a database in memory.
    #[error("the path names no file")]
    NoFile,
    /// The path is a directory.
    #[error("the path is a directory")]
    IsDirectory,
    /// The file does not exist and cannot be created. Its directory must exist.
    #[error("the file cannot be created: {0}")]
    CannotCreate(#[source] io::Error),
    /// The file, or what SQLite keeps beside it, can be read but not written.
    #[error("the file or its directory cannot be written")]
    ReadOnly,
    /// The file is something else.
    #[error("the file is no SQLite database")]
    NotADatabase,
    /// The file is a database of another program.
    #[error("the file is a database of another program")]
    OtherProgram,
    /// The file was written by a later version of this program.
    #[error("the file has schema version {found}; this program knows {known} at most")]
    NewerSchema {
        /// The file's schema version.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// The file is damaged.
    #[error("the file is damaged")]
    Corrupt(#[source] SqliteError),
    /// The file system does not support what WAL mode needs: a network share, as a rule.
    #[error("the file system does not support WAL mode")]
    NoWal,
    /// Another process kept the file locked.
    #[error("another process keeps the file locked")]
    Locked(#[source] SqliteError),
    /// No thread could be started.
    #[error("its threads could not be started: {0}")]
    Threads(#[source] io::Error),
    /// Anything else.
    #[error("SQLite says: {0}")]
    Sqlite(#[source] SqliteError),
}

/// What SQLite says of a failure.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SqliteError(rusqlite::Error);

impl OpenError {
    pub(super) fn new(path: &Path, problem: OpenProblem) -> Self {
        Self { path: path.to_owned(), problem }
    }

    /// What is wrong.
    #[must_use]
    pub fn problem(&self) -> &OpenProblem {
        &self.problem
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot open the session store {}: {}", self.path.display(), self.problem)
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.problem.source()
    }
}

/// An [`OpenProblem`] on its way to the caller. Private, so that SQLite's own errors are no part of the public API.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct OpenFailure(#[from] pub(super) OpenProblem);

impl From<rusqlite::Error> for OpenFailure {
    fn from(error: rusqlite::Error) -> Self {
        Self(match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => OpenProblem::NotADatabase,
            Some(ErrorCode::DatabaseCorrupt) => OpenProblem::Corrupt(SqliteError(error)),
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                OpenProblem::ReadOnly
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                OpenProblem::Locked(SqliteError(error))
            }
            _ => OpenProblem::Sqlite(SqliteError(error)),
        })
    }
}

/// A store's error for a failure in the middle of work. None of the causes holds a bound value.
pub(super) fn store_error(error: impl Into<Arc<rusqlite::Error>>) -> StoreError {
    let error = error.into();
    StoreError::with_source(kind(&error), error)
}

fn kind(error: &rusqlite::Error) -> StoreErrorKind {
    match error {
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => return StoreErrorKind::Corrupt,
        _ => {}
    }
    match error.sqlite_error_code() {
        // A transaction that failed in one of these ways was rolled back: nothing was done.
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::OutOfMemory
            | ErrorCode::SystemIoFailure,
        ) => StoreErrorKind::Unavailable,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreErrorKind::Corrupt,
        Some(ErrorCode::TooBig) => StoreErrorKind::TooLarge,
        Some(ErrorCode::OperationInterrupted) => StoreErrorKind::Timeout,
        _ => StoreErrorKind::Other,
    }
}

/// Whether a sync to disk failed. What was written before may be lost although later syncs succeed, so
/// nothing that follows can be trusted (what PostgreSQL calls fsyncgate).
pub(super) fn is_failed_sync(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC))
}

/// Whether another connection holds the lock.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

pub(super) fn damaged(error: RecordError) -> StoreError {
    error.into()
}
