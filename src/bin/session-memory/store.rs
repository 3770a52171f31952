//! The one place where a store's URL becomes a store.

use std::{path::Path, sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use tower_session_memory::store::{DynHistoryStore, InMemoryStore, RedisStore, SqliteStore, TtlRefresh};

use crate::{
    BoxError,
    config::Config,
    settings::{Settings, StoreUrl},
};

/// An open store, and what ends it.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn DynHistoryStore>,
    sqlite: Option<SqliteStore>,
}

impl Opened {
    /// Finishes what was handed to the store.
    pub(crate) async fn close(self) {
        if let Some(sqlite) = self.sqlite {
            sqlite.close().await;
        }
    }
}

/// Opens the store, and refuses one that keeps less than is required.
///
/// # Errors
///
/// When the store cannot be opened, or its durability is below `require_durability`.
pub(crate) async fn open(config: &Config) -> Result<Opened, BoxError> {
    let settings = &config.settings;
    let opened = match &settings.store {
        StoreUrl::Memory => Opened { store: Arc::new(in_memory(settings)), sqlite: None },
        StoreUrl::Sqlite(path) => {
            let store = sqlite(settings, path).await?;
            Opened { store: Arc::new(store.clone()), sqlite: Some(store) }
        }
        StoreUrl::Redis(url, _) => Opened { store: Arc::new(redis(settings, url).await?), sqlite: None },
    };
    let required = settings.require_durability;
    let offered = opened.store.durability_dyn().await?;
    if offered < required {
        return Err(format!(
            "the store {} offers durability {offered}, and require_durability asks for {required}",
            crate::settings::Value::show(&settings.store)
        )
        .into());
    }
    Ok(opened)
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

async fn redis(settings: &Settings, url: &SecretString) -> Result<RedisStore, BoxError> {
    let builder =
        RedisStore::builder(url.expose_secret()).with_ttl(ttl(settings)).with_ttl_refresh(refresh(settings));
    let builder =
        settings.max_turns.into_iter().fold(builder, |builder, turns| builder.with_max_turns(turns));
    Ok(builder.connect().await?)
}

fn ttl(settings: &Settings) -> Duration {
    settings.session_ttl.unwrap_or(Duration::MAX)
}

fn refresh(settings: &Settings) -> TtlRefresh {
    if settings.session_ttl_on_load { TtlRefresh::OnLoad } else { TtlRefresh::OnAppend }
}
