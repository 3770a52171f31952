use std::{error::Error, fmt};

use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

use crate::{
    history::RecordError,
    store::{StoreError, StoreErrorKind},
};

/// Why a PostgreSQL store could not be connected to. Its text holds no password, and no address or name but what
/// the server or its certificate says.
#[derive(Debug)]
pub struct OpenError(pub(super) OpenProblem);

/// What stands in the way of using a PostgreSQL store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenProblem {
    /// The URL cannot be used; the text says which part. (Never the URL itself: it may hold a password.)
    #[error("its URL {0}")]
    Url(&'static str),
    /// The schema or the table prefix cannot be a name.
    #[error("{0}")]
    Name(&'static str),
    /// The certificates that TLS is to trust cannot be read, or there are none.
    #[error("the certificates to trust cannot be used: {0}")]
    Certificates(String),
    /// The URL asks for TLS, and this build is without the feature `postgres-tls`.
    #[error(
        "its URL asks for TLS, which is the feature `postgres-tls` of this crate: this build is without it; \
         sslmode=disable in the URL goes without TLS"
    )]
    NoTls,
    /// No connection could be made, or the server did not answer, in time.
    #[error("no connection could be made, or the server did not answer, in time")]
    Timeout,
    /// No connection could be made, or the server refused something.
    #[error("{0}")]
    Server(#[source] PostgresError),
    /// The server is older than PostgreSQL 14.
    #[error("the server is PostgreSQL {0}; 14 or newer is needed")]
    TooOld(String),
    /// The database does not hold text in UTF-8.
    #[error("the database's encoding is {0}; UTF8 is needed")]
    Encoding(String),
    /// The tables were made by a later version of this program.
    #[error("the database has schema version {found}; this program knows {known} at most")]
    NewerSchema {
        /// The database's schema version.
        found: i32,
        /// The newest that this program knows.
        known: i32,
    },
    /// The tables are missing or of an older version, and migrating them at the start is switched off.
    #[error("the database has schema version {found}, and {known} is needed: migrate it first")]
    NeedsMigration {
        /// The database's schema version; 0 when the tables are missing.
        found: i32,
        /// The version that is needed.
        known: i32,
    },
}

/// What the server or the connection said, without what may hold a session's data: a database error's
/// details, hints and queries are left out.
#[derive(Debug)]
pub struct PostgresError(String);

impl OpenError {
    /// What is wrong.
    #[must_use]
    pub fn problem(&self) -> &OpenProblem {
        &self.0
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot use the PostgreSQL session store: {}", self.0)
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl fmt::Display for PostgresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for PostgresError {}

impl PostgresError {
    fn of(error: &tokio_postgres::Error) -> Self {
        let Some(refusal) = error.as_db_error() else {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            return Self(format!("{error}{cause}"));
        };
        let code = refusal.code().code();
        // Class 22, data exception: the message quotes the data.
        match code.starts_with("22") {
            true => Self(format!("the server refused a value (SQLSTATE {code})")),
            false => Self(format!("{} (SQLSTATE {code})", refusal.message())),
        }
    }
}

/// An [`OpenProblem`] on its way to the caller. Private, so that the driver's own errors are no part of the public API.
pub(super) struct OpenFailure(pub(super) OpenProblem);

impl From<OpenProblem> for OpenFailure {
    fn from(problem: OpenProblem) -> Self {
        Self(problem)
    }
}

impl From<tokio_postgres::Error> for OpenFailure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self(OpenProblem::Server(PostgresError::of(&error)))
    }
}

impl From<PoolError> for OpenFailure {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            PoolError::Timeout(_) => Self(OpenProblem::Timeout),
            other => Self(OpenProblem::Server(PostgresError(other.to_string()))),
        }
    }
}

/// The error for callers when no connection was to be had. This attempt did nothing.
pub(super) fn no_connection(error: PoolError) -> StoreError {
    match error {
        PoolError::Closed => StoreError::new(StoreErrorKind::Other),
        PoolError::Timeout(_) => unavailable("no connection could be made in time"),
        PoolError::Backend(error) => {
            let kind = match error.code().map(kind) {
                Some(StoreErrorKind::Conflict) => StoreErrorKind::Conflict,
                _ => StoreErrorKind::Unavailable,
            };
            StoreError::with_source(kind, PostgresError::of(&error))
        }
        other => StoreError::with_source(StoreErrorKind::Other, PostgresError(other.to_string())),
    }
}

/// The error for callers when an attempt did nothing, and why.
pub(super) fn unavailable(why: &str) -> StoreError {
    StoreError::with_source(StoreErrorKind::Unavailable, PostgresError(why.to_owned()))
}

/// The error for callers whose statement failed.
pub(super) fn store_error(error: tokio_postgres::Error) -> StoreError {
    let kind = match error.code() {
        Some(code) => kind(code),
        None if is_lost(&error) => StoreErrorKind::Timeout,
        None => StoreErrorKind::Other,
    };
    StoreError::with_source(kind, PostgresError::of(&error))
}

/// The answer cannot be read.
pub(super) fn unreadable(error: tokio_postgres::Error) -> StoreError {
    StoreError::with_source(StoreErrorKind::Corrupt, PostgresError::of(&error))
}

pub(super) fn damaged(error: RecordError) -> StoreError {
    error.into()
}

/// Whether the connection broke under the statement.
pub(super) fn is_lost(error: &tokio_postgres::Error) -> bool {
    error.is_closed() || error.source().is_some_and(|source| source.is::<std::io::Error>())
}

/// Whether the statement may have been done although it failed: the connection or the server ended under it.
pub(super) fn is_unknown(error: &tokio_postgres::Error) -> bool {
    is_lost(error) || error.code().is_some_and(leaves_unknown)
}

/// Whether the same statement may well succeed at once, on another connection.
pub(super) fn is_passing(error: &tokio_postgres::Error) -> bool {
    let passing = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::FEATURE_NOT_SUPPORTED, // "cached plan must not change result type"
        SqlState::READ_ONLY_SQL_TRANSACTION, // another host may take writes
    ];
    is_lost(error) || error.code().is_some_and(|code| passing.contains(code))
}

/// Whether the server that the connection leads to takes no writes.
pub(super) fn is_read_only(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
}

/// An administrator or a crash ended the server's process, perhaps after the commit; the connection broke on the
/// way, perhaps one behind a pooler; or the server itself does not know.
fn leaves_unknown(code: &SqlState) -> bool {
    matches!(code.code(), "57P01" | "57P02" | "40003") || code.code().starts_with("08")
}

/// What a statement that failed with this code is. Classes and codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn kind(code: &SqlState) -> StoreErrorKind {
    match code.code() {
        _ if leaves_unknown(code) => StoreErrorKind::Timeout,
        // Statement timeout, or an operator cancelled it.
        "57014" => StoreErrorKind::Timeout,
        // A read-only server: a standby, or a primary that became one.
        "25006" => StoreErrorKind::Unavailable,
        // Damaged data or indexes.
        "XX001" | "XX002" => StoreErrorKind::Corrupt,
        // Missing rights, tables, functions or schemas; prepared statements that a pooler lost.
        "42501" | "42P01" | "42883" | "3F000" | "3D000" | "26000" | "42P05" => StoreErrorKind::Conflict,
        code => match code.get(..2).unwrap_or_default() {
            // Failed transaction state, rolled back, resources, locks, intervention, the system.
            "25" | "40" | "53" | "55" | "57" | "58" => StoreErrorKind::Unavailable,
            "0A" => StoreErrorKind::Unavailable,
            "28" => StoreErrorKind::Conflict,
            "54" => StoreErrorKind::TooLarge,
            _ => StoreErrorKind::Other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_refuses_is_told_apart() {
        let kinds = [
            ("57P01", StoreErrorKind::Timeout),
            ("57P02", StoreErrorKind::Timeout),
            ("57P03", StoreErrorKind::Unavailable),
            ("40001", StoreErrorKind::Unavailable),
            ("40003", StoreErrorKind::Timeout),
            ("40P01", StoreErrorKind::Unavailable),
            ("25006", StoreErrorKind::Unavailable),
            ("25P02", StoreErrorKind::Unavailable),
            ("53300", StoreErrorKind::Unavailable),
            ("08006", StoreErrorKind::Timeout),
            ("08P01", StoreErrorKind::Timeout),
            ("57014", StoreErrorKind::Timeout),
            ("54000", StoreErrorKind::TooLarge),
            ("42501", StoreErrorKind::Conflict),
            ("28P01", StoreErrorKind::Conflict),
            ("XX001", StoreErrorKind::Corrupt),
            ("XX000", StoreErrorKind::Other),
            ("23505", StoreErrorKind::Other),
        ];
        for (code, expected) in kinds {
            assert_eq!(kind(&SqlState::from_code(code)), expected, "{code}");
        }
    }
}
