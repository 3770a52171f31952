//! Failovers: what is acknowledged may be missing after one that is not graceful, and nothing worse.

use std::time::Duration;

use tower_session_memory::store::{Appended, Cached, HistoryStore, redis::RedisBuilder};

use crate::redis::{
    load::{Load, brief, patient, times, unknown},
    support::{key, say, texts, turn},
};
use crate::{
    servers::{self, Cluster, FaultProxy, Redis, Watched, wait_until},
    turns::add_at,
};

/// Asks a replica to become the master. A node gives up an election that takes too long on a busy machine: it is
/// asked until it is done.
fn promote(replica: &Redis, how: &[&str]) {
    let is_master = || replica.cli(&["role"]).starts_with("master");
    wait_until("the failover", || {
        is_master() || {
            replica.cli(&[&["cluster", "failover"], how].concat());
            std::iter::repeat_with(servers::pause).take(100).any(|()| is_master())
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_is_asked_for_loses_and_doubles_nothing() {
    let cluster = Cluster::start();
    cluster.fail_over_when_asked();
    let store = patient(&cluster.url()).await;
    let load = Load::start(&store, 16);
    let rounds = times(2);
    for _ in 0..rounds {
        load.more(100).await;
        wait_until("replicas", || cluster.replicas().len() == 3);
        promote(cluster.replicas()[0], &[]);
        load.more(100).await;
    }
    load.check(&format!("{rounds} graceful Cluster failovers"), &store).await;
}

/// In turn: the master dies, and the replica takes over while the master lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_is_forced_may_lose_turns_and_tears_and_doubles_nothing() {
    let mut cluster = Cluster::start();
    let store = patient(&cluster.url()).await;
    let load = Load::start(&store, 16);
    let rounds = times(2);
    for round in 0..rounds {
        load.more(100).await;
        force(&mut cluster, round, &load).await;
    }
    let findings = load.findings(&format!("{rounds} forced Cluster failovers"), &store).await;
    println!("acknowledged and lost by forced failovers: {}", findings.lost);
}

async fn force(cluster: &mut Cluster, round: u32, load: &Load) {
    cluster.settle();
    let master = cluster.masters()[round as usize % 3];
    let replica = cluster.replica_of(master);
    if round.is_multiple_of(2) {
        cluster.fail_over_soon();
        cluster.nodes[master].kill();
        let took_over = || cluster.nodes[replica].cli(&["role"]).starts_with("master");
        wait_until("the failover", took_over);
        load.more(10).await;
        cluster.nodes[master].run();
        cluster.settle();
        cluster.fail_over_late();
    } else {
        promote(&cluster.nodes[replica], &["takeover"]);
    }
    load.more(100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_failover_loses_nothing_that_waited_for_a_replica() {
    let mut cluster = Cluster::start();
    cluster.fail_over_when_asked();
    let store = patient(&format!("{}?wait_replicas=1", cluster.url())).await;
    let load = Load::start(&store, 16);
    let rounds = times(1);
    for round in 0..rounds {
        load.more(50).await;
        wait_until("replicas", || cluster.replicas().len() == 3);
        promote(cluster.replicas()[0], &[]);
        load.more(50).await;
        // The only replica becomes the master with all that was waited for.
        force(&mut cluster, 2 * round, &load).await;
    }
    load.check(&format!("{rounds} graceful Cluster failovers and as many deaths, WAIT 1"), &store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_to_a_master_whose_replica_is_frozen_is_unknown_until_it_is_back() {
    let cluster = Cluster::start();
    let limits =
        |builder: RedisBuilder| builder.with_timeouts(Duration::from_millis(300), Duration::from_millis(900));
    let store = brief(&format!("{}?wait_replicas=1", cluster.url()), limits).await;
    let direct = patient(&cluster.url()).await;
    let at = say(&direct, &key("a"), "one").await;
    let stored = |master: &usize| !cluster.nodes[*master].cli(&["keys", "*:log:*:a"]).is_empty();
    let master = cluster.masters().into_iter().find(stored).unwrap();
    let replica = &cluster.nodes[cluster.replica_of(master)];
    replica.signal("STOP");
    let two = turn(&key("a"), "two");
    // Stored, and on no replica.
    unknown(&store, &at, &two, &direct).await;
    let deleted = store.delete(&key("b")).await;
    replica.signal("CONT");
    drop(deleted);
    let again = patient(&format!("{}?wait_replicas=1", cluster.url())).await;
    let answer = again.append(&key("a"), &at, &two).await.unwrap();
    assert!(matches!(answer, Appended::AlreadyThere(_)), "the same turn again: {answer:?}");
    assert_eq!(texts(&again, "a").await, ["one", "two"]);
}

/// A master and its replica, under one address that can be moved.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_turns_that_a_failover_lost_is_noticed() {
    let mut master = Redis::start_with(&["--appendonly", "yes"]);
    let port = master.port().to_string();
    let replica = Redis::start_with(&["--replicaof", &format!("127.0.0.1 {port}")]);
    let way = FaultProxy::before(master.address()).await;
    let store = patient(&format!("redis://{}", way.address())).await;
    let cached = Cached::new(store.clone());
    let a = key("a");
    for number in 1..=5 {
        say(&store, &a, &format!("turn {number}")).await;
    }
    wait_until("the replica", || replica.cli(&["role"]).contains("connected") && master.is_replicated());
    replica.signal("STOP");
    master.cli(&["client", "kill", "type", "replica"]);
    let mut lost = Vec::new();
    let mut at = cached.load(&a, None).await.unwrap().cursor;
    for number in 6..=8 {
        let turn = turn(&a, &format!("turn {number}"));
        at = add_at(&cached, &a, &at, &turn).await;
        lost.push((turn, at));
    }
    assert_eq!(cached.load(&a, None).await.unwrap().records.len(), 8);
    master.kill();
    replica.signal("CONT");
    replica.cli(&["replicaof", "no", "one"]);
    way.lead_to(replica.address());
    way.cut();

    let said: Vec<String> = (1..=5).map(|number| format!("turn {number}")).collect();
    assert_eq!(texts(&store, "a").await, said, "three acknowledged turns are lost, the others whole");
    assert_eq!(cached.load(&a, None).await.unwrap().records.len(), 5, "the cache does not know better");
    // The log grows past the lost cursors: a bare count would fit again.
    for number in 6..=9 {
        for (_, cursor) in &lost {
            let loaded = store.load(&a, Some(cursor)).await.unwrap();
            assert!(loaded.from_start, "the cursor {} is of what is lost", cursor.count);
            assert_eq!(loaded.records.len() as u64, loaded.cursor.count);
        }
        let (whole, uncached) = (cached.load(&a, None).await.unwrap(), store.load(&a, None).await.unwrap());
        let ids = |turns: &[tower_session_memory::history::Record]| {
            turns.iter().map(|t| t.id()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&whole.records), ids(&uncached.records), "the cache is not stale");
        // What was under way continues the newest turn that there is.
        let turn = turn(&a, &format!("other {number}"));
        assert_eq!(add_at(&cached, &a, &lost[2].1, &turn).await.count, number);
    }
    // A turn whose acknowledgement did not arrive is sent again, and is there once.
    let (turn, at) = &lost[0];
    assert_eq!(add_at(&store, &a, at, turn).await.count, 10);
    assert!(matches!(store.append(&a, at, turn).await.unwrap(), Appended::AlreadyThere(_)));
    assert_eq!(texts(&store, "a").await.len(), 10);
}

/// In turn: the sentinels are asked for another master, and the master dies.
#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_failover_under_load_may_lose_turns_and_tears_and_doubles_nothing() {
    let mut watched = Watched::start();
    let store = patient(&watched.url()).await;
    let load = Load::start(&store, 16);
    let rounds = times(2);
    for round in 0..rounds {
        load.more(100).await;
        fail_over(&mut watched, round.is_multiple_of(2), &load).await;
    }
    let findings = load.findings(&format!("{rounds} Sentinel failovers"), &store).await;
    println!("acknowledged and lost by Sentinel failovers: {}", findings.lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_failover_loses_nothing_that_waited_for_the_replica() {
    let mut watched = Watched::start();
    let store = patient(&format!("{}?wait_replicas=1", watched.url())).await;
    let load = Load::start(&store, 16);
    let rounds = times(1);
    for _ in 0..rounds {
        load.more(50).await;
        fail_over(&mut watched, true, &load).await;
    }
    load.check(&format!("{rounds} Sentinel failovers that were asked for, WAIT 1"), &store).await;
}

async fn fail_over(watched: &mut Watched, asked: bool, load: &Load) {
    let master = watched.master();
    if asked {
        wait_until("the sentinels to agree", || {
            watched.sentinels[0].cli(&["sentinel", "failover", "main"]) == "OK"
        });
        wait_until("the failover", || watched.master() != master);
    } else {
        watched.fail_over_soon();
        watched.servers[master].kill();
        wait_until("the failover", || watched.master() != master);
        load.more(50).await;
        watched.servers[master].run();
    }
    watched.settle();
    watched.fail_over_late();
    load.more(100).await;
}
