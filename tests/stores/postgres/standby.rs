//! Standbys: what they make of an acknowledgement, failover, and servers that take no writes.

use std::time::Duration;

use tower_session_memory::store::{Durability, HistoryStore, PostgresStore, StoreErrorKind};

use super::{
    load::{Load, faults},
    support::{key, say, texts, turn},
};
use crate::servers::{Postgres, wait_until};

/// The primary and its standby, in this order.
fn url_of_both(primary: &Postgres, standby: &Postgres) -> String {
    let one = format!("127.0.0.1:{}", primary.port());
    primary.url().replace(&one, &format!("{one},127.0.0.1:{}", standby.port()))
}

fn synchronous(primary: &Postgres, names: &str) {
    primary.psql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
    primary.psql("SELECT pg_reload_conf()");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_synchronous_standby_acknowledged_survives_the_primary() {
    let mut primary = Postgres::start();
    for round in 1..=(faults() / 5).max(1) {
        let standby = tokio::task::block_in_place(|| primary.standby());
        let store = PostgresStore::builder(url_of_both(&primary, &standby)).open().await.unwrap();
        assert_eq!(store.durability().await.unwrap(), Durability::Fsync, "nobody waits for the standby");
        synchronous(&primary, "standby");
        // The reload takes a moment.
        let replicated = async {
            while store.durability().await.unwrap() != Durability::Replicated {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), replicated).await.expect("durability says replicated");
        let state = || primary.psql("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'");
        wait_until("the standby to be synchronous", || state() == "1");
        let load = Load::start(std::slice::from_ref(&store), 8);
        load.progress(100).await;
        tokio::task::block_in_place(|| {
            primary.kill();
            standby.promote();
        });
        load.progress(50).await;
        let findings = load.finish(&store).await;
        findings.check(&format!("failover {round} to a synchronous standby"));
        store.close().await;
        primary = standby;
        primary.psql("DROP SCHEMA session_memory CASCADE");
    }
}

#[tokio::test]
async fn a_primary_that_was_fenced_off_answers_nothing_more() {
    let primary = Postgres::start();
    let standby = primary.standby();
    let store = PostgresStore::builder(url_of_both(&primary, &standby)).open().await.unwrap();
    let only_old = PostgresStore::builder(primary.url()).open().await.unwrap();
    for store in [&store, &only_old] {
        say(store, &key("a"), "one").await;
    }
    let caught_up = || standby.psql("SELECT count(*) FROM session_memory.turns") == "2";
    wait_until("the standby to catch up", caught_up);
    primary.psql("ALTER SYSTEM SET default_transaction_read_only = on");
    primary.psql("SELECT pg_reload_conf()");
    standby.promote();
    wait_until("the old primary to be fenced off", || primary.psql("SHOW transaction_read_only") == "on");

    // Its connections are still there; they lead to what is out of date.
    say(&store, &key("a"), "two").await;
    assert_eq!(texts(&store, &key("a")).await.len(), 3);
    let at = store.load(&key("a"), None).await.unwrap().cursor;
    for _ in 0..3 {
        let unknown = only_old.load(&key("unknown"), None).await.unwrap_err();
        let load = only_old.load(&key("a"), Some(&at)).await.unwrap_err();
        let append = only_old.append(&key("a"), &at, &turn(&key("a"), "lost")).await.unwrap_err();
        let delete = only_old.delete(&key("a")).await.unwrap_err();
        for error in [unknown, load, append, delete] {
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
        }
    }
    assert_eq!(texts(&store, &key("a")).await.len(), 3);
}

#[tokio::test]
async fn a_standby_alone_is_refused_at_the_start() {
    let primary = Postgres::start();
    let standby = primary.standby();
    let refused = PostgresStore::builder(standby.url()).open().await.unwrap_err();
    assert!(refused.to_string().contains("does not allow writes"), "{refused}");
}
