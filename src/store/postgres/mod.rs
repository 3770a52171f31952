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
//! # async fn connect() -> Result<(), tower_session_memory::store::postgres::OpenError> {
//! let store = PostgresStore::builder("postgres://user:password@db.example/app")
//!     .with_schema("conversations")
//!     .open()
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
//! TLS is the feature `postgres-tls`. It is on unless every host, and every `hostaddr`, is this machine; the server's certificate and name are always checked, against
//! the system's certificates or the file that `sslrootcert` names. `sslmode` is `disable`, `require` or
//! `verify-full`; the last two are the same here.
//!
//! # Behind a pooler
//!
//! PgBouncer and its kin in session mode need nothing. In transaction mode switch on
//! [`with_transaction_pooler`](PostgresBuilder::with_transaction_pooler): without it PgBouncer refuses the
//! connection for its settings, or, set to overlook them, loses prepared statements.
//!
//! # When the server fails
//!
//! A statement whose connection broke is sent again on another, three times in all; one that gets no answer in time
//! is an error, and its connection is closed. Either may have been done: the error is then
//! [`Timeout`](StoreErrorKind::Timeout), and the same turn sent again is stored once.
//! [`Unavailable`](StoreErrorKind::Unavailable) means that nothing was done.
//! A server that takes no writes, a standby or a primary that was fenced off
//! (`default_transaction_read_only = on`), answers no load and no listing either, since what it knows may be out of
//! date; of several hosts in the URL another is then looked for. An old primary that was *not* fenced off when its
//! standby was promoted still answers on the connections that lead there: see to it.
//!
//! # What an acknowledgement is worth
//!
//! [`durability`](HistoryStore::durability) is read from the settings of the store's own connection. With
//! `synchronous_commit` on, which is the default, it is `fsync`; with `synchronous_standby_names` too, and unless it
//! is `local`, `replicated`. With `synchronous_commit = off` it is `none`: up to 600 ms of turns
//! (three times `wal_writer_delay`) are lost already when a process of the server dies, which is less than
//! `about-1s` means. With `fsync` or `full_page_writes` off it is `process`. A standby that is not synchronous adds
//! nothing: after a failover to it the newest turns are missing.
//!
//! # What it costs
//!
//! Every statement goes by an index, and touches few pages of 8 KiB however large the tables are. With ten million
//! turns in 500,000 sessions, half of them one principal's (2.5 GB of turns of 400 bytes, 1.1 GB of the rest):
//!
//! | Call | Pages | Goes by |
//! |---|--:|---|
//! | load of 20 turns, each on a page of its own | 27 | `sessions_by_key`, `turns_by_seq` |
//! | load of nothing new | 11 | `sessions_by_key`, `turns_by_seq` |
//! | load of an unknown session | 3 | `sessions_by_key` |
//! | append | 47 | `sessions_by_key`, `turns_by_id`, `sessions_pkey` |
//! | deletion of one turn | 31 | `sessions_by_key`, `turns_by_seq`, `sessions_pkey` |
//! | list of 20 sessions | 5 | `sessions_by_touch` |
//! | round of the sweep: 64 sessions, 1,280 turns | 8,100 | `sessions_by_expiry`, `turns_by_seq`, `sessions_pkey` |
//!
//! Each connection plans a statement once (`plan_cache_mode = force_generic_plan`) and never as a walk through a table
//! (`enable_seqscan = off`). Behind a [pooler](PostgresBuilder::with_transaction_pooler) each call is planned anew, and the
//! settings are the role's.
//!
//! An append writes its session's row anew, and as the time of the newest turn is in an index, never in place
//! (HOT). `sessions` is therefore cleaned up as soon as a fiftieth of it has changed
//! (`autovacuum_vacuum_scale_factor = 0.02`). With a fifth, the default, one million appends to 1,000 sessions at
//! 7,000 a second left `sessions` with 18 MB, `sessions_by_touch` with 20 MB and `sessions_by_expiry` with 15 MB:
//! what the appends of a minute or so take, until autovacuum, which comes each minute, frees it to be used again.
//!
//! What ends a whole log goes over all of its turns in one statement, within the [timeout]: a deletion, the first
//! append after the session expired, or after `with_max_turns` was lowered. 200,000 turns took 0.3 seconds.
//!
//! [timeout]: PostgresBuilder::with_timeout
//!
//! # Logs
//!
//! The driver, `tokio_postgres`, logs the parameters of each statement at `debug` and `trace`: whole turns, as
//! bytes. Where conversations must not be logged, leave its target out at these levels. (The
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
//! SELECT sessions.id, seq, session_memory.readable(record)
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
#[cfg(feature = "postgres-tls")]
mod tls;
mod url;

pub use error::{OpenError, OpenProblem, PostgresError};
pub use options::{Migrated, PostgresBuilder};

use std::{fmt, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{log::Statements, pool::Connections};
use super::{
    Appended, Cursor, Durability, Erased, HistoryStore, LoadOptions, Loaded, Page, PrincipalPage,
    ReadOptions, RecordPage, Retention, Scope, SessionPage, StoreError, StoreErrorKind,
};
use crate::{history::Record, session::SessionKey};

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
    /// Notices a record that belongs to another session: the connection that brought it is not to be trusted.
    fn checked<T>(&self, key: &SessionKey, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if answer.as_ref().is_err_and(StoreError::is_foreign) {
            tracing::error!(session = %key.digest(), "PostgreSQL answered with another session's record");
            self.handle.connections.discard();
        }
        answer
    }
}

impl HistoryStore for PostgresStore {
    async fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> Result<Loaded, StoreError> {
        let after = options.into().after;
        let Handle { connections, statements, retention, .. } = &*self.handle;
        self.checked(key, statements.load(connections, retention, key, after.as_ref()).await)
    }

    async fn read(&self, key: &SessionKey, options: &ReadOptions) -> Result<RecordPage, StoreError> {
        let Handle { connections, statements, .. } = &*self.handle;
        self.checked(key, statements.read(connections, key, options).await)
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, record: &Record) -> Result<Appended, StoreError> {
        if !record.belongs_to(key.digest()) {
            return Err(StoreError::new(StoreErrorKind::Corrupt));
        }
        let Handle { connections, statements, retention, .. } = &*self.handle;
        statements.append(connections, retention, key, at, record).await
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError> {
        let Handle { connections, statements, retention, .. } = &*self.handle;
        statements.delete(connections, retention, key).await
    }

    async fn sessions(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        self.handle.statements.sessions(&self.handle.connections, scope, page).await
    }

    async fn principals(&self, namespace: &str, page: &Page) -> Result<PrincipalPage, StoreError> {
        self.handle.statements.principals(&self.handle.connections, namespace, page).await
    }

    async fn delete_principal(&self, scope: &Scope, page: &Page) -> Result<Erased, StoreError> {
        let Handle { connections, statements, retention, .. } = &*self.handle;
        statements.delete_principal(connections, retention, scope, page).await
    }

    async fn expire(&self, namespace: &str, age: Duration, page: &Page) -> Result<Erased, StoreError> {
        self.handle.statements.expire(&self.handle.connections, namespace, age, page).await
    }

    async fn durability(&self) -> Result<Durability, StoreError> {
        log::durability(&self.handle.connections).await
    }

    fn name(&self) -> &'static str {
        "postgres"
    }

    /// Closes the connections that are at rest, and the others when their call is done.
    async fn close(&self) {
        self.handle.close();
        self.handle.tasks.wait().await;
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
