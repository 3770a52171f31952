//! The Redis store: the conformance suite, and what only servers and networks do.

#![allow(clippy::print_stdout, reason = "the counts are the result")]

mod cluster;
mod failover;
mod faults;
mod load;
mod network;
mod sentinel;
mod server;
mod support;
mod tls;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tower_session_memory::{
    store::RedisStore,
    testing::conformance::{Harness, Options},
};

use self::load::unhurried;
use crate::servers::{Cluster, Redis, Watched};

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
    let builder = unhurried(url).with_retention(options.retention);
    builder.open().await.unwrap()
}

/// What takes seconds to start is shared by the tests that run at the same time.
fn shared<T>(slot: &Mutex<Weak<T>>, start: impl FnOnce() -> T) -> Arc<T> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    slot.upgrade().unwrap_or_else(|| {
        let started = Arc::new(start());
        *slot = Arc::downgrade(&started);
        started
    })
}

/// Stores over TLS.
struct OverTls(Arc<Redis>);

impl OverTls {
    fn shared() -> Self {
        static SLOT: Mutex<Weak<Redis>> = Mutex::new(Weak::new());
        Self(shared(&SLOT, || Redis::tls(false)))
    }
}

impl Harness for OverTls {
    type Store = RedisStore;

    async fn store(&self, options: &Options) -> RedisStore {
        open(&tls::url(&self.0), options).await
    }
}

/// Stores in a Cluster.
struct Clustered(Arc<Cluster>);

impl Clustered {
    fn shared() -> Self {
        static SLOT: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        Self(shared(&SLOT, Cluster::start))
    }
}

impl Harness for Clustered {
    type Store = RedisStore;

    async fn store(&self, options: &Options) -> RedisStore {
        open(&self.0.url(), options).await
    }
}

/// Stores in the server that sentinels name.
struct BySentinels(Arc<Watched>);

impl BySentinels {
    fn shared() -> Self {
        static SLOT: Mutex<Weak<Watched>> = Mutex::new(Weak::new());
        Self(shared(&SLOT, Watched::start))
    }
}

impl Harness for BySentinels {
    type Store = RedisStore;

    async fn store(&self, options: &Options) -> RedisStore {
        open(&self.0.url(), options).await
    }
}

mod on_one_server {
    tower_session_memory::conformance_tests!(super::Standalone(super::Redis::start()));
}

mod over_tls {
    tower_session_memory::conformance_tests!(super::OverTls::shared());
}

mod in_a_cluster {
    tower_session_memory::conformance_tests!(super::Clustered::shared());
}

mod by_sentinels {
    tower_session_memory::conformance_tests!(super::BySentinels::shared());
}
