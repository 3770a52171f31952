//! The stores, and the servers that two of them need.

use std::{path::Path, sync::Arc, time::Duration};

use tower_session_memory::store::{
    Cached, DynHistoryStore, HistoryStore, InMemoryStore, PostgresStore, RedisStore, SqliteStore,
};

use crate::{
    common::cpu,
    error::BoxError,
    servers::{Postgres, Redis, Relay},
};

pub(crate) type Store = Arc<dyn DynHistoryStore>;

/// One store, as several replicas of this program have it.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// A replica without a cache.
    pub(crate) plain: Store,
    /// A replica with one.
    pub(crate) cached: Store,
    /// The same two through a relay; none where there is no server.
    pub(crate) counted: Option<Counted>,
    server: Server,
}

pub(crate) struct Counted {
    pub(crate) relay: Relay,
    pub(crate) plain: Store,
    pub(crate) cached: Store,
}

enum Server {
    None,
    Redis(Redis),
    Postgres(Postgres),
}

impl Target {
    pub(crate) async fn all(directory: &Path) -> Result<Vec<Self>, BoxError> {
        let memory = InMemoryStore::new().with_max_bytes(1 << 30);
        let sqlite = SqliteStore::open(directory.join("sessions.db")).await?;
        let redis = Redis::start_with(&["--appendonly", "yes"]);
        let relay = Relay::before(redis.address()).await;
        let counted = Counted::new(RedisStore::builder(url_of(&relay, "redis")).open().await?, relay);
        let in_redis = RedisStore::builder(redis.url()).open().await?;
        let redis = Self::new("Redis", in_redis, Some(counted), Server::Redis(redis));

        let postgres = Postgres::start();
        let relay = Relay::before(([127, 0, 0, 1], postgres.port()).into()).await;
        let in_postgres = PostgresStore::builder(postgres.url()).open().await?;
        let url = postgres.url().replace(&format!(":{}/", postgres.port()), &format!(":{}/", relay.port()));
        let counted = Counted::new(PostgresStore::builder(url).open().await?, relay);
        let postgres = Self::new("Postgres", in_postgres, Some(counted), Server::Postgres(postgres));

        Ok(vec![
            Self::new("in memory", memory, None, Server::None),
            Self::new("SQLite", sqlite, None, Server::None),
            redis,
            postgres,
        ])
    }

    fn new(
        name: &'static str,
        store: impl HistoryStore + Clone + 'static,
        counted: Option<Counted>,
        server: Server,
    ) -> Self {
        Self { name, plain: Arc::new(store.clone()), cached: Arc::new(Cached::new(store)), counted, server }
    }

    /// CPU time of the server's processes so far; `None` without a server, or where the system is not Linux.
    pub(crate) fn server_cpu(&self) -> Option<Duration> {
        let pids = match &self.server {
            Server::None => return None,
            Server::Redis(server) => {
                let info = server.cli(&["info", "server"]);
                let pid = info.lines().find_map(|line| line.strip_prefix("process_id:"))?;
                vec![pid.trim().to_owned()]
            }
            Server::Postgres(server) => server.pids(),
        };
        pids.iter().map(|pid| cpu::of(pid.parse().ok()?)).sum()
    }
}

impl Counted {
    fn new(store: impl HistoryStore + Clone + 'static, relay: Relay) -> Self {
        Self { relay, plain: Arc::new(store.clone()), cached: Arc::new(Cached::new(store)) }
    }
}

fn url_of(relay: &Relay, scheme: &str) -> String {
    format!("{scheme}://127.0.0.1:{}", relay.port())
}
