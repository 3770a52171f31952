//! A server behind sentinels, and another one after a failover.

use std::time::Duration;

use tower_session_memory::store::RedisStore;

use crate::redis::{
    load::{patient, times},
    support::{allow, key, say, texts},
};
use crate::servers::{Watched, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_store_follows_the_sentinels_to_the_new_master() {
    let mut watched = Watched::start();
    let store = patient(&watched.url()).await;
    let mut said = Vec::new();
    for round in 0..times(1) {
        let text = format!("round {round}");
        say(&store, &key("a"), &text).await;
        said.push(text);
        let master = watched.master();
        // What is not replicated yet is lost by design: wait for it.
        wait_until("replication", || watched.servers[master].is_replicated());
        watched.fail_over_soon();
        watched.servers[master].kill();
        assert_eq!(texts(&store, "a").await, said, "round {round}: another server, the same turns");
        let text = format!("after round {round}");
        say(&store, &key("a"), &text).await;
        said.push(text);
        wait_until("all sentinels to know", || watched.master() != master);
        watched.servers[master].run();
        watched.settle();
        watched.fail_over_late();
    }
}

#[tokio::test]
async fn sentinels_that_know_no_such_master_are_an_error() {
    let watched = Watched::start();
    let url = watched.url().replace("/main", "/other");
    let builder =
        RedisStore::builder(url).with_timeouts(Duration::from_millis(300), Duration::from_millis(900));
    let error = builder.open().await.unwrap_err().to_string();
    assert!(error.contains("/other"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_that_says_nothing_is_passed_over() {
    let watched = Watched::start();
    for frozen in 0..2 {
        watched.sentinels[frozen].signal("STOP");
    }
    let store = RedisStore::builder(watched.url())
        .with_connect_timeout(Duration::from_millis(300))
        .with_timeouts(Duration::from_millis(500), Duration::from_secs(30))
        .open()
        .await;
    for frozen in 0..2 {
        watched.sentinels[frozen].signal("CONT");
    }
    say(&store.unwrap(), &key("a"), "one").await;
}

/// Until the sentinels demote a replaced master, it takes writes that are lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_was_replaced_is_left_although_it_answers_as_one() {
    let watched = Watched::start();
    let old = watched.master();
    watched.servers.iter().for_each(|server| allow(server, "+role"));
    let store = patient(&watched.url().replace("://", "://memory:pass%40word@")).await;
    say(&store, &key("a"), "before").await;
    // The sentinels have no user of their own, so they cannot demote it.
    watched.servers[old].cli(&["acl", "setuser", "default", "-slaveof", "-replicaof"]);
    wait_until("the sentinels to agree", || {
        watched.sentinels[0].cli(&["sentinel", "failover", "main"]) == "OK"
    });
    wait_until("the failover", || watched.master() != old);
    let moved = async {
        for number in 0.. {
            let id = format!("session-{number}");
            say(&store, &key(&id), "after").await;
            if !watched.servers[1 - old].cli(&["keys", &format!("*:log:*:{id}")]).is_empty() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), moved).await.expect("the store moves to the new master");
    assert!(
        watched.servers[old].cli(&["role"]).starts_with("master"),
        "it still takes itself for the master"
    );
}
