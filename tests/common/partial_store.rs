//! What a store of the tests need not do.

/// The methods of a store that is loaded, appended to, deleted from and listed, and asked for nothing else.
macro_rules! nothing_but_sessions {
    () => {
        async fn read(
            &self,
            _: &tower_session_memory::session::SessionKey,
            _: &tower_session_memory::store::ReadOptions,
        ) -> Result<tower_session_memory::store::RecordPage, tower_session_memory::store::StoreError> {
            let kind = tower_session_memory::store::StoreErrorKind::Other;
            Err(tower_session_memory::store::StoreError::new(kind))
        }

        async fn principals(
            &self,
            _: &str,
            _: &tower_session_memory::store::Page,
        ) -> Result<tower_session_memory::store::PrincipalPage, tower_session_memory::store::StoreError> {
            Ok(tower_session_memory::store::PrincipalPage::default())
        }

        async fn delete_principal(
            &self,
            _: &tower_session_memory::store::Scope,
            _: &tower_session_memory::store::Page,
        ) -> Result<tower_session_memory::store::Erased, tower_session_memory::store::StoreError> {
            Ok(tower_session_memory::store::Erased::default())
        }

        async fn expire(
            &self,
            _: &str,
            _: std::time::Duration,
            _: &tower_session_memory::store::Page,
        ) -> Result<tower_session_memory::store::Erased, tower_session_memory::store::StoreError> {
            Ok(tower_session_memory::store::Erased::default())
        }

        async fn close(&self) {}
    };
}
pub(crate) use nothing_but_sessions;
