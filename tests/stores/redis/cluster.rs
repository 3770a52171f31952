//! A Cluster whose connections, masters and slots come and go.

use std::{num::NonZeroUsize, time::Duration};

use tower_session_memory::store::{Appended, Durability, HistoryStore, RedisStore};

use crate::redis::{
    load::{Load, patient, times},
    support::{erase, key, say, turn},
};
use crate::servers::{Cluster, Redis, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_connection_that_comes_to_a_halt_is_replaced() {
    let cluster = Cluster::start();
    // One, or the others carry the load on.
    let builder = RedisStore::builder(cluster.url()).with_connections(NonZeroUsize::MIN);
    let builder = builder.with_timeouts(Duration::from_millis(500), Duration::from_secs(30));
    let store = builder.open().await.unwrap();
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

#[tokio::test]
async fn the_weakest_master_of_a_cluster_decides_on_the_durability() {
    let cluster = Cluster::start();
    let store = RedisStore::builder(cluster.url()).open().await.unwrap();
    assert_eq!(store.durability().await.unwrap(), Durability::AboutOneSecond);
    cluster.nodes.iter().for_each(|node| drop(node.cli(&["config", "set", "appendfsync", "always"])));
    let level = store.durability().await.unwrap();
    assert_eq!(level, Durability::AboutOneSecond, "a failover loses what one disk holds");
    let master = cluster.nodes.iter().find(|node| node.cli(&["role"]).starts_with("master")).unwrap();
    master.cli(&["config", "set", "appendonly", "no"]);
    assert_eq!(store.durability().await.unwrap(), Durability::None);
    for node in &cluster.nodes {
        let error = RedisStore::builder(node.url()).open().await.unwrap_err().to_string();
        assert!(error.contains("the URL begins with redis-cluster://"), "{error}");
    }
}

/// The client sends what got no answer again by itself, and so does the store.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_sends_again_by_itself_is_stored_once() {
    let cluster = Cluster::start();
    let store = patient(&cluster.url()).await;
    let load = Load::start(&store, 32);
    load.more(200).await;
    cluster.nodes.iter().for_each(|node| drop(node.cli(&["config", "resetstat"])));
    let before = load.acknowledged();
    for _ in 0..times(1) {
        // Shorter than what the others take for a failure.
        for master in cluster.masters() {
            cluster.nodes[master].signal("STOP");
            tokio::time::sleep(Duration::from_millis(1200)).await;
            cluster.nodes[master].signal("CONT");
        }
        load.more(100).await;
    }
    let findings = load.findings("masters frozen for 1.2 s", &store).await;
    let calls: u64 = cluster.nodes.iter().map(|node| node.calls("evalsha")).sum();
    let appended = findings.acknowledged as u64 - u64::from(before);
    // Two scripts an append: the session, and its listing.
    println!("{calls} calls of scripts for {appended} appends");
    assert!(calls > 2 * appended, "appends were sent more than once");
    assert_eq!(findings.lost, 0);
}

/// Half a second is the client's own limit, within which it would give up and send again.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_slow_is_waited_for_as_long_as_was_asked() {
    let cluster = Cluster::start();
    let builder = RedisStore::builder(cluster.url()).with_connections(NonZeroUsize::MIN);
    let store = builder.with_timeouts(Duration::from_secs(30), Duration::from_secs(60)).open().await.unwrap();
    let at = say(&store, &key("a"), "one").await;
    for node in &cluster.nodes {
        node.cli(&["config", "resetstat"]);
        node.cli(&["client", "pause", "1000", "write"]);
    }
    let appended = store.append(&key("a"), &at, &turn(&key("a"), "two")).await.unwrap();
    assert!(matches!(appended, Appended::Appended { .. }), "{appended:?}");
    let calls: u64 = cluster.nodes.iter().map(|node| node.calls("evalsha")).sum();
    assert_eq!(calls, 3, "the session and both listings, once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_frozen_is_left_for_its_replica() {
    let cluster = Cluster::start();
    let builder = RedisStore::builder(cluster.url()).with_connections(NonZeroUsize::MIN);
    let store = builder.with_timeouts(Duration::from_secs(2), Duration::from_secs(30));
    let store = store.open().await.unwrap();
    let master = cluster.masters()[0];
    // One is of its sessions; all the others are answered, over the same connection.
    let (mut sessions, mut its) = (Vec::new(), 0);
    for id in (0..64).map(|number| format!("session-{number}")) {
        say(&store, &key(&id), "").await;
        let of_it = !cluster.nodes[master].cli(&["keys", &format!("*:log:*:{id}")]).is_empty();
        its += usize::from(of_it);
        if !of_it || its == 1 {
            store.delete(&key(&id)).await.unwrap();
            sessions.push(id);
        }
        if its > 0 && sessions.len() > 8 {
            break;
        }
    }
    let load = Load::of(&store, sessions);
    load.more(100).await;
    let replica = cluster.replica_of(master);
    cluster.fail_over_soon();
    cluster.nodes[master].signal("STOP");
    wait_until("the failover", || cluster.nodes[replica].cli(&["role"]).starts_with("master"));
    load.more_of_each(5).await;
    cluster.nodes[master].signal("CONT");
    cluster.settle();
    load.more(100).await;
    load.findings("a master frozen until its replica took over", &store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_move_under_load_lose_and_double_nothing() {
    let cluster = Cluster::start();
    let store = patient(&cluster.url()).await;
    let load = Load::start(&store, 32);
    load.more(200).await;
    // By hand, so that a key is in one place and its slot still in another for a while.
    let mut moved = 0;
    for task in (0..times(4)).map(|number| number % 32) {
        let pattern = format!("session-memory:log:*:session-{task}");
        let (from, name) = cluster
            .masters()
            .into_iter()
            .map(|master| (master, cluster.nodes[master].cli(&["keys", &pattern])))
            .find(|(_, names)| names.ends_with(&format!("session-{task}")))
            .expect("the session is on a master");
        let to = cluster.masters().into_iter().find(|master| *master != from).unwrap();
        let name = name.lines().next().unwrap();
        let more = async |turns| load.more(turns).await;
        move_slot(&cluster, &cluster.nodes[from], &cluster.nodes[to], name, more).await;
        moved += 1;
    }
    let count = |error: &str| -> u64 {
        let of = |node: &Redis| {
            let stats = node.cli(&["info", "errorstats"]);
            let line = stats.lines().find_map(|line| line.strip_prefix(&format!("errorstat_{error}:count=")));
            line.map_or(0, |count| count.trim().parse().unwrap())
        };
        cluster.nodes.iter().map(of).sum()
    };
    // As operators do it.
    let (from, to) = (cluster.masters()[0], cluster.masters()[1]);
    let id = |place: usize| cluster.nodes[place].cli(&["cluster", "myid"]);
    let mut reshard = cluster.nodes[from].redis_cli();
    reshard.args(["--cluster", "reshard", &cluster.nodes[from].address().to_string()]);
    reshard.args([
        "--cluster-from",
        &id(from),
        "--cluster-to",
        &id(to),
        "--cluster-slots",
        "200",
        "--cluster-yes",
    ]);
    let output = tokio::task::block_in_place(|| reshard.output().unwrap());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    load.more(200).await;
    let (ask, asked_to_move) = (count("ASK"), count("MOVED"));
    load.check(&format!("{moved} slots and 200 more moved: {ask} ASK, {asked_to_move} MOVED"), &store).await;
    assert!(ask > 0 && asked_to_move > 0, "clients met both");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_goes_on_when_slots_moved_behind_it() {
    let cluster = Cluster::start();
    let store = patient(&cluster.url()).await;
    for number in 0..60 {
        say(&store, &key(&format!("session-{number}")), "one").await;
    }
    // It is past the first server, and has not reached the last.
    let (before, next) = erase(&store, None, 30).await;
    let mut slots: Vec<(u16, usize, String)> = Vec::new();
    for master in cluster.masters() {
        let node = &cluster.nodes[master];
        let names = node.cli(&["keys", "session-memory:log:*"]);
        let slot = |name: &str| node.cli(&["cluster", "keyslot", name]).parse().unwrap();
        slots.extend(names.lines().map(|name| (slot(name), master, name.to_owned())));
    }
    slots.sort_unstable();
    let [(_, first, _), .., (_, last, name)] = slots.as_slice() else { panic!("{slots:?}") };
    move_slot(&cluster, &cluster.nodes[*last], &cluster.nodes[*first], name, async |_| ()).await;
    let (after, _) = erase(&store, next, u64::MAX).await;
    assert_eq!(before + after, 60, "what moved to a server that was gone through is not missed");
    assert_eq!(erase(&store, None, u64::MAX).await, (0, None), "nothing is left");
}

/// Moves the slot of a key, with a number of turns that come at every stage.
async fn move_slot(cluster: &Cluster, from: &Redis, to: &Redis, name: &str, more: impl AsyncFn(u32)) {
    let slot = from.cli(&["cluster", "keyslot", name]);
    let id = |node: &Redis| node.cli(&["cluster", "myid"]);
    assert_eq!(to.cli(&["cluster", "setslot", &slot, "importing", &id(from)]), "OK");
    assert_eq!(from.cli(&["cluster", "setslot", &slot, "migrating", &id(to)]), "OK");
    more(50).await;
    let port = to.port().to_string();
    loop {
        let keys = from.cli(&["cluster", "getkeysinslot", &slot, "100"]);
        if keys.is_empty() {
            break;
        }
        let keys: Vec<&str> = keys.lines().collect();
        let said = from.cli(&[&["migrate", "127.0.0.1", &port, "", "0", "5000", "keys"], &keys[..]].concat());
        assert!(["OK", "NOKEY"].contains(&said.as_str()), "{said}");
    }
    more(100).await;
    for node in [to, from].into_iter().chain(&cluster.nodes) {
        // Replicas learn it from their masters.
        let said = node.cli(&["cluster", "setslot", &slot, "node", &id(to)]);
        assert!(said == "OK" || said.contains("masters"), "{said}");
    }
    more(50).await;
}
