//! A store in PostgreSQL, 14 or newer: for several machines, and durable by default.
//!
//! Each call is one statement, which is its own transaction, on one of a bounded number of connections. An
//! append calls a function that the migration makes: it locks the session's row, so that concurrent turns of a
//! session line up, and then checks and writes. (One statement of chained queries would not do: all of it sees
//! what was committed before it began, not what the turn before it wrote while it waited for the lock. The
//! statements of a function each see the newest.) A load is one round trip that checks the cursor and returns
//! only what is new.
//!
//! ```no_run
//! use tower_session_memory::store::PostgresStore;
//!
//! # async fn connect() -> Result<(), tower_session_memory::store::postgres::ConnectError> {
//! let store = PostgresStore::builder("postgres://user:password@db.example/app")
//!     .with_schema("conversations")
//!     .connect()
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # The URL
//!
//! As PostgreSQL has it: `postgres://user:password@host:port/database?option=value`, several hosts separated by
//! commas, a directory with the server's socket as a host (`%2Fvar%2Frun%2Fpostgresql`). Of several hosts the
//! one that takes writes is used: reads come from the primary.
//!
//! TLS is on unless every host is this machine; the server's certificate and name are always checked, against
//! the system's certificates or the file that `sslrootcert` names. `sslmode` is `disable`, `require` or
//! `verify-full`; the last two are the same here.
//!
//! # Behind a pooler
//!
//! PgBouncer and its kin in session mode need nothing. In transaction mode switch on
//! [`with_transaction_pooler`](PostgresBuilder::with_transaction_pooler).
//!
//! # Logs
//!
//! The driver, `tokio_postgres`, logs the parameters of each statement at `debug` and `trace`: whole turns, as
//! bytes. Whoever logs at these levels and has promised not to log conversations leaves its target out. (The
//! `session-memory` program does.)
//!
//! # What is in the tables
//!
//! `sessions` has one row a session, `turns` one a turn. Namespaces, principals and session ids stand in the
//! clear, as text, in which a backslash is `\\` and NUL is `\0`. Records are `bytea`: a wrapper may make any
//! bytes of them, and text would refuse some of those, as it refuses NUL. In `psql` they are read with the
//! function `readable`:
//!
//! ```sql
//! SELECT id, seq, session_memory.readable(record)
//! FROM session_memory.sessions JOIN session_memory.turns USING (session) ORDER BY session, seq;
//! ```
//!
//! A session without turns is what a deletion leaves: see [`HistoryStore::delete`]. Deleting a row of `sessions`
//! by hand deletes its turns, but leaves nothing that refuses a turn in flight.
//!
//! # Rights
//!
//! Roles other than the tables' owner may be limited by row-level security, on `sessions` by namespace and
//! principal, on `turns` through it:
//!
//! ```sql
//! ALTER TABLE session_memory.sessions ENABLE ROW LEVEL SECURITY;
//! ALTER TABLE session_memory.turns ENABLE ROW LEVEL SECURITY;
//! CREATE POLICY own ON session_memory.sessions USING (namespace = current_setting('app.namespace'));
//! CREATE POLICY own ON session_memory.turns USING (
//!     EXISTS (SELECT FROM session_memory.sessions s WHERE s.session = turns.session));
//! ```
//!
//! A store whose role may not create tables needs `USAGE` on the schema and its sequences, `EXECUTE` on its
//! functions, and `SELECT`, `INSERT`, `UPDATE` and `DELETE` on `sessions` and `turns`, and `SELECT` on
//! `schema_version`; see [`with_migration`](PostgresBuilder::with_migration).

mod error;
mod log;
mod migrate;
mod names;
mod options;
mod pool;
mod sweep;
mod tls;
mod url;

pub use error::{ConnectError, ConnectProblem, Said};
pub use options::{Migrated, PostgresBuilder};

use std::{fmt, sync::Arc};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{log::Statements, pool::Connections};
use super::{
    Appended, Cursor, Durability, HistoryStore, Loaded, Page, Scope, SessionPage, StoreError, StoreErrorKind,
    retention::Retention,
};
use crate::{history::Turn, session::SessionKey};

/// A store in PostgreSQL. The [module](self) tells how it works; [`PostgresStore::builder`] has the settings.
///
/// Clones are handles to the same store. When the last one is dropped its connections are closed.
#[derive(Clone)]
pub struct PostgresStore {
    handle: Arc<Handle>,
}

struct Handle {
    connections: Connections,
    statements: Arc<Statements>,
    retention: Retention,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl PostgresStore {
    /// The settings, to begin with the URL. It is read when the store is [connected](PostgresBuilder::connect).
    pub fn builder(url: impl Into<String>) -> PostgresBuilder {
        PostgresBuilder::new(url.into())
    }

    /// Closes the connections that are at rest, and the others when their call is done. Calls that come later,
    /// through any handle, answer an error.
    ///
    /// Not needed for durability: an acknowledged turn is as durable as it gets.
    ///
    /// # Cancel safety
    ///
    /// When it is dropped the store closes all the same. It may be called again.
    pub async fn close(&self) {
        self.handle.close();
        self.handle.tasks.wait().await;
    }
}

impl HistoryStore for PostgresStore {
    async fn load(&self, key: &SessionKey, after: Option<&Cursor>) -> Result<Loaded, StoreError> {
        let Handle { connections, statements, retention, .. } = &*self.handle;
        let loaded = statements.load(connections, retention, key, after).await;
        if loaded.as_ref().is_err_and(StoreError::is_foreign) {
            tracing::error!(session = %key.digest(), "PostgreSQL answered with another session's record");
            connections.discard();
        }
        loaded
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, turn: &Turn) -> Result<Appended, StoreError> {
        if !turn.belongs_to(key.digest()) {
            return Err(StoreError::new(StoreErrorKind::Corrupt));
        }
        let Handle { connections, statements, retention, .. } = &*self.handle;
        statements.append(connections, retention, key, at, turn).await
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError> {
        let Handle { connections, statements, retention, .. } = &*self.handle;
        statements.delete(connections, retention, key).await
    }

    async fn sessions(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        self.handle.statements.sessions(&self.handle.connections, scope, page).await
    }

    async fn durability(&self) -> Result<Durability, StoreError> {
        log::durability(&self.handle.connections).await
    }

    fn name(&self) -> &'static str {
        "postgres"
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

impl Handle {
    fn close(&self) {
        self.stop.cancel();
        self.connections.close();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}
