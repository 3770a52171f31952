//! The store out of settings: opened, wrapped, and held against `require_durability`.
//!
//! The wrappers, innermost first: encryption, compression, cache.

use std::{num::NonZeroUsize, path::Path, sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tower_session_memory::store::{
    Cached, Compressed, Durability, DynHistoryStore, Encrypted, HistoryStore, InMemoryStore, PostgresStore,
    RedisStore, SqliteStore, TtlRefresh,
    postgres::{ConnectError, Migrated, PostgresBuilder},
    redis::RedisBuilder,
};

use super::per_worker::PerWorker;
use crate::{
    error::BoxError,
    server::{Workers, here},
    settings::{Secrets, Settings, StoreUrl, Value},
};

/// An open store, and the handle that closes it.
pub(crate) struct OpenStore {
    pub(crate) store: Arc<dyn DynHistoryStore>,
    end: End,
}

/// The handle that closes a store.
enum End {
    Nothing,
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
}

impl OpenStore {
    /// Finishes the appends that the store has accepted.
    pub(crate) async fn close(self) {
        match self.end {
            End::Nothing => {}
            End::Sqlite(store) => store.close().await,
            End::Postgres(store) => store.close().await,
        }
    }
}

/// Opens the store, and refuses one below `require_durability`.
///
/// With `workers`, a Redis store has a connection for each of them.
///
/// # Errors
///
/// When the store cannot be opened, or its durability is below `require_durability`.
pub(crate) async fn open(
    settings: &Settings,
    secrets: &Secrets,
    workers: Option<&Workers>,
) -> Result<OpenStore, BoxError> {
    let wrapped = Wrapped { settings, secrets };
    let opened = match &settings.store {
        StoreUrl::Memory => OpenStore { store: wrapped.encrypted(in_memory(settings)), end: End::Nothing },
        StoreUrl::Sqlite(path) => {
            let store = sqlite(settings, path).await?;
            OpenStore { store: wrapped.encrypted(store.clone()), end: End::Sqlite(store) }
        }
        StoreUrl::Postgres(url) => {
            let store = postgres(settings, url.expose()).connect().await?;
            OpenStore { store: wrapped.encrypted(store.clone()), end: End::Postgres(store) }
        }
        StoreUrl::Redis(url, _) => {
            let store = match workers {
                None => wrapped.encrypted(redis(settings, url).connect().await?),
                Some(workers) => wrapped.encrypted(redis_of_each(workers, settings, url).await?),
            };
            OpenStore { store, end: End::Nothing }
        }
    };
    let required = settings.require_durability;
    let offered = opened.store.durability_dyn().await?;
    // A store that does not name its durability counts as one that forgets.
    if required > Durability::None && offered < required {
        return Err(format!(
            "the store {} offers durability {offered}, and require_durability asks for {required}",
            settings.store.show()
        )
        .into());
    }
    Ok(opened)
}

/// The wrappers that the settings ask for, innermost first.
struct Wrapped<'a> {
    settings: &'a Settings,
    secrets: &'a Secrets,
}

impl Wrapped<'_> {
    fn encrypted(&self, store: impl HistoryStore) -> Arc<dyn DynHistoryStore> {
        match self.secrets.encryption.clone() {
            None => self.compressed(store),
            Some(ring) if self.settings.encryption_accept_plain => {
                self.compressed(Encrypted::new(store, ring).danger_accept_plain_records())
            }
            Some(ring) => self.compressed(Encrypted::new(store, ring)),
        }
    }

    /// Compressed records are read in any case; `compress` decides whether new ones are compressed.
    fn compressed(&self, store: impl HistoryStore) -> Arc<dyn DynHistoryStore> {
        let Settings { max_request_body, max_reply, .. } = self.settings;
        // A record names every message in its header, which may be longer than the message.
        let largest = (max_request_body.as_u64() + max_reply.as_u64()).saturating_mul(4).max(64 << 20);
        let store = Compressed::new(store).with_max_bytes(usize::try_from(largest).unwrap_or(usize::MAX));
        self.cached(if self.settings.compress { store } else { store.with_min_bytes(usize::MAX) })
    }

    fn cached(&self, store: impl HistoryStore) -> Arc<dyn DynHistoryStore> {
        match self.settings.cache_bytes {
            Some(bytes) if !matches!(self.settings.store, StoreUrl::Memory) => {
                Arc::new(Cached::new(store).with_max_bytes(bytes.as_u64()))
            }
            _ => Arc::new(store),
        }
    }
}

fn in_memory(settings: &Settings) -> InMemoryStore {
    let store = InMemoryStore::new()
        .with_max_bytes(settings.max_memory.as_u64())
        .with_ttl(ttl(settings))
        .with_ttl_refresh(refresh(settings));
    settings.max_turns.into_iter().fold(store, InMemoryStore::with_max_turns)
}

async fn sqlite(settings: &Settings, path: &Path) -> Result<SqliteStore, BoxError> {
    let builder = SqliteStore::builder(path).with_ttl(ttl(settings)).with_ttl_refresh(refresh(settings));
    let builder =
        settings.max_turns.into_iter().fold(builder, |builder, turns| builder.with_max_turns(turns));
    Ok(builder.open().await?)
}

/// A store with a connection of its own for each worker, so that a call wakes no other thread.
async fn redis_of_each(
    workers: &Workers,
    settings: &Settings,
    url: &SecretString,
) -> Result<PerWorker<RedisStore>, BoxError> {
    let mut stores: Vec<RedisStore> = Vec::with_capacity(workers.count());
    for worker in 0..workers.count() {
        let builder = redis(settings, url).with_connections(NonZeroUsize::MIN);
        // The cache before them is shared, and a session's next request may come to any worker.
        let builder = stores.iter().take(1).fold(builder, RedisBuilder::with_knowledge_of);
        stores.push(workers.run(worker, async move { builder.connect().await }).await??);
    }
    Ok(PerWorker::new(stores, here))
}

fn redis(settings: &Settings, url: &SecretString) -> RedisBuilder {
    let builder = RedisStore::builder(url.expose_secret())
        .with_ttl(ttl(settings))
        .with_ttl_refresh(refresh(settings))
        .with_timeouts(attempt(settings), REDIS_CALL);
    settings.max_turns.into_iter().fold(builder, RedisBuilder::with_max_turns)
}

/// A call may take 5 seconds with all its attempts. A load gives up earlier.
const REDIS_CALL: Duration = Duration::from_secs(5);

/// The limit of one attempt: half of a load's limit, so that a lost answer leaves time for a second one.
fn attempt(settings: &Settings) -> Duration {
    (settings.load_timeout / 2).clamp(Duration::from_millis(50), Duration::from_secs(2))
}

/// Creates or updates the tables of a store that has a schema.
///
/// # Errors
///
/// See [`ConnectProblem`](tower_session_memory::store::postgres::ConnectProblem).
pub(crate) async fn migrate(settings: &Settings) -> Result<Option<Migrated>, ConnectError> {
    match &settings.store {
        StoreUrl::Memory | StoreUrl::Sqlite(_) | StoreUrl::Redis(..) => Ok(None),
        StoreUrl::Postgres(url) => postgres(settings, url.expose()).migrate().await.map(Some),
    }
}

fn postgres(settings: &Settings, url: &str) -> PostgresBuilder {
    let builder = PostgresStore::builder(url)
        .with_schema(&settings.store_schema)
        .with_migration(settings.store_migrate)
        .with_transaction_pooler(settings.store_pooler)
        .with_ttl(ttl(settings))
        .with_ttl_refresh(refresh(settings));
    settings.max_turns.into_iter().fold(builder, PostgresBuilder::with_max_turns)
}

fn ttl(settings: &Settings) -> Duration {
    settings.session_ttl.unwrap_or(Duration::MAX)
}

fn refresh(settings: &Settings) -> TtlRefresh {
    if settings.session_ttl_on_load { TtlRefresh::OnLoad } else { TtlRefresh::OnAppend }
}
