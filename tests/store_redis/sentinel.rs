//! A server behind sentinels, and another one after a failover.

use std::time::Duration;

use tower_session_memory::store::RedisStore;

use crate::{
    load::patient,
    servers::{Watched, wait_until},
    support::{key, say, texts},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_store_follows_the_sentinels_to_the_new_master() {
    let mut watched = Watched::start();
    let store = patient(&watched.url()).await;
    let mut said = Vec::new();
    for round in 0..3 {
        let text = format!("round {round}");
        say(&store, &key("a"), &text).await;
        said.push(text);
        let master = watched.master();
        // What is not replicated yet is lost by design: wait for it.
        wait_until("replication", || watched.servers[master].is_replicated());
        watched.servers[master].kill();
        assert_eq!(texts(&store, "a").await, said, "round {round}: another server, the same turns");
        let text = format!("after round {round}");
        say(&store, &key("a"), &text).await;
        said.push(text);
        wait_until("all sentinels to know", || watched.master() != master);
        watched.servers[master].run();
        watched.settle();
    }
}

#[tokio::test]
async fn sentinels_that_know_no_such_master_are_an_error() {
    let watched = Watched::start();
    let url = watched.url().replace("/main", "/other");
    let builder =
        RedisStore::builder(url).with_timeouts(Duration::from_millis(300), Duration::from_millis(900));
    let error = builder.connect().await.unwrap_err().to_string();
    assert!(error.contains("/other"), "{error}");
}
