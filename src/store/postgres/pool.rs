//! Connections: each call is one statement on one of them, within a deadline.
//!
//! No statement opens a transaction that outlives it, so a call that is dropped leaves nothing behind on its
//! connection: the driver's task takes the answer off the socket, and the next statement has its own. Only an
//! answer that never comes would be waited for by one caller after the other, each too short to notice: the
//! connection of a call that was dropped goes back when it has answered, and is closed where it does not in time.

use std::{num::NonZeroUsize, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use scopeguard::ScopeGuard;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout_at},
};
use tokio_postgres::{
    NoTls, Row,
    types::{ToSql, Type},
};
use tokio_util::task::TaskTracker;

use super::{
    error::{
        OpenFailure, OpenProblem, is_passing, is_read_only, is_unknown, no_connection, store_error,
        unavailable,
    },
    url::{Target, Tls},
};
use crate::store::{StoreError, StoreErrorKind};

pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

#[derive(Clone)]
pub(super) struct Connections {
    pool: Pool,
    tasks: TaskTracker,
    prepared: bool,
    timeout: Duration,
    connect_timeout: Duration,
}

/// How connections are made and used.
pub(super) struct Setup {
    pub(super) connections: NonZeroUsize,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) transaction_pooler: bool,
}

/// The number of times that a statement is sent whose connections break, each time on another.
const ATTEMPTS: usize = 3;

impl Connections {
    pub(super) fn new(target: Target, setup: &Setup) -> Result<Self, OpenProblem> {
        let Target { mut config, tls } = target;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(setup.connect_timeout);
        }
        if !setup.transaction_pooler {
            let own = config.get_options().map(|own| format!(" {own}")).unwrap_or_default();
            config.options(format!("{}{own}", options(setup.timeout)));
        }
        let way = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match tls {
            Tls::Off => Manager::from_config(config, NoTls, way),
            #[cfg(feature = "postgres-tls")]
            Tls::Verified { roots } => {
                Manager::from_config(config, super::tls::connector(roots.as_deref())?, way)
            }
            #[cfg(not(feature = "postgres-tls"))]
            Tls::Verified { .. } => return Err(OpenProblem::NoTls),
        };
        let pool = Pool::builder(manager)
            .max_size(setup.connections.get())
            .create_timeout(Some(setup.connect_timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| OpenProblem::Timeout)?;
        Ok(Self {
            pool,
            tasks: TaskTracker::new(),
            prepared: !setup.transaction_pooler,
            timeout: setup.timeout,
            connect_timeout: setup.connect_timeout,
        })
    }

    /// A connection that does not come back: for what takes several statements.
    pub(super) async fn apart(&self) -> Result<deadpool_postgres::ClientWrapper, OpenFailure> {
        Ok(Object::take(self.pool.get().await?))
    }

    /// How long it may take to make a connection, or to look at what it leads to.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// The rows that a statement answers. The statement must be one that may be sent twice.
    pub(super) async fn query(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let mut perhaps_done = false;
        let rows = self.attempts(sql, parameters, &mut perhaps_done).await;
        // The last attempt may well have done nothing: what counts is what one of them may have done.
        rows.map_err(|error| if perhaps_done { error.perhaps_done() } else { error })
    }

    async fn attempts(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
        perhaps_done: &mut bool,
    ) -> Result<Vec<Row>, StoreError> {
        let deadline = Instant::now() + self.timeout;
        let mut attempt = 1;
        loop {
            let connection = match timeout_at(deadline, self.pool.get()).await {
                Ok(connection) => connection.map_err(no_connection)?,
                Err(_) => return Err(unavailable("no connection was free, or could be made, in time")),
            };
            let connection = scopeguard::guard(connection, |connection| self.settle(connection, deadline));
            let answer = timeout_at(deadline, self.send(&connection, sql, parameters)).await;
            let connection = ScopeGuard::into_inner(connection);
            match answer {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(error)) => {
                    *perhaps_done |= is_unknown(&error);
                    let passing = is_passing(&error);
                    if passing {
                        drop(Object::take(connection));
                    }
                    if is_read_only(&error) {
                        self.discard();
                    }
                    if !passing || attempt == ATTEMPTS {
                        return Err(store_error(error));
                    }
                    attempt += 1;
                }
                Err(_) => {
                    // It may never answer: no other call is to wait for it.
                    drop(Object::take(connection));
                    return Err(StoreError::new(StoreErrorKind::Timeout));
                }
            }
        }
    }

    async fn send(
        &self,
        connection: &Object,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        if !self.prepared {
            return connection.query_typed(sql, parameters).await;
        }
        let types: Vec<Type> = parameters.iter().map(|(_, kind)| kind.clone()).collect();
        let values: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|(value, _)| *value).collect();
        let statement = connection.prepare_typed_cached(sql, &types).await?;
        connection.query(&statement, &values).await
    }

    /// Keeps the connection of a call that was dropped until its statement is answered.
    fn settle(&self, connection: Object, deadline: Instant) {
        let Ok(runtime) = Handle::try_current() else {
            drop(Object::take(connection));
            return;
        };
        let settled = async move {
            // Answered after all that was sent before.
            if !matches!(timeout_at(deadline, connection.check_connection()).await, Ok(Ok(()))) {
                drop(Object::take(connection));
            }
        };
        self.tasks.spawn_on(settled, &runtime);
    }

    /// The tasks behind the connections.
    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Gives up every connection that is at rest: one of them leads to a server that takes no writes any more, or
    /// answered with what belongs to another session.
    pub(super) fn discard(&self) {
        self.pool.retain(|_, _| false);
    }

    pub(super) fn close(&self) {
        self.pool.close();
    }
}

/// What each connection is set to, whatever the server's, the database's and the role's own settings are.
///
/// Statements are planned once: to plan a load takes longer than to answer it, and on large tables the server would do
/// so for each, since a plan for known values looks a little better to it. Each statement has an index to go by, and
/// none is to be planned as a walk through a table that is small just then.
fn options(timeout: Duration) -> String {
    let milliseconds = timeout.as_millis().clamp(1, i32::MAX as u128);
    format!(
        "-c statement_timeout={milliseconds} -c idle_in_transaction_session_timeout={milliseconds} \
         -c default_transaction_isolation=read\\ committed -c search_path=pg_catalog \
         -c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
    )
}
