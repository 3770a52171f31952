//! A Cluster that loses connections, masters and slots.

use std::time::Duration;

use tower_session_memory::store::{Durability, HistoryStore, RedisStore};

use crate::{
    load::{Load, patient},
    servers::{self, Cluster, wait_until},
    support::{key, say, texts},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_connection_that_comes_to_a_halt_is_replaced() {
    let cluster = Cluster::start();
    let store = patient(&cluster.url()).await;
    let load = Load::start(&store, 64);
    for _ in 0..10 {
        for _ in 0..2 {
            for node in &cluster.nodes {
                node.cli(&["client", "kill", "type", "normal"]);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        load.more(200).await;
    }
    load.check("CLIENT KILL of all connections, twice in a row", &store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_is_asked_for_loses_and_doubles_nothing() {
    let cluster = Cluster::start();
    let store = patient(&cluster.url()).await;
    let load = Load::start(&store, 16);
    for _ in 0..5 {
        load.more(100).await;
        wait_until("replicas", || cluster.replicas().len() == 3);
        let replica = cluster.replicas()[0];
        // A node gives up an election that takes too long on a busy machine: ask until it is done.
        wait_until("the failover", || {
            replica.cli(&["role"]).starts_with("master") || {
                replica.cli(&["cluster", "failover"]);
                std::iter::repeat_with(servers::pause)
                    .take(100)
                    .any(|()| replica.cli(&["role"]).starts_with("master"))
            }
        });
        load.more(100).await;
    }
    load.check("graceful failovers", &store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_loses_a_master_goes_on_with_its_replica() {
    let mut cluster = Cluster::start();
    let store = patient(&cluster.url()).await;
    for number in 0..64 {
        say(&store, &key(&format!("session-{number}")), "before").await;
    }
    // What is not replicated yet is lost by design: wait for it.
    wait_until("replication", || {
        cluster.nodes.iter().all(|node| {
            let role = node.cli(&["role"]);
            !role.starts_with("master") || node.is_replicated()
        })
    });
    let master = cluster.nodes.iter().position(|node| node.cli(&["role"]).starts_with("master")).unwrap();
    cluster.nodes[master].kill();
    for number in 0..64 {
        let id = format!("session-{number}");
        say(&store, &key(&id), "after").await;
        assert_eq!(texts(&store, &id).await, ["before", "after"]);
    }
}

#[tokio::test]
async fn the_weakest_master_of_a_cluster_decides_on_the_durability() {
    let cluster = Cluster::start();
    let store = RedisStore::builder(cluster.url()).connect().await.unwrap();
    assert_eq!(store.durability().await.unwrap(), Durability::AboutOneSecond);
    let master = cluster.nodes.iter().find(|node| node.cli(&["role"]).starts_with("master")).unwrap();
    master.cli(&["config", "set", "appendonly", "no"]);
    assert_eq!(store.durability().await.unwrap(), Durability::None);
}
