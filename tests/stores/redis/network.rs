//! What happens on the way between the store and its server.

use std::{num::NonZeroUsize, time::Duration};

use tower_session_memory::store::{Appended, HistoryStore, RedisStore, redis::RedisBuilder};

use crate::redis::{
    load::{Load, again, brief, patient, times, unhurried},
    support::{erase, key, say, texts, turn},
};
use crate::servers::{self, Fault, FaultProxy, Redis};

/// What meets an append, and whether the server has then done it.
const FAULTS: [(Fault, bool); 9] = [
    (Fault::Delay(Duration::from_millis(50)), true),
    (Fault::Split, true),
    (Fault::CutRequest, false),
    (Fault::ResetRequest, false),
    (Fault::Freeze, false),
    (Fault::CutReply, true),
    (Fault::ResetReply, true),
    (Fault::HalfClose, true),
    (Fault::Swallow, true),
];

/// Tries for 30 seconds, and does not wait long for one answer.
async fn through(way: &FaultProxy) -> RedisStore {
    let builder = RedisStore::builder(format!("redis://{}", way.address()));
    let builder = builder.with_timeouts(Duration::from_millis(200), Duration::from_secs(30));
    builder.open().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_meets_any_fault_is_stored_once() {
    let server = Redis::start();
    let way = FaultProxy::before(server.address()).await;
    let store = through(&way).await;
    let mut at = say(&store, &key("a"), "first").await;
    let mut sent = 1;
    let rounds = times(2);
    for (fault, done) in FAULTS {
        // These only take their time; on a busy machine more than one attempt has.
        let slow = matches!(fault, Fault::Delay(_) | Fault::Split);
        let mut found = 0;
        for _ in 0..rounds {
            way.strike(fault, "EVALSHA");
            let turn = turn(&key("a"), "hello");
            at = match store.append(&key("a"), &at, &turn).await.unwrap() {
                // An attempt that took too long was done as well.
                Appended::AlreadyThere(next) => {
                    found += 1;
                    next
                }
                // The same turn, sent again over another connection, may have been done first.
                Appended::Appended { cursor: next, .. } => next,
                Appended::Gone => panic!("{fault:?}"),
            };
            sent += 1;
            assert_eq!((at.count, at.newest), (sent, Some(turn.id())), "{fault:?}: stored once");
        }
        assert!(!done || slow || found > 0, "{fault:?}: what was done is found when it is sent again");
        assert!(way.struck(fault) >= u64::from(rounds), "{fault:?} struck");
    }
    assert_eq!(store.load(&key("a"), None).await.unwrap().records.len() as u64, sent);
    println!("appends that met a fault: {} ({} rounds of each), 0 lost, 0 doubled", sent - 1, rounds);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_meets_any_fault_finds_what_is_there() {
    let server = Redis::start();
    let way = FaultProxy::before(server.address()).await;
    let store = through(&way).await;
    let cursor = say(&store, &key("a"), &"long ".repeat(20_000)).await;
    let whole = texts(&store, "a").await;
    for (fault, _) in FAULTS {
        for _ in 0..times(1) {
            way.strike(fault, "GET");
            assert_eq!(texts(&store, "a").await, whole, "{fault:?}");
            way.strike(fault, "EVALSHA");
            let loaded = store.load(&key("a"), Some(&cursor)).await.unwrap();
            assert!(loaded.records.is_empty() && loaded.cursor == cursor, "{fault:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_fails_at_random_loses_and_doubles_nothing() {
    let server = Redis::start();
    let way = FaultProxy::before(server.address()).await;
    let store = through(&way).await;
    for seed in 1..=times(1) {
        println!("seed {seed}");
        let load = Load::start(&store, 16);
        way.at_random(seed.into(), 10);
        load.more(200).await;
        way.clear();
        load.more(50).await;
        load.check(&format!("random faults, one request in 10 ({})", way.counts()), &store).await;
        server.cli(&["flushall"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_whose_answer_is_lost_spares_what_began_after_it() {
    let server = Redis::start();
    let (direct, way) = (patient(&server.url()).await, FaultProxy::before(server.address()).await);
    let store = unhurried(format!("redis://{}", way.address())).open().await.unwrap();
    let a = key("a");
    store.delete(&a).await.unwrap();
    for _ in 0..times(1) {
        say(&direct, &a, "old").await;
        way.strike(Fault::Swallow, "EVALSHA");
        let begin = async {
            while !texts(&direct, "a").await.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            say(&direct, &a, "new").await;
            // Until now it waited for its answer; now it is sent again.
            way.clear();
        };
        let (deleted, ()) = tokio::join!(store.delete(&a), begin);
        deleted.unwrap();
        assert_eq!(texts(&direct, "a").await, ["new"], "what began after the deletion is there");
        direct.delete(&a).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_whose_answer_is_lost_is_counted_and_spares_what_began_after_it() {
    let server = Redis::start();
    let (direct, way) = (patient(&server.url()).await, FaultProxy::before(server.address()).await);
    let store = through(&way).await;
    let a = key("a");
    // From now on the server knows the script.
    say(&direct, &a, "old").await;
    assert_eq!(erase(&store, None, u64::MAX).await, (1, None));

    say(&direct, &a, "old").await;
    way.strike(Fault::CutReply, "EVALSHA");
    assert_eq!(erase(&store, None, u64::MAX).await, (1, None), "it was erased once, and is counted once");
    assert_eq!(way.struck(Fault::CutReply), 1);
    assert!(texts(&direct, "a").await.is_empty());

    let store = unhurried(format!("redis://{}", way.address())).open().await.unwrap();
    say(&direct, &a, "old").await;
    way.strike(Fault::Swallow, "EVALSHA");
    let begin = async {
        while !texts(&direct, "a").await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        say(&direct, &a, "new").await;
        // Until now it waited for its answer; now it is sent again.
        way.clear();
    };
    tokio::join!(erase(&store, None, u64::MAX), begin);
    assert_eq!(texts(&direct, "a").await, ["new"], "what began after the erasure is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_route_costs_no_call_more_than_its_time_and_is_left_when_it_lives() {
    let server = Redis::start();
    let way = FaultProxy::before(server.address()).await;
    let direct = patient(&server.url()).await;
    let at = say(&direct, &key("a"), "one").await;
    let limits = |builder: RedisBuilder| {
        let builder = builder.with_connections(NonZeroUsize::MIN);
        let builder = builder.with_connect_timeout(Duration::from_millis(200));
        builder.with_timeouts(Duration::from_millis(100), Duration::from_millis(300))
    };
    let store = brief(&format!("redis://{}", way.address()), limits).await;
    // All that there is goes nowhere, and so does what is dialled: only another connection helps.
    let before = way.connections();
    way.set(Fault::Freeze);
    let (a, two) = (key("a"), turn(&key("a"), "two"));
    for _ in 0..3 {
        let load = tokio::time::timeout(Duration::from_secs(10), store.load(&a, None));
        assert!(load.await.expect("within its time").unwrap_err().is_transient());
        let append = tokio::time::timeout(Duration::from_secs(10), store.append(&a, &at, &two));
        assert!(append.await.expect("within its time").unwrap_err().is_transient());
    }
    servers::wait_until("another connection", || way.connections() > before);
    way.set(Fault::Refuse);
    assert!(store.load(&key("a"), None).await.unwrap_err().is_transient());
    way.clear();
    again(&store, &at, &two).await;
    assert_eq!(texts(&direct, "a").await, ["one", "two"]);
}

/// The client's own limit would be half a second, and the append sent again without need.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_slow_is_waited_for_as_long_as_was_asked() {
    let server = Redis::start();
    let way = FaultProxy::before(server.address()).await;
    let store = unhurried(format!("redis://{}", way.address())).open().await.unwrap();
    say(&store, &key("a"), "one").await;
    // Once it is read, the next turn takes the script that the server has seen.
    let at = store.load(&key("a"), None).await.unwrap().cursor;
    server.cli(&["config", "resetstat"]);
    way.set(Fault::Delay(Duration::from_millis(600)));
    let appended = store.append(&key("a"), &at, &turn(&key("a"), "two")).await.unwrap();
    assert!(matches!(appended, Appended::Appended { .. }), "{appended:?}");
    assert_eq!(server.calls("evalsha"), 1, "it was sent once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_dropped_leaves_no_connection_and_no_task() {
    let server = Redis::start();
    let way = FaultProxy::before(server.address()).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    // What the tests themselves need: the way's listener.
    let alone = metrics.num_alive_tasks();
    let store = through(&way).await;
    let load = Load::start(&store, 16);
    load.more(50).await;
    way.cut();
    load.more(50).await;
    load.check("one cut of all connections", &store).await;
    drop(store);
    servers::wait_until("the connections to end", || server.clients() == 0);
    servers::wait_until("the tasks to end", || metrics.num_alive_tasks() <= alone);

    let store = through(&way).await;
    way.set(Fault::Refuse);
    way.cut();
    assert!(metrics.num_alive_tasks() > alone);
    // Dropped while it dials in vain.
    drop(store);
    servers::wait_until("its tasks to end", || metrics.num_alive_tasks() <= alone);
}
