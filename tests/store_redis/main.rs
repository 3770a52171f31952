//! The Redis store: the conformance suite, and what only servers and networks do.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod faults;
mod server;
#[path = "../servers/mod.rs"]
mod servers;
mod support;

use tower_session_memory::{
    store::RedisStore,
    testing::conformance::{Harness, Options},
};

use self::servers::Redis;

/// Stores in one server.
struct Standalone(Redis);

impl Harness for Standalone {
    type Store = RedisStore;

    async fn store(&self, options: &Options) -> RedisStore {
        open(&self.0.url(), options).await
    }
}

/// A store as a check wants it.
async fn open(url: &str, options: &Options) -> RedisStore {
    let mut builder = RedisStore::builder(url).with_ttl_refresh(options.ttl_refresh);
    if let Some(ttl) = options.ttl {
        builder = builder.with_ttl(ttl);
    }
    if let Some(turns) = options.max_turns {
        builder = builder.with_max_turns(turns);
    }
    builder.connect().await.unwrap()
}

mod standalone {
    use super::{Redis, Standalone};

    tower_session_memory::conformance_tests!(Standalone(Redis::start()));
}
