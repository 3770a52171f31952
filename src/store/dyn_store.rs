use std::{future::Future, pin::Pin, time::Duration};

use super::{
    Appended, Cursor, Durability, Erased, HistoryStore, LoadOptions, Loaded, Page, PrincipalPage,
    ReadOptions, RecordPage, Scope, SessionPage, StoreError,
};
use crate::{history::Record, session::SessionKey};

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Answer<'a, T> = Boxed<'a, Result<T, StoreError>>;

/// [`HistoryStore`] with boxed futures, for `Arc<dyn DynHistoryStore>`.
///
/// Every store implements it. Its methods carry other names, so that having both traits in scope is never
/// ambiguous. An `Arc<dyn DynHistoryStore>` is a [`HistoryStore`] again.
pub trait DynHistoryStore: Send + Sync {
    /// [`HistoryStore::load`].
    fn load_dyn<'a>(&'a self, key: &'a SessionKey, options: LoadOptions) -> Answer<'a, Loaded>;
    /// [`HistoryStore::read`].
    fn read_dyn<'a>(&'a self, key: &'a SessionKey, options: &'a ReadOptions) -> Answer<'a, RecordPage>;
    /// [`HistoryStore::append`].
    fn append_dyn<'a>(
        &'a self,
        key: &'a SessionKey,
        at: &'a Cursor,
        record: &'a Record,
    ) -> Answer<'a, Appended>;
    /// [`HistoryStore::delete`].
    fn delete_dyn<'a>(&'a self, key: &'a SessionKey) -> Answer<'a, ()>;
    /// [`HistoryStore::sessions`].
    fn sessions_dyn<'a>(&'a self, scope: &'a Scope, page: &'a Page) -> Answer<'a, SessionPage>;
    /// [`HistoryStore::principals`].
    fn principals_dyn<'a>(&'a self, namespace: &'a str, page: &'a Page) -> Answer<'a, PrincipalPage>;
    /// [`HistoryStore::delete_principal`].
    fn delete_principal_dyn<'a>(&'a self, scope: &'a Scope, page: &'a Page) -> Answer<'a, Erased>;
    /// [`HistoryStore::expire`].
    fn expire_dyn<'a>(&'a self, namespace: &'a str, age: Duration, page: &'a Page) -> Answer<'a, Erased>;
    /// [`HistoryStore::durability`].
    fn durability_dyn(&self) -> Answer<'_, Durability>;
    /// [`HistoryStore::name`].
    fn name_dyn(&self) -> &'static str;
    /// [`HistoryStore::close`].
    fn close_dyn(&self) -> Boxed<'_, ()>;
}

impl<S: HistoryStore> DynHistoryStore for S {
    fn load_dyn<'a>(&'a self, key: &'a SessionKey, options: LoadOptions) -> Answer<'a, Loaded> {
        Box::pin(self.load(key, options))
    }

    fn read_dyn<'a>(&'a self, key: &'a SessionKey, options: &'a ReadOptions) -> Answer<'a, RecordPage> {
        Box::pin(self.read(key, options))
    }

    fn append_dyn<'a>(
        &'a self,
        key: &'a SessionKey,
        at: &'a Cursor,
        record: &'a Record,
    ) -> Answer<'a, Appended> {
        Box::pin(self.append(key, at, record))
    }

    fn delete_dyn<'a>(&'a self, key: &'a SessionKey) -> Answer<'a, ()> {
        Box::pin(self.delete(key))
    }

    fn sessions_dyn<'a>(&'a self, scope: &'a Scope, page: &'a Page) -> Answer<'a, SessionPage> {
        Box::pin(self.sessions(scope, page))
    }

    fn principals_dyn<'a>(&'a self, namespace: &'a str, page: &'a Page) -> Answer<'a, PrincipalPage> {
        Box::pin(self.principals(namespace, page))
    }

    fn delete_principal_dyn<'a>(&'a self, scope: &'a Scope, page: &'a Page) -> Answer<'a, Erased> {
        Box::pin(self.delete_principal(scope, page))
    }

    fn expire_dyn<'a>(&'a self, namespace: &'a str, age: Duration, page: &'a Page) -> Answer<'a, Erased> {
        Box::pin(self.expire(namespace, age, page))
    }

    fn durability_dyn(&self) -> Answer<'_, Durability> {
        Box::pin(self.durability())
    }

    fn name_dyn(&self) -> &'static str {
        self.name()
    }

    fn close_dyn(&self) -> Boxed<'_, ()> {
        Box::pin(self.close())
    }
}

#[deny(clippy::missing_trait_methods)]
impl HistoryStore for dyn DynHistoryStore + '_ {
    async fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> Result<Loaded, StoreError> {
        self.load_dyn(key, options.into()).await
    }

    async fn read(&self, key: &SessionKey, options: &ReadOptions) -> Result<RecordPage, StoreError> {
        self.read_dyn(key, options).await
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, record: &Record) -> Result<Appended, StoreError> {
        self.append_dyn(key, at, record).await
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), StoreError> {
        self.delete_dyn(key).await
    }

    async fn sessions(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        self.sessions_dyn(scope, page).await
    }

    async fn principals(&self, namespace: &str, page: &Page) -> Result<PrincipalPage, StoreError> {
        self.principals_dyn(namespace, page).await
    }

    async fn delete_principal(&self, scope: &Scope, page: &Page) -> Result<Erased, StoreError> {
        self.delete_principal_dyn(scope, page).await
    }

    async fn expire(&self, namespace: &str, age: Duration, page: &Page) -> Result<Erased, StoreError> {
        self.expire_dyn(namespace, age, page).await
    }

    async fn durability(&self) -> Result<Durability, StoreError> {
        self.durability_dyn().await
    }

    fn name(&self) -> &'static str {
        self.name_dyn()
    }

    async fn close(&self) {
        self.close_dyn().await;
    }
}
