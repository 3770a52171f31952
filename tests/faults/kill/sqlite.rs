//! Proxies on a SQLite file.

#[cfg(feature = "failpoints")]
use crate::kill::world::POINTS;
use crate::kill::{kills, world::World};

#[tokio::test]
async fn nothing_acknowledged_is_lost_doubled_or_torn_by_kill_9_at_random_times() {
    let world = World::on_a_file(1).await;
    world.kill_proxies(kills()).await;
    world.check_file("kill -9 of one proxy").await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_doubled_or_torn_with_two_proxies_on_one_file() {
    let world = World::on_a_file(2).await;
    world.kill_proxies(kills()).await;
    world.check_file("kill -9 of two proxies on one file, in turn").await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn nothing_acknowledged_is_lost_doubled_or_torn_by_a_death_at_any_point_of_a_turn() {
    let world = World::on_a_file(1).await;
    world.die_at(POINTS).await;
    world.die_at(&["committing"]).await;
    world.check_file("deaths at named points").await;
}
