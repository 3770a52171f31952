//! The one place where a store's URL becomes a store.

use std::sync::Arc;

use tower_session_memory::store::DynHistoryStore;

use crate::{BoxError, config::Config};

/// Opens the store, and refuses one that keeps less than is required.
///
/// # Errors
///
/// When the store cannot be opened, or its durability is below `require_durability`.
pub(crate) async fn open(config: &Config) -> Result<Arc<dyn DynHistoryStore>, BoxError> {
    let store = stand_in::open(config)?;
    let required = config.settings.require_durability;
    let offered = store.durability_dyn().await?;
    if offered < required {
        return Err(format!(
            "the store {} offers durability {offered}, and require_durability asks for {required}",
            crate::settings::Value::show(&config.settings.store)
        )
        .into());
    }
    Ok(store)
}

/// Keeps nothing; until the stores are merged.
mod stand_in {
    use std::sync::Arc;

    use tower_session_memory::{
        history::Turn,
        session::SessionKey,
        store::{
            Appended, Cursor, Durability, DynHistoryStore, Epoch, HistoryStore, Loaded, Page, Scope,
            SessionPage, StoreError,
        },
    };

    use crate::{BoxError, config::Config, settings::StoreUrl};

    pub(super) fn open(config: &Config) -> Result<Arc<dyn DynHistoryStore>, BoxError> {
        if let StoreUrl::Sqlite(path) = &config.settings.store {
            let open = || {
                let db = rusqlite::Connection::open(path)?;
                db.execute_batch("create table if not exists stand_in (a)")
            };
            open().map_err(|error: rusqlite::Error| format!("cannot open {}: {error}", path.display()))?;
            return Ok(Arc::new(StandIn("sqlite", Durability::Fsync)));
        }
        Ok(Arc::new(StandIn("memory", Durability::None)))
    }

    struct StandIn(&'static str, Durability);

    impl HistoryStore for StandIn {
        async fn load(&self, _: &SessionKey, _: Option<&Cursor>) -> Result<Loaded, StoreError> {
            Ok(Loaded { cursor: Cursor::start_of(Epoch::UNBORN), turns: Vec::new(), from_start: true })
        }

        async fn append(&self, _: &SessionKey, at: &Cursor, _: &Turn) -> Result<Appended, StoreError> {
            Ok(Appended::Appended(*at))
        }

        async fn delete(&self, _: &SessionKey) -> Result<(), StoreError> {
            Ok(())
        }

        async fn sessions(&self, _: &Scope, _: &Page) -> Result<SessionPage, StoreError> {
            Ok(SessionPage::default())
        }

        async fn durability(&self) -> Result<Durability, StoreError> {
            Ok(self.1)
        }

        fn name(&self) -> &'static str {
            self.0
        }
    }
}
