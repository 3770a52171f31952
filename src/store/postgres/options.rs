use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    Handle, OpenError, OpenProblem, PostgresStore,
    error::OpenFailure,
    log::Statements,
    migrate::{self, NEWEST},
    names::Names,
    pool::{Connections, Setup},
    sweep::Sweeper,
    url::Target,
};
use crate::store::Retention;

impl PostgresStore {
    /// Opens the store with the default settings.
    ///
    /// # Errors
    ///
    /// See [`OpenProblem`].
    pub async fn open(url: impl Into<String>) -> Result<Self, OpenError> {
        Self::builder(url).open().await
    }

    /// The settings, to begin with the URL. It is read when the store is [opened](PostgresBuilder::open).
    pub fn builder(url: impl Into<String>) -> PostgresBuilder {
        PostgresBuilder::new(url.into())
    }
}

/// The settings of a [`PostgresStore`].
///
/// # Defaults
///
/// Tables in the schema `session_memory`, made and migrated when the store is opened; at most 10
/// connections; a call takes five seconds at most, and so does making a connection; prepared statements;
/// the defaults of [`Retention`]; expired sessions are removed every minute.
#[must_use]
pub struct PostgresBuilder {
    url: String,
    schema: String,
    prefix: String,
    migrate: bool,
    setup: Setup,
    retention: Retention,
    sweep_interval: Duration,
}

impl PostgresBuilder {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            schema: "session_memory".to_owned(),
            prefix: String::new(),
            migrate: true,
            setup: Setup {
                connections: const { NonZeroUsize::new(10).unwrap() },
                timeout: Duration::from_secs(5),
                connect_timeout: Duration::from_secs(5),
                transaction_pooler: false,
            },
            retention: Retention::default(),
            sweep_interval: Duration::from_secs(60),
        }
    }

    /// The schema that holds the tables. Default: `session_memory`. Any name of 1 to 63 bytes without a dollar
    /// sign, an apostrophe or NUL; it is quoted, so capitals count.
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// What the name of every table, index and function begins with. Default: nothing. At most 45 bytes.
    pub fn with_table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Whether [`open`](Self::open) makes and migrates the tables. Default: it does. Where the store's
    /// role may not, call [`migrate`](Self::migrate) as one that may; opening then fails unless it was done.
    pub fn with_migration(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// The largest number of connections to the server. Default: 10. A call that finds them all busy waits, within
    /// its [timeout](Self::with_timeout).
    pub fn with_max_connections(mut self, connections: NonZeroUsize) -> Self {
        self.setup.connections = connections;
        self
    }

    /// How long a call may take, the wait for a connection included. Default: 5 seconds; at most a day. The
    /// server stops a statement after the same time, so that no lock is held for longer.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.setup.timeout = timeout.clamp(SHORTEST, LONGEST);
        self
    }

    /// How long making a connection may take, and then, at the start, asking what it leads to. Default: 5
    /// seconds; at most a day. A `connect_timeout` in the URL is for each of its hosts.
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.setup.connect_timeout = timeout.clamp(SHORTEST, LONGEST);
        self
    }

    /// Whether a pooler that gives each transaction another connection stands before the server (PgBouncer's
    /// `pool_mode = transaction`). Default: none does.
    ///
    /// With it, nothing depends on a connection's state: no statement is prepared, and no setting is sent when
    /// connecting. Then give the role what is sent otherwise:
    /// `ALTER ROLE … SET statement_timeout = '5s'`. Each statement is parsed and planned anew.
    pub fn with_transaction_pooler(mut self, pooler: bool) -> Self {
        self.setup.transaction_pooler = pooler;
        self
    }

    /// How long sessions are kept, by the server's clock, and how much of each. A time to live of a thousand years and more
    /// is for ever. A load that puts an expiry off still takes one round trip.
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Time between two removals of expired sessions, which go in small steps; several replicas share the work. Default: a
    /// minute; at most a day. Until then they take room, and no call shows them.
    pub fn with_sweep_interval(mut self, interval: Duration) -> Self {
        self.sweep_interval = interval.clamp(SHORTEST, LONGEST);
        self
    }

    /// Connects, makes or migrates the tables unless that is switched off, and starts the sweep. To be called
    /// within a Tokio runtime, which must outlive the store.
    ///
    /// Several replicas may do so at once: one migrates, the others wait for it.
    ///
    /// Takes at most twice the [connect timeout](Self::with_connect_timeout), and ten minutes more where there is
    /// something to migrate.
    ///
    /// # Errors
    ///
    /// See [`OpenProblem`].
    ///
    /// # Cancel safety
    ///
    /// When it is dropped its connection is closed, and the server undoes what was not finished.
    pub async fn open(self) -> Result<PostgresStore, OpenError> {
        self.connect().await.map_err(|OpenFailure(problem)| OpenError(problem))
    }

    /// Makes the tables or brings them up to date, and does nothing else. Takes no longer than
    /// [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// See [`OpenProblem`].
    ///
    /// # Cancel safety
    ///
    /// When it is dropped its connection is closed, and the server undoes what was not finished.
    pub async fn migrate(self) -> Result<Migrated, OpenError> {
        let migrated = async {
            let (connections, names) = self.prepare()?;
            let found = migrate::migrate(&connections, &names).await?;
            Ok(Migrated { from: found, to: NEWEST })
        };
        migrated.await.map_err(|OpenFailure(problem)| OpenError(problem))
    }

    async fn connect(self) -> Result<PostgresStore, OpenFailure> {
        let (connections, names) = self.prepare()?;
        match self.migrate {
            true => migrate::migrate(&connections, &names).await.map(drop)?,
            false => migrate::verify(&connections, &names).await?,
        }
        let statements = Arc::new(Statements::new(&names, self.retention.refresh));
        let (stop, tasks) = (CancellationToken::new(), connections.tasks().clone());
        let sweeper = Sweeper {
            connections: connections.clone(),
            statements: statements.clone(),
            interval: self.sweep_interval,
        };
        tasks.spawn(stop.clone().run_until_cancelled_owned(sweeper.run()));
        tasks.close();
        let handle = Handle { connections, statements, retention: self.retention, stop, tasks };
        Ok(PostgresStore { handle: Arc::new(handle) })
    }

    fn prepare(&self) -> Result<(Connections, Names), OpenProblem> {
        let names = Names::new(self.schema.clone(), self.prefix.clone())?;
        let connections = Connections::new(Target::read(&self.url)?, &self.setup)?;
        Ok((connections, names))
    }
}

impl fmt::Debug for PostgresBuilder {
    /// The URL holds a password, and is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBuilder")
            .field("schema", &self.schema)
            .field("prefix", &self.prefix)
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}

/// What a migration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migrated {
    /// The schema version that was found; 0 when there were no tables.
    pub from: i32,
    /// The schema version now.
    pub to: i32,
}

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(all(test, not(feature = "postgres-tls")))]
mod tests {
    use crate::store::PostgresStore;

    #[tokio::test]
    async fn a_url_that_asks_for_tls_is_refused_with_the_name_of_the_missing_feature() {
        for url in ["postgres://u@localhost/app?sslmode=require", "postgres://u@db.example/app"] {
            let error = PostgresStore::builder(url).open().await.err().map(|error| error.to_string());
            assert!(error.as_ref().is_some_and(|error| error.contains("`postgres-tls`")), "{url}: {error:?}");
        }
    }
}
