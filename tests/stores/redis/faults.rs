//! What goes wrong between the store and its server.

use std::{
    num::NonZeroUsize,
    pin::pin,
    time::{Duration, Instant},
};

use tower_session_memory::{
    history::Record,
    store::{
        Appended, Cursor, HistoryStore, Page, RedisStore, StoreError, StoreErrorKind, redis::RedisBuilder,
    },
};

use crate::redis::{
    load::{Load, PATIENCE, again, brief, patient, unknown},
    support::{erase, key, say, scope, texts, turn},
};
use crate::servers::Redis;

/// Does not try for long.
fn one_second(builder: RedisBuilder) -> RedisBuilder {
    builder.with_timeouts(Duration::from_secs(1), Duration::from_secs(1))
}

/// An append to the session `a` that the server refuses for now: nothing was done. On a busy machine the last
/// attempt may be cut off before its answer, and might have been done, as far as the store knows.
async fn unavailable(store: &RedisStore, at: &Cursor, turn: &Record) {
    let until = Instant::now() + PATIENCE;
    loop {
        let error = store.append(&key("a"), at, turn).await.unwrap_err();
        match error.kind() {
            StoreErrorKind::Unavailable => return,
            StoreErrorKind::Timeout if Instant::now() < until => {}
            _ => panic!("{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_are_flushed_are_sent_again() {
    let server = Redis::start();
    let store = patient(&server.url()).await;
    let load = Load::start(&store, 16);
    for _ in 0..50 {
        server.cli(&["script", "flush"]);
        load.more(5).await;
    }
    load.check("SCRIPT FLUSH in a loop", &store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_killed_under_load_lose_and_double_nothing() {
    let server = Redis::start();
    let store = patient(&server.url()).await;
    let load = Load::start(&store, 64);
    for _ in 0..20 {
        server.cli(&["client", "kill", "type", "normal"]);
        load.more(100).await;
    }
    load.check("CLIENT KILL of all connections", &store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_pauses_or_is_frozen_is_waited_for() {
    let server = Redis::start();
    let store = patient(&server.url()).await;
    let load = Load::start(&store, 16);
    load.more(50).await;
    server.cli(&["client", "pause", "1500", "all"]);
    load.more(50).await;
    server.signal("STOP");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    server.signal("CONT");
    load.more(50).await;
    load.check("CLIENT PAUSE and SIGSTOP", &store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_started_again_has_every_acknowledged_turn() {
    let mut server = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = patient(&server.url()).await;
    let load = Load::start(&store, 16);
    for _ in 0..5 {
        load.more(50).await;
        server.kill();
        server.run();
    }
    load.more(50).await;
    load.check("kill -9 of the server", &store).await;
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable_in_time_and_comes_back() {
    let mut server = Redis::start();
    let limits = |builder: RedisBuilder| {
        let builder = builder.with_connections(NonZeroUsize::MIN);
        builder.with_timeouts(Duration::from_millis(200), Duration::from_millis(600))
    };
    let store = brief(&server.url(), limits).await;
    let at = say(&patient(&server.url()).await, &key("a"), "one").await;
    server.kill();
    assert!(store.load(&key("a"), None).await.unwrap_err().is_transient());
    unavailable(&store, &at, &turn(&key("a"), "two")).await;
    server.run();
    say(&patient(&server.url()).await, &key("b"), "one").await;
    let again = async { while store.load(&key("a"), None).await.is_err() {} };
    tokio::time::timeout(PATIENCE, again).await.expect("the store finds it again");
    let refused = RedisStore::builder("redis://127.0.0.1:1")
        .with_timeouts(Duration::from_millis(100), Duration::from_millis(300))
        .open()
        .await;
    assert!(refused.unwrap_err().to_string().contains("127.0.0.1:1"), "a start without a server says so");
}

#[tokio::test]
async fn a_server_that_is_full_refuses_and_tears_nothing() {
    let server = Redis::start_with(&["--maxmemory-policy", "noeviction"]);
    let (store, hurried) = (patient(&server.url()).await, brief(&server.url(), one_second).await);
    let waiting = brief(&format!("{}?wait_replicas=1", server.url()), one_second).await;
    let at = say(&store, &key("a"), "one").await;
    say(&store, &key("b"), "one").await;
    server.cli(&["config", "set", "maxmemory", "1"]);
    let two = turn(&key("a"), "two");
    unavailable(&hurried, &at, &two).await;
    // Its last attempt is cut off while it waits for replicas.
    let error = waiting.append(&key("a"), &at, &two).await.unwrap_err();
    assert!(error.is_transient(), "it is sent again: {error:?}");
    assert_eq!(texts(&store, "a").await, ["one"], "what is there can be read");
    store.delete(&key("b")).await.expect("and deleted");
    assert!(texts(&store, "b").await.is_empty());
    server.cli(&["config", "set", "maxmemory", "0"]);
    again(&hurried, &at, &two).await;
    assert_eq!(texts(&store, "a").await, ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_full_for_a_while_loses_and_doubles_nothing() {
    let server = Redis::start_with(&["--maxmemory-policy", "noeviction"]);
    let store = patient(&server.url()).await;
    let load = Load::start(&store, 16);
    for _ in 0..5 {
        load.more(50).await;
        server.cli(&["config", "set", "maxmemory", "1"]);
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.cli(&["config", "set", "maxmemory", "0"]);
    }
    load.more(50).await;
    load.check("maxmemory reached five times", &store).await;
}

#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_left_and_takes_turns_again_as_primary() {
    let (server, other) = (Redis::start(), Redis::start());
    let store = patient(&server.url()).await;
    let at = say(&store, &key("a"), "one").await;
    server.cli(&["config", "set", "min-replicas-to-write", "1"]);
    unavailable(&brief(&server.url(), one_second).await, &at, &turn(&key("a"), "two")).await;
    server.cli(&["config", "set", "min-replicas-to-write", "0"]);

    other.cli(&["replicaof", "127.0.0.1", &server.port().to_string()]);
    crate::servers::wait_until("the replica", || !other.cli(&["keys", "*:log:*"]).is_empty());
    let on_replica = brief(&other.url(), one_second).await;
    let two = turn(&key("a"), "two");
    unavailable(&on_replica, &at, &two).await;
    other.cli(&["replicaof", "no", "one"]);
    again(&on_replica, &at, &two).await;
    assert_eq!(texts(&patient(&other.url()).await, "a").await, ["one", "two"]);
}

#[tokio::test]
async fn an_append_that_waits_for_replicas_is_unknown_without_them() {
    let (server, other) = (Redis::start_with(&["--appendonly", "yes"]), Redis::start());
    let url = format!("{}?wait_replicas=1", server.url());
    let limits =
        |builder: RedisBuilder| builder.with_timeouts(Duration::from_millis(400), Duration::from_millis(900));
    let (store, direct) = (brief(&url, limits).await, patient(&server.url()).await);
    let at = direct.load(&key("a"), None).await.unwrap().cursor;
    let one = turn(&key("a"), "one");
    // Stored, and on no replica.
    unknown(&store, &at, &one, &direct).await;
    other.cli(&["replicaof", "127.0.0.1", &server.port().to_string()]);
    crate::servers::wait_until("the replica", || other.cli(&["role"]).contains("connected"));
    crate::servers::wait_until("the log", || !other.cli(&["keys", "*:log:*"]).is_empty());
    let store = patient(&url).await;
    let answer = store.append(&key("a"), &at, &one).await.unwrap();
    assert!(matches!(answer, Appended::AlreadyThere(_)), "the same turn again: {answer:?}");
    assert_eq!(texts(&store, "a").await, ["one"]);
    say(&store, &key("a"), "two").await;
    assert_eq!(store.durability().await.unwrap(), tower_session_memory::store::Durability::Replicated);
}

#[tokio::test]
async fn an_erasure_that_waits_for_replicas_is_written_again_when_it_is_sent_again() {
    let server = Redis::start();
    let limits =
        |builder: RedisBuilder| builder.with_timeouts(Duration::from_millis(100), Duration::from_millis(400));
    let store = brief(&format!("{}?wait_replicas=1", server.url()), limits).await;
    let direct = patient(&server.url()).await;
    let until = Instant::now() + PATIENCE;
    // There is no replica. On a busy machine its time may be over before it is sent again.
    loop {
        say(&direct, &key("a"), "one").await;
        server.cli(&["config", "resetstat"]);
        let error = store.delete_principal(&scope(), &Page::new(10)).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        if server.calls("pexpire") > 0 {
            break;
        }
        assert!(Instant::now() < until);
    }
    assert!(texts(&direct, "a").await.is_empty());
}

#[tokio::test]
async fn an_erasure_goes_on_when_its_server_was_started_again() {
    let mut server = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = patient(&server.url()).await;
    for number in 0..400 {
        say(&store, &key(&format!("session-{number}")), "one").await;
    }
    let (before, next) = erase(&store, None, 200).await;
    assert!(next.is_some(), "{before} of 400 are gone");
    server.kill();
    server.run();
    let (after, _) = erase(&store, next, u64::MAX).await;
    assert_eq!(before + after, 400, "the server numbers its keys anew, and none is missed");
    assert_eq!(erase(&store, None, u64::MAX).await, (0, None), "nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_replicas_that_is_broken_off_is_unknown_and_the_turn_sent_again() {
    let server = Redis::start_with(&["--appendonly", "yes"]);
    let limits =
        |builder: RedisBuilder| builder.with_timeouts(Duration::from_secs(4), Duration::from_secs(6));
    let store = brief(&format!("{}?wait_replicas=1", server.url()), limits).await;
    let direct = patient(&server.url()).await;
    let a = key("a");
    let at = direct.load(&a, None).await.unwrap().cursor;
    let one = turn(&a, "one");
    // Ends a waiting call with an error, as a server does when it is made a replica.
    let unblock = || {
        let list = server.cli(&["client", "list", "type", "normal"]);
        let blocked = list.lines().find(|line| line.contains("flags=b"));
        blocked
            .and_then(|line| line.strip_prefix("id=")?.split(' ').next())
            .is_some_and(|id| server.cli(&["client", "unblock", id, "error"]) == "1")
    };
    let until = Instant::now() + PATIENCE;
    let error = loop {
        server.cli(&["config", "resetstat"]);
        let mut append = pin!(store.append(&a, &at, &one));
        let unblocked = async {
            while !unblock() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            // On a busy machine it may be over before it is broken off: once more.
            ended = &mut append => {
                let transient = ended.as_ref().is_err_and(StoreError::is_transient);
                assert!(transient && Instant::now() < until, "{ended:?}");
            }
            () = unblocked => break append.await.unwrap_err(),
        }
    };
    assert_eq!(error.kind(), StoreErrorKind::Timeout, "stored, and on no replica");
    assert!(server.calls("wait") > 1, "it was sent again");
    assert_eq!(texts(&direct, "a").await, ["one"]);
}
