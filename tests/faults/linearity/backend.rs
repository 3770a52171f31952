//! The store that the replicas share, and what happens to it and to the way to it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use tempfile::TempDir;
use tokio::task::block_in_place;
use tower_session_memory::store::{DynHistoryStore, PostgresStore, RedisStore, SqliteStore};

use crate::{
    common::random::Random,
    servers::{Cluster, Fault, FaultProxy, Postgres, Redis, wait_until},
};

/// How many replicas share a store.
pub const REPLICAS: usize = 3;

/// A store that replicas share.
pub struct Backend {
    pub name: &'static str,
    kind: Kind,
    /// A way to it that has no faults.
    pub direct: Arc<dyn DynHistoryStore>,
}

enum Kind {
    Redis(Mutex<Redis>, Ways),
    Cluster(Cluster, Ways),
    Postgres(Mutex<Postgres>, Ways),
    Sqlite(TempDir),
}

/// One for each replica of the proxy, or for each node of a Cluster.
type Ways = Vec<FaultProxy>;

async fn ways(servers: impl IntoIterator<Item = u16>) -> Ways {
    let mut ways = Vec::new();
    for port in servers {
        ways.push(FaultProxy::before(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await);
    }
    ways
}

impl Backend {
    pub async fn redis() -> Self {
        let server =
            block_in_place(|| Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]));
        let direct = Arc::new(RedisStore::builder(server.url()).open().await.unwrap());
        let ways = ways([server.port(); REPLICAS]).await;
        Self { name: "Redis", kind: Kind::Redis(Mutex::new(server), ways), direct }
    }

    pub async fn cluster() -> Self {
        let cluster = block_in_place(Cluster::start);
        // A master that a busy machine stops may not be replaced: what it acknowledged would be lost.
        block_in_place(|| cluster.fail_over_when_asked());
        let ways = ways(cluster.nodes.iter().map(Redis::port)).await;
        announce(&cluster, &ways);
        let kind = Kind::Cluster(cluster, ways);
        // Clients learn the nodes from the nodes: in a Cluster every client goes the announced ways.
        let direct = Arc::new(RedisStore::builder(url(&kind, 0)).open().await.unwrap());
        Self { name: "Cluster", kind, direct }
    }

    pub async fn postgres() -> Self {
        let server = block_in_place(Postgres::start);
        let direct = Arc::new(PostgresStore::builder(server.url()).open().await.unwrap());
        let ways = ways([server.port(); REPLICAS]).await;
        Self { name: "Postgres", kind: Kind::Postgres(Mutex::new(server), ways), direct }
    }

    pub async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let direct = Arc::new(SqliteStore::open(directory.path().join("sessions.db")).await.unwrap());
        Self { name: "SQLite", kind: Kind::Sqlite(directory), direct }
    }

    /// The store's URL for a replica.
    pub fn url(&self, replica: usize) -> String {
        url(&self.kind, replica)
    }

    /// One fault, of those that take away nothing that was acknowledged.
    pub async fn fault(&self, dice: &mut Random) {
        match &self.kind {
            Kind::Redis(server, ways) => match dice.below(4) {
                0 => pause(&server.lock().unwrap(), dice),
                1 if dice.one_in(3) => block_in_place(|| {
                    let mut server = server.lock().unwrap();
                    server.kill();
                    server.run();
                }),
                _ => disturb(ways, dice).await,
            },
            Kind::Cluster(cluster, ways) => {
                let node = &cluster.nodes[dice.below(cluster.nodes.len())];
                match dice.below(6) {
                    0 => pause(node, dice),
                    // Graceful: the replica waits until it has everything.
                    1 => drop(cli(node, &["cluster", "failover"])),
                    2 => drop(cli(node, &["client", "kill", "type", "normal"])),
                    _ => disturb(ways, dice).await,
                }
            }
            Kind::Postgres(server, ways) => match dice.below(5) {
                0 => {
                    block_in_place(|| server.lock().unwrap().signal("STOP"));
                    tokio::time::sleep(dice.millis(600)).await;
                    block_in_place(|| server.lock().unwrap().signal("CONT"));
                }
                1 if dice.one_in(3) => block_in_place(|| {
                    let mut server = server.lock().unwrap();
                    server.kill();
                    server.run();
                }),
                1 | 2 => block_in_place(|| {
                    let others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                                  WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
                    server.lock().unwrap().psql(others);
                }),
                _ => disturb(ways, dice).await,
            },
            Kind::Sqlite(_) => {}
        }
    }

    /// An end to all faults on the ways: a replica that starts may well refuse to without its store.
    pub fn clear(&self) {
        match &self.kind {
            Kind::Redis(_, ways) | Kind::Cluster(_, ways) | Kind::Postgres(_, ways) => {
                ways.iter().for_each(FaultProxy::clear);
            }
            Kind::Sqlite(_) => {}
        }
    }

    /// An end to all faults.
    pub async fn heal(&self) {
        self.clear();
        match &self.kind {
            Kind::Redis(server, _) => {
                cli(&server.lock().unwrap(), &["client", "unpause"]);
            }
            Kind::Cluster(cluster, _) => {
                for node in &cluster.nodes {
                    cli(node, &["client", "unpause"]);
                }
            }
            Kind::Postgres(server, _) => block_in_place(|| server.lock().unwrap().settle()),
            Kind::Sqlite(_) => {}
        }
    }

    /// The faults of the ways that struck, to be printed.
    pub fn counts(&self) -> String {
        match &self.kind {
            Kind::Redis(_, ways) | Kind::Cluster(_, ways) | Kind::Postgres(_, ways) => {
                ways.iter().map(FaultProxy::counts).collect::<Vec<_>>().join("; ")
            }
            Kind::Sqlite(_) => String::new(),
        }
    }

    /// The store's URL for a client that is not to meet any faults.
    pub fn direct_url(&self) -> String {
        match &self.kind {
            Kind::Redis(server, _) => server.lock().unwrap().url(),
            Kind::Postgres(server, _) => server.lock().unwrap().url(),
            Kind::Cluster(..) | Kind::Sqlite(_) => self.url(0),
        }
    }
}

fn url(kind: &Kind, replica: usize) -> String {
    match kind {
        Kind::Redis(_, ways) => format!("redis://{}", ways[replica].address()),
        Kind::Cluster(_, ways) => {
            let nodes: Vec<_> = ways.iter().take(3).map(|way| way.address().to_string()).collect();
            format!("redis-cluster://{}", nodes.join(","))
        }
        Kind::Postgres(_, ways) => format!("postgres://postgres@{}/postgres", ways[replica].address()),
        Kind::Sqlite(directory) => format!("sqlite:{}", directory.path().join("sessions.db").display()),
    }
}

/// Every node tells clients, and the other nodes, that it is reached by its way; waits until all know.
fn announce(cluster: &Cluster, ways: &Ways) {
    for (node, way) in cluster.nodes.iter().zip(ways) {
        cli(node, &["config", "set", "cluster-announce-port", &way.port().to_string()]);
    }
    let all_known = |node: &Redis| {
        let nodes = node.cli(&["cluster", "nodes"]);
        ways.iter().all(|way| nodes.contains(&format!("{}@", way.address())))
    };
    block_in_place(|| {
        wait_until("the ways to be known", || cluster.nodes.iter().all(all_known));
        cluster.settle();
    });
}

/// The way of one replica fails for a while.
async fn disturb(ways: &Ways, dice: &mut Random) {
    const ONCE: [Fault; 6] = [
        Fault::Swallow,
        Fault::CutReply,
        Fault::CutRequest,
        Fault::ResetReply,
        Fault::ResetRequest,
        Fault::HalfClose,
    ];
    let way = &ways[dice.below(ways.len())];
    match dice.below(4) {
        0 => way.cut(),
        1 => {
            way.at_random(dice.next(), 10);
            tokio::time::sleep(dice.millis(300)).await;
            way.clear();
        }
        2 => {
            way.set(Fault::Freeze);
            tokio::time::sleep(dice.millis(600)).await;
            way.clear();
        }
        _ => way.strike(ONCE[dice.below(ONCE.len())], ""),
    }
}

/// The server does nothing for a while, and then all that it was asked to do.
fn pause(server: &Redis, dice: &mut Random) {
    let time = (100 + dice.below(600)).to_string();
    cli(server, &["client", "pause", &time, "all"]);
}

fn cli(server: &Redis, args: &[&str]) -> String {
    block_in_place(|| server.cli(args))
}

/// How long there is peace between two faults.
pub fn peace(dice: &mut Random) -> Duration {
    Duration::from_millis(30) + dice.millis(250)
}
