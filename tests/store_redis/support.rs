use tower_session_memory::store::HistoryStore;

pub(crate) use crate::turns::{key, say, turn};

/// What was said in a session.
pub(crate) async fn texts(store: &impl HistoryStore, id: &str) -> Vec<String> {
    crate::turns::texts(store, &key(id)).await
}
