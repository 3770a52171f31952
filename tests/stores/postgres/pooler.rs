//! Behind PgBouncer in transaction mode.

use std::{num::NonZeroUsize, sync::LazyLock, time::Duration};

use tokio::time::Instant;
use tower_session_memory::store::{HistoryStore, PostgresStore, StoreErrorKind};

use super::{
    load::Load,
    server::{PATIENCE, SERVER, Schema, patient},
    support::{key, say, texts, turn},
};
use crate::servers::{PgBouncer, Postgres, wait_until};

/// Stands before the server that the tests share.
pub(super) static POOLER: LazyLock<PgBouncer> =
    LazyLock::new(|| PgBouncer::before(&SERVER, &["default_pool_size = 8"]));

/// Without the switch settings are sent when connecting, which PgBouncer does not know.
#[tokio::test]
async fn without_the_switch_the_connection_is_refused() {
    let refused = PostgresStore::builder(POOLER.url_of("postgres")).open().await.unwrap_err();
    assert!(refused.to_string().contains("unsupported startup parameter: options"), "{refused}");
}

/// A pooler that ignores the settings gives a later statement to another connection, which has not prepared it.
#[tokio::test]
async fn without_the_switch_prepared_statements_get_lost() {
    let own = ["default_pool_size = 1", "ignore_startup_parameters = options"];
    let pooler = PgBouncer::before(&SERVER, &own);
    let schema = Schema::new();
    let store = |switched| {
        let builder = patient(pooler.url_of("postgres")).with_schema(&schema.name);
        builder.with_transaction_pooler(switched).with_sweep_interval(Duration::from_secs(3600))
    };
    // What it does now and then by itself: it goes on with another connection.
    let reconnect = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                     WHERE application_name = 'session-memory' AND query LIKE '%\"{}\".%'";
    let unswitched = store(false).open().await.unwrap();
    let get_lost = async {
        loop {
            match unswitched.load(&key("a"), None).await {
                Ok(_) => assert_ne!(schema.number(reconnect).await, 0),
                // A backend that is slow to end breaks off one attempt, and the statement is lost at the next: what is
                // said then is that the first may have been carried out.
                Err(error) if error.is_transient() => {}
                Err(error) => return error,
            }
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(60), get_lost).await.expect("they get lost");
    assert_eq!(error.kind(), StoreErrorKind::Conflict, "{error:?}");
    unswitched.close().await;

    let (one, two) = (store(true).open().await.unwrap(), store(true).open().await.unwrap());
    for round in 0..10 {
        say(if round % 2 == 0 { &one } else { &two }, &key("a"), &round.to_string()).await;
        assert_ne!(schema.number(reconnect).await, 0);
    }
    assert_eq!(texts(&one, &key("a")).await.len(), 10);
}

/// Two replicas with ten connections each on two of the server's.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_is_restarted_under_load_loses_and_doubles_nothing() {
    let server = Postgres::start();
    let mut pooler = PgBouncer::before(&server, &["default_pool_size = 2"]);
    let url = pooler.url_of("postgres");
    let connect = async || {
        let builder = PostgresStore::builder(&url).with_transaction_pooler(true);
        builder.with_connect_timeout(PATIENCE).open().await.unwrap()
    };
    let stores = [connect().await, connect().await];
    let load = Load::start(&stores, 20);
    for _ in 0..3 {
        load.progress(100).await;
        tokio::task::block_in_place(|| {
            pooler.stop();
            pooler.run();
        });
    }
    load.progress(100).await;
    let backends = "SELECT count(*) <= 2 FROM pg_stat_activity WHERE application_name = 'session-memory'";
    // Each transaction has another connection. Those of before the restart may take a moment to end.
    tokio::task::block_in_place(|| wait_until("no more than two backends", || server.psql(backends) == "t"));
    let direct = patient(server.url()).open().await.unwrap();
    load.finish(&direct).await.check("3 restarts of PgBouncer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_cut_off_gives_the_poolers_connection_back() {
    let schema = Schema::new();
    let at = say(&schema.connect().await, &key("a"), "one").await;
    let builder = patient(POOLER.url_of("postgres")).with_schema(&schema.name);
    let builder = builder.with_transaction_pooler(true).with_timeout(Duration::from_millis(300));
    let store = builder.with_max_connections(NonZeroUsize::new(2).unwrap()).open().await.unwrap();
    let blocker = schema.raw().await;
    blocker.batch_execute(&format!("BEGIN; SELECT FROM {}.sessions FOR UPDATE", schema.name)).await.unwrap();
    // More than the pooler has connections: each is given up and must not block the others for good.
    let (mut cut_off, until) = (0, Instant::now() + PATIENCE);
    while cut_off < 20 {
        let turn = turn(&key("a"), "late");
        let error = store.append(&key("a"), &at, &turn).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        // Anything else is one that came too late to be sent.
        cut_off += u32::from(error.kind() == StoreErrorKind::Timeout);
        assert!(Instant::now() < until, "only {cut_off} appends were sent, the last: {error:?}");
    }
    blocker.batch_execute("COMMIT").await.unwrap();
    let until = Instant::now() + PATIENCE;
    while store.load(&key("b"), None).await.is_err() {
        assert!(Instant::now() < until, "the pooler's connections are all blocked");
    }
}
