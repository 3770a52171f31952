//! The one place where a store's URL becomes a store.

use std::{num::NonZeroUsize, path::Path, sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tower_session_memory::store::{
    Cached, Compressed, Durability, DynHistoryStore, Encrypted, HistoryStore, InMemoryStore, PostgresStore,
    RedisStore, SqliteStore, TtlRefresh,
    postgres::{ConnectError, Migrated, PostgresBuilder},
    redis::RedisBuilder,
};

use crate::{
    BoxError,
    config::Secrets,
    per_worker::PerWorker,
    settings::{Settings, StoreUrl},
    workers::Workers,
};

/// An open store, and what ends it.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn DynHistoryStore>,
    end: End,
}

/// What there is to finish at the end.
enum End {
    Nothing,
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
}

impl Opened {
    /// Finishes what was handed to the store.
    pub(crate) async fn close(self) {
        match self.end {
            End::Nothing => {}
            End::Sqlite(store) => store.close().await,
            End::Postgres(store) => store.close().await,
        }
    }
}

/// Opens the store, and refuses one that keeps less than is required. Its calls come from `workers`, if they are
/// there.
///
/// # Errors
///
/// When the store cannot be opened, or its durability is below `require_durability`.
pub(crate) async fn open(
    settings: &Settings,
    secrets: &Secrets,
    workers: Option<&Workers>,
) -> Result<Opened, BoxError> {
    let wrapped = Wrapped { settings, secrets };
    let opened = match &settings.store {
        StoreUrl::Memory => Opened { store: wrapped.encrypted(in_memory(settings)), end: End::Nothing },
        StoreUrl::Sqlite(path) => {
            let store = sqlite(settings, path).await?;
            Opened { store: wrapped.encrypted(store.clone()), end: End::Sqlite(store) }
        }
        StoreUrl::Postgres(url) => {
            let store = postgres(settings, url.expose()).connect().await?;
            Opened { store: wrapped.encrypted(store.clone()), end: End::Postgres(store) }
        }
        StoreUrl::Redis(url, _) => {
            let store = match workers {
                None => wrapped.encrypted(redis(settings, url).connect().await?),
                Some(workers) => wrapped.encrypted(redis_of_each(workers, settings, url).await?),
            };
            Opened { store, end: End::Nothing }
        }
    };
    let required = settings.require_durability;
    let offered = opened.store.durability_dyn().await?;
    // A store that does not tell is no worse than one that forgets.
    if required > Durability::None && offered < required {
        return Err(format!(
            "the store {} offers durability {offered}, and require_durability asks for {required}",
            crate::settings::Value::show(&settings.store)
        )
        .into());
    }
    Ok(opened)
}

/// The wrappers that are asked for, innermost first.
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

    /// What is compressed is read whether or not more is to be.
    fn compressed(&self, store: impl HistoryStore) -> Arc<dyn DynHistoryStore> {
        let Settings { max_request_body, max_reply, .. } = self.settings;
        // A record names every message in its header, which may be longer than what it names.
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

/// A store for each worker, with a connection of its own: a call and its answer wake no other thread.
async fn redis_of_each(
    workers: &Workers,
    settings: &Settings,
    url: &SecretString,
) -> Result<PerWorker<RedisStore>, BoxError> {
    let mut stores: Vec<RedisStore> = Vec::with_capacity(workers.count());
    for worker in 0..workers.count() {
        let builder = redis(settings, url).with_connections(NonZeroUsize::MIN);
        // The cache before them is one for all, and a session's next request comes to any of them.
        let builder = stores.iter().take(1).fold(builder, RedisBuilder::with_knowledge_of);
        stores.push(workers.run(worker, async move { builder.connect().await }).await??);
    }
    Ok(PerWorker::new(stores))
}

fn redis(settings: &Settings, url: &SecretString) -> RedisBuilder {
    let builder = RedisStore::builder(url.expose_secret())
        .with_ttl(ttl(settings))
        .with_ttl_refresh(refresh(settings))
        .with_timeouts(attempt(settings), REDIS_CALL);
    settings.max_turns.into_iter().fold(builder, RedisBuilder::with_max_turns)
}

/// How long a call takes at most, with all its attempts. A load gives up before.
const REDIS_CALL: Duration = Duration::from_secs(5);

/// A load whose answer was lost is sent again while somebody still waits for it.
fn attempt(settings: &Settings) -> Duration {
    (settings.load_timeout / 2).clamp(Duration::from_millis(50), Duration::from_secs(2))
}

/// Makes or updates the tables of the store, if it is one that has tables to migrate.
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
