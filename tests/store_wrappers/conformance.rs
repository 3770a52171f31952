//! Every wrapper, and all of them together, over both stores that need no server.

use std::{sync::Mutex, time::Duration};

use tempfile::TempDir;
use tower_session_memory::{
    store::{Cached, Compressed, Encrypted, HistoryStore, InMemoryStore, SqliteStore},
    testing::{
        ManualClock,
        conformance::{Harness, Options},
    },
};

use super::support::{NEW_KEY, OLD_KEY, ring};

trait Base: Send + Sync + Default {
    type Store: HistoryStore;

    fn open(&self, options: &Options) -> impl Future<Output = Self::Store> + Send;

    fn clock(&self) -> &ManualClock;
}

#[derive(Default)]
struct InMemory(ManualClock);

impl Base for InMemory {
    type Store = InMemoryStore;

    async fn open(&self, options: &Options) -> InMemoryStore {
        let clock = self.0.clone();
        let store =
            InMemoryStore::new().with_clock(move || clock.now()).with_ttl_refresh(options.ttl_refresh);
        let store = options.ttl.into_iter().fold(store, InMemoryStore::with_ttl);
        options.max_turns.into_iter().fold(store, InMemoryStore::with_max_turns)
    }

    fn clock(&self) -> &ManualClock {
        &self.0
    }
}

#[derive(Default)]
struct Sqlite {
    clock: ManualClock,
    directories: Mutex<Vec<TempDir>>,
}

impl Base for Sqlite {
    type Store = SqliteStore;

    async fn open(&self, options: &Options) -> SqliteStore {
        let directory = tempfile::tempdir().unwrap();
        let clock = self.clock.clone();
        let mut builder = SqliteStore::builder(directory.path().join("sessions.db"))
            .with_clock(move || clock.now())
            .with_ttl_refresh(options.ttl_refresh);
        if let Some(ttl) = options.ttl {
            builder = builder.with_ttl(ttl);
        }
        if let Some(turns) = options.max_turns {
            builder = builder.with_max_turns(turns);
        }
        self.directories.lock().unwrap().push(directory);
        builder.open().await.unwrap()
    }

    fn clock(&self) -> &ManualClock {
        &self.clock
    }
}

struct Wrapped<B, W> {
    base: B,
    wrap: W,
}

fn wrapped<B: Base, W>(wrap: W) -> Wrapped<B, W> {
    Wrapped { base: B::default(), wrap }
}

impl<B: Base, S: HistoryStore, W: Fn(B::Store) -> S + Send + Sync> Harness for Wrapped<B, W> {
    type Store = S;

    async fn store(&self, options: &Options) -> S {
        (self.wrap)(self.base.open(options).await)
    }

    async fn pass(&self, time: Duration) {
        self.base.clock().advance(time);
    }
}

fn compressed<S>(store: S) -> Compressed<S> {
    Compressed::new(store).with_min_bytes(0)
}

fn encrypted<S>(store: S) -> Encrypted<S> {
    Encrypted::new(store, ring(&[NEW_KEY, OLD_KEY]))
}

fn all<S>(store: S) -> Cached<Compressed<Encrypted<S>>> {
    Cached::new(compressed(encrypted(store)))
}

macro_rules! suites {
    ($($name:ident: $wrap:expr, $base:ty;)+) => {$(
        mod $name {
            use super::*;

            tower_session_memory::conformance_tests!(wrapped::<$base, _>($wrap));
        }
    )+};
}

suites! {
    cached_in_memory: Cached::new, InMemory;
    cached_sqlite: Cached::new, Sqlite;
    tiny_cache_in_memory: |store| Cached::new(store).with_max_bytes(8_000), InMemory;
    compressed_in_memory: compressed, InMemory;
    compressed_sqlite: compressed, Sqlite;
    encrypted_in_memory: encrypted, InMemory;
    encrypted_sqlite: encrypted, Sqlite;
    all_in_memory: all, InMemory;
    all_sqlite: all, Sqlite;
}
