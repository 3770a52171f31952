//! A place in a store of each kind. Its servers are shared: each test has a namespace of its own.

use std::{
    ops::Deref,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{
    common::*,
    servers::{Cluster, Postgres, Redis, Watched, end_with_this_process},
};

/// Makes a test of each scenario on each store: `$module::redis::$scenario`, and so on. A scenario is a function
/// of a [`Kind`] and the arguments that are given here.
macro_rules! on_every_store {
    ($module:ident $arguments:tt: $($scenario:ident)+) => {
        mod $module {
            #[allow(unused_imports, reason = "the scenarios are in the module around this one")]
            use super::*;
            on_store!(sqlite = Sqlite, $arguments: $($scenario)+);
            on_store!(redis = Redis, $arguments: $($scenario)+);
            on_store!(redis_tls = RedisTls, $arguments: $($scenario)+);
            on_store!(redis_cluster = RedisCluster, $arguments: $($scenario)+);
            on_store!(redis_sentinel = RedisSentinel, $arguments: $($scenario)+);
            on_store!(redis_sealed = RedisSealed, $arguments: $($scenario)+);
            on_store!(postgres = Postgres, $arguments: $($scenario)+);
            on_store!(postgres_sealed = PostgresSealed, $arguments: $($scenario)+);
        }
    };
}

/// Makes a test of each scenario on one store.
macro_rules! on_store {
    ($module:ident = $kind:ident, $arguments:tt: $($scenario:ident)+) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $scenario() {
                    run_on!(super::$scenario, $kind, $arguments);
                }
            )+
        }
    };
}

macro_rules! run_on {
    ($scenario:path, $kind:ident, ($($argument:expr)?)) => {
        $scenario($crate::place::Kind::$kind, $($argument)?).await
    };
}

/// The kinds of stores that the binary is run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only the process itself can look into it.
    Memory,
    Sqlite,
    Redis,
    RedisTls,
    RedisCluster,
    RedisSentinel,
    /// With encryption and compression.
    RedisSealed,
    Postgres,
    /// With encryption and compression.
    PostgresSealed,
}

/// The keys of the sealed kinds.
pub const KEYS: &str = "2026-05 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// A namespace in a store.
pub struct Place {
    pub kind: Kind,
    pub namespace: String,
    url: Option<String>,
    _turn: Option<Turn>,
}

/// Most tests share a server; one that changes it has it alone.
#[expect(dead_code, reason = "they are held")]
enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// A server for all tests of this process.
pub struct Server<T: 'static> {
    started: LazyLock<T>,
    turns: RwLock<()>,
}

pub static REDIS: Server<Redis> = Server::new(|| {
    let server = Redis::start();
    end_with_this_process(&[&server]);
    server
});
pub static TLS: Server<Redis> = Server::new(|| {
    let server = Redis::tls(false);
    end_with_this_process(&[&server]);
    server
});
pub static CLUSTER: Server<Cluster> = Server::new(|| {
    let cluster = Cluster::start();
    end_with_this_process(&cluster.nodes.iter().collect::<Vec<_>>());
    cluster
});
pub static WATCHED: Server<Watched> = Server::new(|| {
    let watched = Watched::start();
    end_with_this_process(&watched.servers.iter().chain(&watched.sentinels).collect::<Vec<_>>());
    watched
});
pub static POSTGRES: Server<Postgres> = Server::new(Postgres::start);

impl<T> Server<T> {
    const fn new(start: fn() -> T) -> Self {
        Self { started: LazyLock::new(start), turns: RwLock::const_new(()) }
    }

    async fn turn(&'static self, alone: bool) -> Turn {
        match alone {
            true => Turn::Alone(self.turns.write().await),
            false => Turn::Shared(self.turns.read().await),
        }
    }
}

impl<T> Deref for Server<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.started
    }
}

impl Place {
    pub async fn new(kind: Kind) -> Self {
        Self::taking_turns(kind, false).await
    }

    /// A place on a server that no other test uses at the same time.
    pub async fn alone(kind: Kind) -> Self {
        Self::taking_turns(kind, true).await
    }

    async fn taking_turns(kind: Kind, alone: bool) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("test-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let (url, turn) = match kind {
            Kind::Memory => (Some("memory".to_owned()), None),
            Kind::Sqlite => (None, None),
            Kind::Redis | Kind::RedisSealed => (Some(REDIS.url()), Some(REDIS.turn(alone).await)),
            Kind::RedisTls => {
                let url = format!("rediss://127.0.0.1:{}?tls_ca={}", TLS.port(), TLS.file("ca.pem"));
                (Some(url), Some(TLS.turn(alone).await))
            }
            Kind::RedisCluster => (Some(CLUSTER.url()), Some(CLUSTER.turn(alone).await)),
            Kind::RedisSentinel => (Some(WATCHED.url()), Some(WATCHED.turn(alone).await)),
            Kind::Postgres | Kind::PostgresSealed => (Some(POSTGRES.url()), Some(POSTGRES.turn(alone).await)),
        };
        Self { kind, namespace, url, _turn: turn }
    }

    /// A proxy on this place.
    pub fn launch(&self, upstream: &Upstream) -> Launch {
        let launch = Launch::new(&upstream.url()).namespace(&self.namespace);
        let launch = match &self.url {
            Some(url) => launch.store(url),
            None => launch,
        };
        if self.kind.is_sealed() { launch.sealed(KEYS) } else { launch }
    }

    /// The URL of its servers, with other credentials.
    pub fn url_of(&self, credentials: &str) -> String {
        let url = self.url.as_ref().expect("a store with a server");
        let (scheme, rest) = url.split_once("://").unwrap();
        let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
        format!("{scheme}://{credentials}@{rest}")
    }

    /// Makes a user of its servers with all permissions.
    pub fn admit(&self, user: &str, password: &str) {
        if self.kind.name() == "postgres" {
            POSTGRES.psql(&format!("CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{password}'"));
        }
        for server in self.kind.redis_servers() {
            let said = server.cli(&["acl", "setuser", user, "on", &format!(">{password}"), "~*", "+@all"]);
            assert_eq!(said, "OK");
        }
    }

    /// Ends this user's connections, and lets none in again.
    pub fn lock_out(&self, user: &str) {
        if self.kind.name() == "postgres" {
            POSTGRES.psql(&format!("ALTER ROLE {user} NOLOGIN"));
            POSTGRES.psql(&format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'"
            ));
        }
        for server in self.kind.redis_servers() {
            server.cli(&["acl", "deluser", user]);
        }
    }
}

impl Kind {
    pub fn is_sealed(self) -> bool {
        matches!(self, Self::RedisSealed | Self::PostgresSealed)
    }

    /// What the store calls itself.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Redis | Self::RedisTls | Self::RedisCluster | Self::RedisSentinel | Self::RedisSealed => {
                "redis"
            }
            Self::Postgres | Self::PostgresSealed => "postgres",
        }
    }

    /// The Redis servers of this kind that take writes, or may.
    fn redis_servers(self) -> Vec<&'static Redis> {
        match self {
            Self::Redis | Self::RedisSealed => vec![&REDIS],
            Self::RedisTls => vec![&TLS],
            Self::RedisCluster => CLUSTER.nodes.iter().collect(),
            Self::RedisSentinel => WATCHED.servers.iter().collect(),
            Self::Memory | Self::Sqlite | Self::Postgres | Self::PostgresSealed => Vec::new(),
        }
    }
}

/// While this lives the store takes no writes, and is read as ever.
#[expect(dead_code, reason = "they are held")]
pub enum ReadOnly {
    File(rusqlite::Connection),
    Redis(Vec<&'static Redis>),
    Rows(tokio_postgres::Client),
}

impl ReadOnly {
    /// Of a place that is used alone and has a session.
    pub async fn begin(place: &Place, launch: &Launch) -> Self {
        // A file that is locked cannot be opened.
        launch.opened().await;
        match place.kind {
            Kind::Memory => panic!("nothing keeps memory from being written"),
            Kind::Sqlite => {
                let file = rusqlite::Connection::open(launch.store_path()).unwrap();
                file.execute_batch("BEGIN IMMEDIATE").unwrap();
                Self::File(file)
            }
            Kind::Postgres | Kind::PostgresSealed => {
                let client = postgres_client(&POSTGRES.url()).await;
                client.batch_execute("BEGIN").await.unwrap();
                let lock = "SELECT FROM session_memory.sessions WHERE namespace = $1 FOR UPDATE";
                let locked = client.execute(lock, &[&place.namespace]).await.unwrap();
                assert!(locked > 0, "there is a row to lock");
                Self::Rows(client)
            }
            kind => {
                let servers = kind.redis_servers();
                for server in &servers {
                    server.cli(&["config", "set", "min-replicas-to-write", "9"]);
                }
                Self::Redis(servers)
            }
        }
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        if let Self::Redis(servers) = self {
            for server in servers {
                server.cli(&["config", "set", "min-replicas-to-write", "0"]);
            }
        }
    }
}

/// A connection past the store. It closes with its value.
pub async fn postgres_client(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the client")]
    tokio::spawn(connection);
    client
}

/// A scripted upstream, and a proxy in front of it on a store of this kind.
pub async fn pair_on(kind: Kind) -> (Upstream, Proxy, Place) {
    pair_with(kind, |launch| launch).await
}

/// The same, with other settings.
pub async fn pair_with(kind: Kind, change: impl FnOnce(Launch) -> Launch) -> (Upstream, Proxy, Place) {
    let place = Place::new(kind).await;
    let upstream = Upstream::start().await.unwrap();
    let proxy = change(place.launch(&upstream)).start().await;
    (upstream, proxy, place)
}
