//! Wrappers hand on what they do not change.

use std::sync::Arc;

use super::HistoryStore;

/// Methods of [`HistoryStore`] that call another store's, for an `impl HistoryStore` block of a wrapper.
///
/// The way from the wrapper to that store comes first, then the methods that the wrapper leaves alone:
///
/// ```
/// use std::time::Duration;
/// use tower_session_memory::{
///     history::Record,
///     session::SessionKey,
///     store::{
///         Appended, Cursor, Durability, Erased, HistoryStore, LoadOptions, Loaded, Page, PrincipalPage,
///         ReadOptions, RecordPage, Scope, SessionPage, StoreError,
///     },
/// };
///
/// struct Logged<S>(S);
///
/// impl<S: HistoryStore> HistoryStore for Logged<S> {
///     async fn append(&self, key: &SessionKey, at: &Cursor, record: &Record) -> Result<Appended, StoreError> {
///         println!("{} bytes for {key:?}", record.bytes().len());
///         self.0.append(key, at, record).await
///     }
///
///     tower_session_memory::delegate_history_store!(
///         |this| this.0;
///         load, read, delete, sessions, principals, delete_principal, expire, durability, name, close
///     );
/// }
/// ```
#[macro_export]
macro_rules! delegate_history_store {
    (|$this:ident| $inner:expr; $($method:ident),+ $(,)?) => {
        $($crate::__delegate_history_store!($method, $this, $inner);)+
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __delegate_history_store {
    (load, $this:ident, $inner:expr) => {
        fn load(
            &self,
            key: &$crate::session::SessionKey,
            options: impl ::core::convert::Into<$crate::store::LoadOptions> + ::core::marker::Send,
        ) -> impl ::core::future::Future<
            Output = ::core::result::Result<$crate::store::Loaded, $crate::store::StoreError>,
        > + ::core::marker::Send {
            let $this = self;
            $crate::store::HistoryStore::load(&$inner, key, options)
        }
    };
    (read, $this:ident, $inner:expr) => {
        async fn read(
            &self,
            key: &$crate::session::SessionKey,
            options: &$crate::store::ReadOptions,
        ) -> ::core::result::Result<$crate::store::RecordPage, $crate::store::StoreError> {
            let $this = self;
            $crate::store::HistoryStore::read(&$inner, key, options).await
        }
    };
    (append, $this:ident, $inner:expr) => {
        async fn append(
            &self,
            key: &$crate::session::SessionKey,
            at: &$crate::store::Cursor,
            record: &$crate::history::Record,
        ) -> ::core::result::Result<$crate::store::Appended, $crate::store::StoreError> {
            let $this = self;
            $crate::store::HistoryStore::append(&$inner, key, at, record).await
        }
    };
    (delete, $this:ident, $inner:expr) => {
        async fn delete(
            &self,
            key: &$crate::session::SessionKey,
        ) -> ::core::result::Result<(), $crate::store::StoreError> {
            let $this = self;
            $crate::store::HistoryStore::delete(&$inner, key).await
        }
    };
    (sessions, $this:ident, $inner:expr) => {
        async fn sessions(
            &self,
            scope: &$crate::store::Scope,
            page: &$crate::store::Page,
        ) -> ::core::result::Result<$crate::store::SessionPage, $crate::store::StoreError> {
            let $this = self;
            $crate::store::HistoryStore::sessions(&$inner, scope, page).await
        }
    };
    (principals, $this:ident, $inner:expr) => {
        async fn principals(
            &self,
            namespace: &str,
            page: &$crate::store::Page,
        ) -> ::core::result::Result<$crate::store::PrincipalPage, $crate::store::StoreError> {
            let $this = self;
            $crate::store::HistoryStore::principals(&$inner, namespace, page).await
        }
    };
    (delete_principal, $this:ident, $inner:expr) => {
        async fn delete_principal(
            &self,
            scope: &$crate::store::Scope,
            page: &$crate::store::Page,
        ) -> ::core::result::Result<$crate::store::Erased, $crate::store::StoreError> {
            let $this = self;
            $crate::store::HistoryStore::delete_principal(&$inner, scope, page).await
        }
    };
    (expire, $this:ident, $inner:expr) => {
        async fn expire(
            &self,
            namespace: &str,
            age: ::std::time::Duration,
            page: &$crate::store::Page,
        ) -> ::core::result::Result<$crate::store::Erased, $crate::store::StoreError> {
            let $this = self;
            $crate::store::HistoryStore::expire(&$inner, namespace, age, page).await
        }
    };
    (durability, $this:ident, $inner:expr) => {
        async fn durability(
            &self,
        ) -> ::core::result::Result<$crate::store::Durability, $crate::store::StoreError> {
            let $this = self;
            $crate::store::HistoryStore::durability(&$inner).await
        }
    };
    (name, $this:ident, $inner:expr) => {
        fn name(&self) -> &'static str {
            let $this = self;
            $crate::store::HistoryStore::name(&$inner)
        }
    };
    (close, $this:ident, $inner:expr) => {
        async fn close(&self) {
            let $this = self;
            $crate::store::HistoryStore::close(&$inner).await;
        }
    };
}

#[deny(clippy::missing_trait_methods)]
impl<S: HistoryStore + ?Sized> HistoryStore for Arc<S> {
    crate::delegate_history_store!(
        |this| **this;
        load, read, append, delete, sessions, principals, delete_principal, expire, durability, name, close
    );
}
