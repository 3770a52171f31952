//! Proxies on a PostgreSQL with its default of `synchronous_commit = on`.

use tower_session_memory::store::{HistoryStore, PostgresStore};

#[cfg(feature = "failpoints")]
use crate::kill::world::POINTS;
use crate::kill::{
    kills,
    world::{World, random},
};
use crate::{
    common::LIMIT,
    servers::{Postgres, wait_until},
};

async fn open(server: &Postgres) -> impl HistoryStore + use<> {
    let builder = PostgresStore::builder(server.url()).with_timeout(LIMIT).with_connect_timeout(LIMIT);
    builder.open().await.expect("the store opens")
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_doubled_or_torn_by_kill_9_of_proxies_on_postgres() {
    let server = Postgres::start();
    let world = World::start(2, |launch| launch.store(&server.url())).await;
    world.kill_proxies(kills()).await;
    world.check("kill -9 of two proxies on one PostgreSQL, in turn", &open(&server).await).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn nothing_acknowledged_is_lost_doubled_or_torn_by_a_death_at_any_point_of_a_turn_on_postgres() {
    let server = Postgres::start();
    let world = World::start(1, |launch| launch.store(&server.url())).await;
    world.die_at(POINTS).await;
    world.check("deaths at named points on PostgreSQL", &open(&server).await).await;
}

/// The proxies go on. Every other time it is one of the server's processes that dies; the server then ends the others
/// and mends itself.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_doubled_or_torn_by_kill_9_of_the_postgres_server() {
    let mut server = Postgres::start();
    let world = World::start(2, |launch| {
        launch.store(&server.url()).with_default_limits().arg("--on-append-error").arg("cut")
    })
    .await;
    for round in 0..kills() / 4 {
        world.more(10).await;
        world.run_for(random(0..100)).await;
        if round % 2 == 0 {
            server.kill();
            server.run();
        } else {
            wait_until("a proxy to be connected", || server.kill_backend());
            server.settle();
        }
        world.died();
    }
    world.more(10).await;
    let what = "kill -9 of the PostgreSQL server, or one of its processes, under two proxies";
    world.check(what, &open(&server).await).await;
}
