//! What goes wrong between the store and its server.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;
use tower_session_memory::{
    history::TurnId,
    store::{Appended, HistoryStore, RedisStore, StoreErrorKind},
};

use crate::{
    servers::{Fault, FaultProxy, Redis},
    support::{key, say, texts, turn},
};

pub(crate) async fn patient(url: &str) -> RedisStore {
    let builder = RedisStore::builder(url).with_timeouts(Duration::from_millis(500), Duration::from_secs(30));
    builder.connect().await.unwrap()
}

/// Appends to sessions of their own from many tasks until told to end, and answers what was acknowledged.
pub(crate) struct Load {
    tasks: JoinSet<Vec<(String, TurnId)>>,
    end: Arc<AtomicBool>,
    done: Arc<AtomicU32>,
}

impl Load {
    pub(crate) fn start(store: &RedisStore, tasks: usize) -> Self {
        let mut load = Self { tasks: JoinSet::new(), end: Arc::default(), done: Arc::default() };
        for task in 0..tasks {
            let (store, end, done) = (store.clone(), load.end.clone(), load.done.clone());
            load.tasks.spawn(async move {
                let (id, mut acknowledged) = (format!("session-{task}"), Vec::new());
                let key = key(&id);
                let mut at = store.load(&key, None).await.unwrap().cursor;
                while !end.load(Ordering::Relaxed) {
                    let turn = turn(&key, "hello");
                    match store.append(&key, &at, &turn).await.unwrap() {
                        Appended::Appended(next) | Appended::AlreadyThere(next) => at = next,
                        Appended::Gone => panic!("nothing was deleted"),
                    }
                    acknowledged.push((id.clone(), turn.id()));
                    done.fetch_add(1, Ordering::Relaxed);
                }
                acknowledged
            });
        }
        load
    }

    /// Waits for so many more acknowledged turns.
    pub(crate) async fn more(&self, turns: u32) {
        let goal = self.done.load(Ordering::Relaxed) + turns;
        tokio::time::timeout(Duration::from_secs(60), async {
            while self.done.load(Ordering::Relaxed) < goal {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("appends go on");
    }

    /// Every acknowledged turn is in the store, once.
    pub(crate) async fn check(self, store: &RedisStore) {
        self.end.store(true, Ordering::Relaxed);
        for acknowledged in self.tasks.join_all().await {
            let session = acknowledged[0].0.clone();
            let sent: Vec<TurnId> = acknowledged.into_iter().map(|(_, id)| id).collect();
            let turns = store.load(&key(&session), None).await.unwrap().turns;
            let found: Vec<TurnId> = turns.iter().map(|turn| turn.id()).collect();
            assert_eq!(found, sent, "{session}: each acknowledged turn once, in order");
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
    load.check(&store).await;
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
    load.check(&store).await;
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
    load.check(&store).await;
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
    load.check(&store).await;
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable_in_time_and_comes_back() {
    let mut server = Redis::start();
    let builder = RedisStore::builder(server.url())
        .with_connections(NonZeroUsize::MIN)
        .with_timeouts(Duration::from_millis(200), Duration::from_millis(600));
    let store = builder.connect().await.unwrap();
    let at = say(&store, &key("a"), "one").await;
    server.kill();
    assert!(store.load(&key("a"), None).await.unwrap_err().is_transient());
    let error = store.append(&key("a"), &at, &turn(&key("a"), "two")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "nothing was sent");
    server.run();
    say(&patient(&server.url()).await, &key("b"), "one").await;
    let again = async { while store.load(&key("a"), None).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(30), again).await.expect("the store finds it again");
    let refused = RedisStore::builder("redis://127.0.0.1:1")
        .with_timeouts(Duration::from_millis(100), Duration::from_millis(300))
        .connect()
        .await;
    assert!(refused.unwrap_err().to_string().contains("127.0.0.1:1"), "a start without a server says so");
}

#[tokio::test]
async fn a_server_that_is_full_refuses_and_tears_nothing() {
    let server = Redis::start_with(&["--maxmemory-policy", "noeviction"]);
    let builder = RedisStore::builder(server.url())
        .with_timeouts(Duration::from_millis(200), Duration::from_millis(400));
    let store = builder.connect().await.unwrap();
    let at = say(&store, &key("a"), "one").await;
    server.cli(&["config", "set", "maxmemory", "1"]);
    let two = turn(&key("a"), "two");
    let error = store.append(&key("a"), &at, &two).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "nothing was done: {error:?}");
    assert_eq!(texts(&store, "a").await, ["one"], "what is there can be read");
    server.cli(&["config", "set", "maxmemory", "0"]);
    assert!(matches!(store.append(&key("a"), &at, &two).await.unwrap(), Appended::Appended(_)));
    assert_eq!(texts(&store, "a").await, ["one", "two"]);
}

#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_left_and_takes_turns_again_as_primary() {
    let (server, other) = (Redis::start(), Redis::start());
    let store = patient(&server.url()).await;
    let at = say(&store, &key("a"), "one").await;
    server.cli(&["config", "set", "min-replicas-to-write", "1"]);
    let brief = RedisStore::builder(server.url())
        .with_timeouts(Duration::from_millis(200), Duration::from_millis(300))
        .connect()
        .await
        .unwrap();
    let error = brief.append(&key("a"), &at, &turn(&key("a"), "two")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "too few replicas: {error:?}");
    server.cli(&["config", "set", "min-replicas-to-write", "0"]);

    other.cli(&["replicaof", "127.0.0.1", &server.port().to_string()]);
    crate::servers::wait_until("the replica", || !other.cli(&["keys", "*:log:*"]).is_empty());
    let on_replica = RedisStore::builder(other.url())
        .with_timeouts(Duration::from_millis(200), Duration::from_millis(300))
        .connect()
        .await
        .unwrap();
    let two = turn(&key("a"), "two");
    let error = on_replica.append(&key("a"), &at, &two).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "a replica takes no writes: {error:?}");
    other.cli(&["replicaof", "no", "one"]);
    let answer = on_replica.append(&key("a"), &at, &two).await.unwrap();
    assert!(matches!(answer, Appended::Appended(_)));
}

#[tokio::test]
async fn an_append_that_waits_for_replicas_is_unknown_without_them() {
    let (server, other) = (Redis::start_with(&["--appendonly", "yes"]), Redis::start());
    let url = format!("{}?wait_replicas=1", server.url());
    let builder =
        RedisStore::builder(&url).with_timeouts(Duration::from_millis(400), Duration::from_millis(900));
    let store = builder.connect().await.unwrap();
    let at = store.load(&key("a"), None).await.unwrap().cursor;
    let one = turn(&key("a"), "one");
    let error = store.append(&key("a"), &at, &one).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Timeout, "stored, and on no replica: {error:?}");
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

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_answer_is_lost_is_stored_once() {
    let server = Redis::start();
    let way = FaultProxy::before(server.address()).await;
    let store = patient(&format!("redis://{}", way.address())).await;
    let mut at = say(&store, &key("a"), "first").await;
    let mut sent = 1;
    for _ in 0..100 {
        way.strike(Fault::CutReply, "EVALSHA");
        let turn = turn(&key("a"), "hello");
        match store.append(&key("a"), &at, &turn).await.unwrap() {
            Appended::AlreadyThere(next) => at = next,
            other => panic!("the first attempt was done and its answer swallowed: {other:?}"),
        }
        sent += 1;
        assert_eq!(at.count, sent, "stored once");
    }
    assert_eq!(way.struck(Fault::CutReply), 100);
}

#[tokio::test]
async fn a_deletion_whose_answer_is_lost_spares_what_began_after_it() {
    let server = Redis::start();
    let way = FaultProxy::before(server.address()).await;
    let store = patient(&format!("redis://{}", way.address())).await;
    for _ in 0..20 {
        say(&store, &key("a"), "old").await;
        way.strike(Fault::CutReply, "EVALSHA");
        store.delete(&key("a")).await.unwrap();
        assert!(texts(&store, "a").await.is_empty());
    }
}
