//! Storms: requests that are dropped at random points while others run, and deletions against streams in flight.
//! No caller is ever given what belongs to another, and nothing comes back that was deleted.
//!
//! `SESSION_MEMORY_CANCELLATIONS` sets how many calls are dropped on each store, 3,000 by default, and a
//! twentieth of it how many clients leave the real binary; `SESSION_MEMORY_DELETIONS` how many deletions meet
//! streams in flight, 200 by default.

mod cancel;
mod deletes;
mod leave;
mod shared_socket;

use tower_session_memory::store::{
    PostgresStore, RedisStore, postgres::PostgresBuilder, redis::RedisBuilder,
};

/// Longer than anything takes, also on a machine that has other things to do.
const PATIENCE: std::time::Duration = crate::common::LIMIT;

/// A store that gives up nothing, and sends nothing again, because it takes long.
fn redis(url: impl AsRef<str>) -> RedisBuilder {
    RedisStore::builder(url).with_timeouts(PATIENCE, PATIENCE).with_connect_timeout(PATIENCE)
}

fn postgres(url: impl Into<String>) -> PostgresBuilder {
    PostgresStore::builder(url).with_timeout(PATIENCE).with_connect_timeout(PATIENCE)
}

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn cancellations() -> u64 {
    setting("SESSION_MEMORY_CANCELLATIONS", 3_000)
}

fn deletions() -> u64 {
    setting("SESSION_MEMORY_DELETIONS", 200)
}
