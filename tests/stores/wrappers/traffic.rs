//! What calls cost the network, counted: a cached load is one round trip that moves what is new.

use tower_session_memory::store::{Cached, HistoryStore, PostgresStore, RedisStore};

use super::{
    inside::{POSTGRES, redis_server, unused},
    support::{key, say, turn},
};
use crate::{
    servers::{Relay, Traffic},
    turns::add,
};

/// What a call moves.
async fn moved<T>(relay: &Relay, call: impl Future<Output = T>) -> (T, Traffic) {
    let before = relay.traffic();
    let answer = call.await;
    (answer, relay.traffic() - before)
}

/// At each length: a load that finds nothing new, one that finds one new turn, an append.
async fn does_not_grow_with_its_session<S: HistoryStore + Clone>(relay: &Relay, store: S) {
    let replica = Cached::new(store.clone());
    let mut costs = Vec::new();
    for length in [1, 300] {
        let key = key(&format!("of-{length}"));
        for _ in 0..length {
            say(&store, &key, "as long as any other").await;
        }
        let (loaded, whole) = moved(relay, replica.load(&key, None)).await;
        assert_eq!(loaded.unwrap().records.len(), length);
        assert!(whole.received > 300 * length as u64, "the log is counted: {whole:?}");

        let (loaded, unchanged) = moved(relay, replica.load(&key, None)).await;
        let at = loaded.unwrap().cursor;
        let turn = turn(&key, "as long as any other");
        let (appended, append) = moved(relay, store.append(&key, &at, &turn)).await;
        appended.unwrap();
        let (loaded, one_new) = moved(relay, replica.load(&key, None)).await;
        assert_eq!(loaded.unwrap().records.len(), length + 1);
        println!("{} of {length} turns: {unchanged:?}, {append:?}, {one_new:?}", store.name());
        for cost in [unchanged, append, one_new] {
            assert_eq!(cost.round_trips, 1, "of {length} turns: {cost:?}");
        }
        costs.push([unchanged, append, one_new]);
    }
    for (short, long) in costs[0].iter().zip(&costs[1]) {
        assert!(long.received <= short.received + 16 && long.sent <= short.sent + 16, "{short:?}, {long:?}");
    }
}

/// Statements are prepared and scripts loaded once for each connection or server.
async fn warm_up(store: &(impl HistoryStore + Clone)) {
    let replica = Cached::new(store.clone());
    for _ in 0..3 {
        add(store, &key("warm-up"), &turn(&key("warm-up"), "once")).await;
        replica.load(&key("warm-up"), None).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_turn_moves_over_the_network_to_redis_does_not_grow_with_its_session() {
    let server = redis_server();
    let relay = Relay::before(server.address()).await;
    let url = format!("redis://127.0.0.1:{}?prefix={}", relay.port(), unused());
    let store = RedisStore::builder(url).open().await.unwrap();
    warm_up(&store).await;
    does_not_grow_with_its_session(&relay, store).await;
}

#[tokio::test]
async fn what_a_turn_moves_over_the_network_to_postgres_does_not_grow_with_its_session() {
    let relay = Relay::before(([127, 0, 0, 1], POSTGRES.port()).into()).await;
    let url = POSTGRES.url().replace(&format!(":{}/", POSTGRES.port()), &format!(":{}/", relay.port()));
    let store = PostgresStore::builder(url).with_schema(unused()).open().await.unwrap();
    warm_up(&store).await;
    does_not_grow_with_its_session(&relay, store).await;
}
