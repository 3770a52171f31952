use std::{future::Future, pin::Pin};

use super::{Appended, Cursor, Durability, HistoryStore, Loaded, Page, Scope, SessionPage, StoreError};
use crate::{history::Record, session::SessionKey};

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// [`HistoryStore`] with boxed futures, for `Arc<dyn DynHistoryStore>`.
///
/// Every store implements it. Its methods carry other names, so that having both traits in scope is never
/// ambiguous.
pub trait DynHistoryStore: Send + Sync + 'static {
    /// [`HistoryStore::load`].
    fn load_dyn<'a>(&'a self, key: &'a SessionKey, after: Option<&'a Cursor>) -> Boxed<'a, Loaded>;
    /// [`HistoryStore::append`].
    fn append_dyn<'a>(&'a self, key: &'a SessionKey, at: &'a Cursor, turn: &'a Record)
    -> Boxed<'a, Appended>;
    /// [`HistoryStore::delete`].
    fn delete_dyn<'a>(&'a self, key: &'a SessionKey) -> Boxed<'a, ()>;
    /// [`HistoryStore::sessions`].
    fn sessions_dyn<'a>(&'a self, scope: &'a Scope, page: &'a Page) -> Boxed<'a, SessionPage>;
    /// [`HistoryStore::durability`].
    fn durability_dyn(&self) -> Boxed<'_, Durability>;
    /// [`HistoryStore::name`].
    fn name_dyn(&self) -> &'static str;
}

impl<S: HistoryStore> DynHistoryStore for S {
    fn load_dyn<'a>(&'a self, key: &'a SessionKey, after: Option<&'a Cursor>) -> Boxed<'a, Loaded> {
        Box::pin(self.load(key, after))
    }

    fn append_dyn<'a>(
        &'a self,
        key: &'a SessionKey,
        at: &'a Cursor,
        turn: &'a Record,
    ) -> Boxed<'a, Appended> {
        Box::pin(self.append(key, at, turn))
    }

    fn delete_dyn<'a>(&'a self, key: &'a SessionKey) -> Boxed<'a, ()> {
        Box::pin(self.delete(key))
    }

    fn sessions_dyn<'a>(&'a self, scope: &'a Scope, page: &'a Page) -> Boxed<'a, SessionPage> {
        Box::pin(self.sessions(scope, page))
    }

    fn durability_dyn(&self) -> Boxed<'_, Durability> {
        Box::pin(self.durability())
    }

    fn name_dyn(&self) -> &'static str {
        self.name()
    }
}
