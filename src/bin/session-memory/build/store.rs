//! The store out of settings: opened, wrapped, and held against `require_durability`.
//!
//! The wrappers, innermost first: encryption, compression, cache.

use std::{num::NonZeroUsize, path::Path, sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tower_session_memory::store::{
    Cached, Compressed, Durability, DynHistoryStore, Encrypted, HistoryStore, InMemoryStore, PostgresStore,
    RedisStore, Retention, SqliteStore, TtlRefresh,
    postgres::{Migrated, OpenError, PostgresBuilder},
    redis::RedisBuilder,
};

use super::per_worker::PerWorker;
use crate::{
    error::BoxError,
    server::{Workers, here},
    settings::{Secrets, Settings, StoreUrl, Value},
};

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
) -> Result<Arc<dyn DynHistoryStore>, BoxError> {
    let wrapped = Wrapped { settings, secrets };
    let store = match &settings.store {
        StoreUrl::Memory => wrapped.encrypted(in_memory(settings)),
        StoreUrl::Sqlite(path) => wrapped.encrypted(sqlite(settings, path).await?),
        StoreUrl::Postgres(url) => wrapped.encrypted(postgres(settings, url.expose()).open().await?),
        StoreUrl::Redis(url, _) => match workers {
            None => wrapped.encrypted(redis(settings, url).open().await?),
            Some(workers) => wrapped.encrypted(redis_of_each(workers, settings, url).await?),
        },
    };
    let required = settings.require_durability;
    let offered = store.durability_dyn().await?;
    // A store that does not name its durability counts as one that forgets.
    if required > Durability::None && offered < required {
        return Err(format!(
            "the store {} offers durability {offered}, and require_durability asks for {required}",
            settings.store.show()
        )
        .into());
    }
    Ok(store)
}

/// The wrappers that the settings ask for, innermost first.
struct Wrapped<'a> {
    settings: &'a Settings,
    secrets: &'a Secrets,
}

impl Wrapped<'_> {
    fn encrypted(&self, store: impl HistoryStore + 'static) -> Arc<dyn DynHistoryStore> {
        match self.secrets.encryption.clone() {
            None => self.compressed(store),
            Some(ring) if self.settings.encryption_accept_plain => {
                self.compressed(Encrypted::new(store, ring).danger_accept_plain_records())
            }
            Some(ring) => self.compressed(Encrypted::new(store, ring)),
        }
    }

    /// Compressed records are read in any case; `compress` decides whether new ones are compressed.
    fn compressed(&self, store: impl HistoryStore + 'static) -> Arc<dyn DynHistoryStore> {
        let Settings { max_request_body, max_reply, .. } = self.settings;
        // A record names every message in its header, which may be longer than the message.
        let largest = (max_request_body.as_u64() + max_reply.as_u64()).saturating_mul(4).max(64 << 20);
        let store = Compressed::new(store).with_max_bytes(usize::try_from(largest).unwrap_or(usize::MAX));
        self.cached(if self.settings.compress { store } else { store.with_min_bytes(usize::MAX) })
    }

    fn cached(&self, store: impl HistoryStore + 'static) -> Arc<dyn DynHistoryStore> {
        match self.settings.cache_bytes {
            Some(bytes) if !matches!(self.settings.store, StoreUrl::Memory) => {
                Arc::new(Cached::new(store).with_max_bytes(bytes.as_u64()))
            }
            _ => Arc::new(store),
        }
    }
}

fn in_memory(settings: &Settings) -> InMemoryStore {
    InMemoryStore::new().with_max_bytes(settings.max_memory.as_u64()).with_retention(retention(settings))
}

async fn sqlite(settings: &Settings, path: &Path) -> Result<SqliteStore, BoxError> {
    Ok(SqliteStore::builder(path).with_retention(retention(settings)).open().await?)
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
        stores.push(workers.run(worker, async move { builder.open().await }).await??);
    }
    Ok(PerWorker::new(stores, here))
}

fn redis(settings: &Settings, url: &SecretString) -> RedisBuilder {
    RedisStore::builder(url.expose_secret())
        .with_retention(retention(settings))
        .with_timeouts(attempt(settings), REDIS_CALL)
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
/// See [`OpenProblem`](tower_session_memory::store::postgres::OpenProblem).
pub(crate) async fn migrate(settings: &Settings) -> Result<Option<Migrated>, OpenError> {
    match &settings.store {
        StoreUrl::Memory | StoreUrl::Sqlite(_) | StoreUrl::Redis(..) => Ok(None),
        StoreUrl::Postgres(url) => postgres(settings, url.expose()).migrate().await.map(Some),
    }
}

fn postgres(settings: &Settings, url: &str) -> PostgresBuilder {
    PostgresStore::builder(url)
        .with_schema(&settings.store_schema)
        .with_migration(settings.store_migrate)
        .with_transaction_pooler(settings.store_pooler)
        .with_retention(retention(settings))
}

fn retention(settings: &Settings) -> Retention {
    let refresh = if settings.session_ttl_on_load { TtlRefresh::OnLoad } else { TtlRefresh::OnAppend };
    Retention::new()
        .with_ttl(settings.session_ttl.unwrap_or(Duration::MAX))
        .with_refresh(refresh)
        .with_max_turns(settings.max_turns)
        .with_max_bytes(settings.max_log.map(|size| size.as_u64()))
}
