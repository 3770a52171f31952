//! Proxies on a Redis that writes every append to its file before it answers.

use tower_session_memory::store::{HistoryStore, RedisStore};

#[cfg(feature = "failpoints")]
use crate::kill::world::POINTS;
use crate::kill::{
    kills,
    world::{World, random},
};
use crate::{common::LIMIT, servers::Redis};

fn start() -> Redis {
    Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
}

async fn open(server: &Redis) -> impl HistoryStore + use<> {
    let builder = RedisStore::builder(server.url()).with_timeouts(LIMIT, LIMIT).with_connect_timeout(LIMIT);
    builder.open().await.expect("the store opens")
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_doubled_or_torn_by_kill_9_of_proxies_on_redis() {
    let server = start();
    let world = World::start(2, |launch| launch.store(&server.url())).await;
    world.kill_proxies(kills()).await;
    world.check("kill -9 of two proxies on one Redis, in turn", &open(&server).await).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn nothing_acknowledged_is_lost_doubled_or_torn_by_a_death_at_any_point_of_a_turn_on_redis() {
    let server = start();
    let world = World::start(1, |launch| launch.store(&server.url())).await;
    world.die_at(POINTS).await;
    world.check("deaths at named points on Redis", &open(&server).await).await;
}

/// The proxies go on.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_doubled_or_torn_by_kill_9_of_the_redis_server() {
    let mut server = start();
    let world = World::start(2, |launch| {
        launch.store(&server.url()).with_default_limits().arg("--on-append-error").arg("cut")
    })
    .await;
    for _ in 0..kills() / 4 {
        world.more(10).await;
        world.run_for(random(0..100)).await;
        server.kill();
        world.died();
        server.run();
    }
    world.more(10).await;
    world.check("kill -9 of the Redis server under two proxies", &open(&server).await).await;
}
