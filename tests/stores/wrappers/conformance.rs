//! Every wrapper, and all of them together.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use tempfile::TempDir;
use tower_session_memory::{
    store::{
        Cached, Compressed, Encrypted, HistoryStore, InMemoryStore, PostgresStore, RedisStore, SqliteStore,
    },
    testing::{
        ManualClock,
        conformance::{self, Harness, Options},
    },
};

use super::{
    inside::{POSTGRES, redis_server, unused},
    support::{NEW_KEY, OLD_KEY, PATIENCE, ring},
};
use crate::servers::Redis;

trait Base: Send + Sync + Default {
    type Store: HistoryStore;

    fn open(&self, options: &Options) -> impl Future<Output = Self::Store> + Send;

    fn pass(&self, time: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(time)
    }
}

#[derive(Default)]
struct InMemory(ManualClock);

impl Base for InMemory {
    type Store = InMemoryStore;

    async fn open(&self, options: &Options) -> InMemoryStore {
        let clock = self.0.clone();
        InMemoryStore::new().with_clock(move || clock.now()).with_retention(options.retention)
    }

    async fn pass(&self, time: Duration) {
        self.0.advance(time);
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
        let builder = SqliteStore::builder(directory.path().join("sessions.db"))
            .with_clock(move || clock.now())
            .with_retention(options.retention);
        self.directories.lock().unwrap().push(directory);
        builder.open().await.unwrap()
    }

    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
}

struct OnRedis(Arc<Redis>);

impl Default for OnRedis {
    fn default() -> Self {
        Self(redis_server())
    }
}

impl Base for OnRedis {
    type Store = RedisStore;

    async fn open(&self, options: &Options) -> RedisStore {
        let builder = RedisStore::builder(self.0.url())
            .with_timeouts(PATIENCE, PATIENCE)
            .with_retention(options.retention);
        builder.open().await.unwrap()
    }
}

struct OnPostgres {
    schema: String,
}

impl Default for OnPostgres {
    fn default() -> Self {
        Self { schema: unused() }
    }
}

impl Base for OnPostgres {
    type Store = PostgresStore;

    async fn open(&self, options: &Options) -> PostgresStore {
        let builder = PostgresStore::builder(POSTGRES.url())
            .with_schema(&self.schema)
            .with_timeout(PATIENCE)
            .with_connect_timeout(PATIENCE)
            .with_retention(options.retention);
        builder.open().await.unwrap()
    }
}

struct Wrapped<B, W> {
    base: B,
    wrap: W,
}

fn wrapped<B: Base, W>(wrap: W) -> Wrapped<B, W> {
    Wrapped { base: B::default(), wrap }
}

impl<B: Base, S: HistoryStore + 'static, W: Fn(B::Store) -> S + Send + Sync> Harness for Wrapped<B, W> {
    type Store = S;

    async fn store(&self, options: &Options) -> S {
        (self.wrap)(self.base.open(options).await)
    }

    async fn pass(&self, time: Duration) {
        self.base.pass(time).await;
    }
}

/// Most logs do not stay in it.
fn tiny_cache<S>(store: S) -> Cached<S> {
    Cached::new(store).with_max_bytes(8_000)
}

fn compressed<S>(store: S) -> Compressed<S> {
    Compressed::new(store).with_min_bytes(0)
}

fn encrypted<S>(store: S) -> Encrypted<S> {
    Encrypted::new(store, ring(&[NEW_KEY, OLD_KEY]))
}

pub(crate) fn all<S>(store: S) -> Cached<Compressed<Encrypted<S>>> {
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

// Each wrapper over the store in memory, whose clock is the test's, and all of them over a file.
suites! {
    cached_in_memory: Cached::new, InMemory;
    tiny_cache_in_memory: tiny_cache, InMemory;
    compressed_in_memory: compressed, InMemory;
    encrypted_in_memory: encrypted, InMemory;
    all_in_memory: all, InMemory;
    all_sqlite: all, Sqlite;
}

/// Checks that run at once. Those that let time pass only sleep; the others keep the machine busy.
const SLEEPING: usize = 36;
const BUSY: usize = 2;

/// The whole suite through every wrapper over one store. Real time passes here, so the checks run side by side,
/// those that wait for it first.
fn every_wrapper_over<B: Base + 'static>() {
    let suites: [(&str, Suite); 5] = [
        ("cached", suite(wrapped::<B, _>(Cached::new))),
        ("a tiny cache", suite(wrapped::<B, _>(tiny_cache))),
        ("compressed", suite(wrapped::<B, _>(compressed))),
        ("encrypted", suite(wrapped::<B, _>(encrypted))),
        ("all", suite(wrapped::<B, _>(all))),
    ];
    let checks =
        || conformance::CHECKS.iter().flat_map(|check| suites.iter().map(move |suite| (check, suite)));
    let (sleeping, busy): (Vec<_>, Vec<_>) = checks().partition(|(check, _)| check.contains("expir"));
    let (count, failed) = (sleeping.len() + busy.len(), Mutex::new(Vec::new()));
    for (todo, at_once) in [(Mutex::new(sleeping), SLEEPING), (Mutex::new(busy), BUSY)] {
        let next = || todo.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let work = || {
            while let Some((check, (name, run))) = next() {
                if catch_unwind(AssertUnwindSafe(|| run(check))).is_err() {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{name}: {check}"));
                }
            }
        };
        thread::scope(|scope| (0..at_once).for_each(|_| drop(scope.spawn(work))));
    }
    println!("{count} checks of {} wrappers", suites.len());
    assert_eq!(*failed.lock().unwrap(), [""; 0]);
}

/// Runs the check of this name.
type Suite = Box<dyn Fn(&str) + Send + Sync>;

fn suite<H: Harness + 'static>(harness: H) -> Suite {
    Box::new(move |check| conformance::run(check, &harness))
}

#[test]
fn every_wrapper_over_redis_does_what_a_store_must() {
    every_wrapper_over::<OnRedis>();
}

#[test]
fn every_wrapper_over_postgres_does_what_a_store_must() {
    every_wrapper_over::<OnPostgres>();
}
