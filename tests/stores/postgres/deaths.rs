//! Servers that are killed or frozen under load, and connections that fail in every way.

use std::{net::Ipv4Addr, num::NonZeroUsize, time::Duration};

use tokio::time::Instant;
use tower_session_memory::store::{
    Appended, HistoryStore, PostgresStore, StoreErrorKind, postgres::PostgresBuilder,
};

use super::{
    load::{Load, faults},
    server::{PATIENCE, SERVER, patient},
    support::{key, say, texts, turn},
};
use crate::servers::{Fault, FaultProxy, Postgres};

const CALLERS: usize = 12;

/// Two handles, as two replicas have them.
async fn two(url: String) -> [PostgresStore; 2] {
    let connect = async || connected(|| PostgresStore::builder(&url)).await;
    [connect().await, connect().await]
}

/// Stores that give up soon may need several tries to connect.
async fn connected(builder: impl Fn() -> PostgresBuilder) -> PostgresStore {
    let until = Instant::now() + PATIENCE;
    loop {
        match builder().open().await {
            Ok(store) => return store,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    }
}

/// A store that is not what is tested: it gives up nothing, and no fault comes between it and the server.
async fn direct(server: &Postgres) -> PostgresStore {
    patient(server.url()).open().await.unwrap()
}

/// How many turns are appended before something happens: now few, now more.
fn some(round: u64) -> u64 {
    round * 37 % 120 + 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_under_load_loses_and_doubles_nothing() {
    let mut server = Postgres::start();
    let stores = two(server.url()).await;
    let load = Load::start(&stores, CALLERS);
    for round in 0..faults() {
        load.progress(some(round)).await;
        tokio::task::block_in_place(|| {
            server.kill();
            server.run();
        });
    }
    load.progress(10).await;
    load.finish(&direct(&server).await).await.check(&format!("{} times kill -9 of the server", faults()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_killed_under_load_loses_and_doubles_nothing() {
    let server = Postgres::start();
    let stores = two(server.url()).await;
    let load = Load::start(&stores, CALLERS);
    let mut killed = 0;
    while killed < faults() {
        load.progress(some(killed)).await;
        killed += tokio::task::block_in_place(|| {
            let killed = server.kill_backend();
            server.settle();
            u64::from(killed)
        });
    }
    load.progress(10).await;
    load.finish(&direct(&server).await).await.check(&format!("{killed} times kill -9 of one backend"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_freezes_under_load_loses_and_doubles_nothing() {
    let server = Postgres::start();
    let timeout = Duration::from_millis(300);
    let direct = direct(&server).await;
    let hasty = connected(|| PostgresStore::builder(server.url()).with_timeout(timeout)).await;
    let calm = connected(|| patient(server.url()).with_connect_timeout(timeout)).await;
    let stores = [hasty, calm];
    let load = Load::start(&stores, CALLERS);
    for round in 0..faults() {
        load.progress(some(round)).await;
        server.signal("STOP");
        // A call that finds the server frozen comes back all the same.
        let answers = tokio::time::timeout(Duration::from_secs(60), async {
            while stores[0].load(&key("frozen"), None).await.is_ok() {}
        });
        answers.await.expect("every wait is bounded");
        server.signal("CONT");
    }
    load.progress(10).await;
    load.finish(&direct).await.check(&format!("{} times SIGSTOP and SIGCONT of the server", faults()));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_fail_at_random_lose_and_double_nothing() {
    let server = Postgres::start();
    let proxy = FaultProxy::before((Ipv4Addr::LOCALHOST, server.port()).into()).await;
    let url = server.url().replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port()));
    let direct = direct(&server).await;
    let limit = Duration::from_millis(500);
    let connect = async || {
        connected(|| PostgresStore::builder(&url).with_timeout(limit).with_connect_timeout(limit)).await
    };
    let stores = [connect().await, connect().await];
    let load = Load::start(&stores, CALLERS);
    for seed in 1..=faults() {
        proxy.at_random(seed, 20);
        load.progress(200).await;
        proxy.clear();
        load.progress(10).await;
    }
    println!("faults: {}", proxy.counts());
    load.finish(&direct).await.check(&format!("random faults, seeds 1 to {}", faults()));
}

/// Callers that leave before the store's own timeout, as the layer does when a load takes too long.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_went_mute_is_given_up_although_no_caller_waits_for_it() {
    let server = Postgres::start();
    let proxy = FaultProxy::before((Ipv4Addr::LOCALHOST, server.port()).into()).await;
    let url = server.url().replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port()));
    let builder = patient(&url).with_max_connections(NonZeroUsize::MIN);
    let store = builder.with_timeout(Duration::from_secs(3)).open().await.unwrap();
    let (direct, key) = (direct(&server).await, key("mute"));
    for (round, fault) in [Fault::Swallow, Fault::Freeze].into_iter().enumerate() {
        say(&direct, &key, &format!("{fault:?}")).await;
        proxy.strike(fault, "mute");
        let answers = async {
            loop {
                let load = tokio::time::timeout(Duration::from_secs(1), store.load(&key, None));
                if let Ok(Ok(loaded)) = load.await {
                    return loaded.records.len();
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, answers).await.expect("another connection is made");
        assert_eq!(found, round + 1);
        strikes(&proxy, fault, 0).await;
    }
}

/// Waits until a fault has struck more often than before.
async fn strikes(proxy: &FaultProxy, fault: Fault, before: u64) {
    let struck = async {
        while proxy.struck(fault) <= before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, struck).await.unwrap_or_else(|_| panic!("{fault:?} did not strike"));
}

/// The answer is lost, and then there is no connection to ask again by.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_may_have_been_done_is_not_said_to_be_undone() {
    SERVER.psql("CREATE DATABASE cut_off");
    let proxy = FaultProxy::before((Ipv4Addr::LOCALHOST, SERVER.port()).into()).await;
    let url =
        SERVER.url_of("cut_off").replace(&format!(":{}/", SERVER.port()), &format!(":{}/", proxy.port()));
    let store = patient(&url).with_max_connections(NonZeroUsize::MIN).open().await.unwrap();
    let key = key("a");
    say(&store, &key, "one").await;
    let at = store.load(&key, None).await.unwrap().cursor;
    let turn = turn(&key, "two");
    SERVER.psql("ALTER DATABASE cut_off ALLOW_CONNECTIONS false");
    proxy.strike(Fault::CutReply, "two");
    let unknown = store.append(&key, &at, &turn).await.unwrap_err();
    assert_eq!(unknown.kind(), StoreErrorKind::Timeout, "it was done: {unknown:?}");
    let undone = store.append(&key, &at, &turn).await.unwrap_err();
    assert_eq!(undone.kind(), StoreErrorKind::Unavailable, "nothing was sent: {undone:?}");
    SERVER.psql("ALTER DATABASE cut_off ALLOW_CONNECTIONS true");
    let again = store.append(&key, &at, &turn).await.unwrap();
    assert!(matches!(again, Appended::AlreadyThere(_)), "{again:?}");
    assert_eq!(proxy.struck(Fault::CutReply), 1);
}

/// Each fault, met by the very statement that appends a turn.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_meets_a_fault_is_stored_once() {
    let server = Postgres::start();
    let proxy = FaultProxy::before((Ipv4Addr::LOCALHOST, server.port()).into()).await;
    let url = server.url().replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port()));
    // What has come to the server is done, however long the store waits for it.
    let builder = patient(url + "?options=-c%20statement_timeout%3D60s").with_timeout(Duration::from_secs(1));
    let store = builder.with_max_connections(NonZeroUsize::new(2).unwrap()).open().await.unwrap();
    let direct = direct(&server).await;
    let key = key("a");
    let mut said = Vec::new();
    // What was done, and whose answer was lost, is there when the turn is sent again.
    let done = [Fault::Swallow, Fault::CutReply, Fault::ResetReply, Fault::HalfClose];
    let not_done = [Fault::CutRequest, Fault::ResetRequest, Fault::Freeze, Fault::Refuse, Fault::Split];
    for round in 0..faults() {
        for fault in done.into_iter().chain(not_done) {
            let is_done = done.contains(&fault);
            for again in 0.. {
                assert!(again < 10, "{fault:?} never meets its request");
                let text = format!("{fault:?} {round} {again}");
                let at = direct.load(&key, None).await.unwrap().cursor;
                let turn = turn(&key, &text);
                let before = proxy.struck(fault);
                proxy.strike(fault, &text);
                let (mut errors, mut met) = (0, true);
                let answer = loop {
                    match store.append(&key, &at, &turn).await {
                        Ok(answer) => break answer,
                        Err(error) if error.is_transient() && errors < 50 => errors += 1,
                        Err(error) => panic!("{fault:?}: {error:?}"),
                    }
                    // The store may have given up before its request met the fault, or before the server had done it.
                    met &= !(is_done && proxy.spare());
                    if is_done && met {
                        strikes(&proxy, fault, before).await;
                    }
                };
                let stored_before = matches!(answer, Appended::AlreadyThere(_));
                assert!(!(is_done && met) || stored_before, "{fault:?}: {answer:?} after {errors} errors");
                said.push(text);
                proxy.clear();
                assert_eq!(texts(&direct, &key).await, said, "after {fault:?}");
                if met {
                    break;
                }
            }
        }
    }
    println!("faults: {}", proxy.counts());
    for fault in done.into_iter().chain(not_done) {
        assert!(proxy.struck(fault) >= faults(), "{fault:?} did not strike");
    }
}
