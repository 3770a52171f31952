//! A store with a handle of its own for each worker thread.

use tower_session_memory::{
    history::Record,
    session::SessionKey,
    store::{Appended, Cursor, Durability, HistoryStore, Loaded, Page, Scope, SessionPage, StoreError},
};

use crate::server::here;

/// Handles to one store; each thread uses the handle of its worker.
pub(crate) struct PerWorker<S>(Vec<S>);

impl<S> PerWorker<S> {
    /// One handle for each worker, in the order of the workers.
    pub(crate) fn new(stores: Vec<S>) -> Self {
        Self(stores)
    }

    fn here(&self) -> &S {
        &self.0[here()]
    }
}

impl<S: HistoryStore> HistoryStore for PerWorker<S> {
    async fn load(&self, key: &SessionKey, after: Option<&Cursor>) -> Result<Loaded, StoreError> {
        self.here().load(key, after).await
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, turn: &Record) -> Result<Appended, StoreError> {
        self.here().append(key, at, turn).await
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError> {
        self.here().delete(key).await
    }

    async fn sessions(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        self.here().sessions(scope, page).await
    }

    async fn durability(&self) -> Result<Durability, StoreError> {
        self.here().durability().await
    }

    fn name(&self) -> &'static str {
        self.here().name()
    }
}
