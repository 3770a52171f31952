use tower_session_memory::session::SessionKey;

pub(crate) use crate::turns::{key_of, say, texts, turn};

/// A session of a principal whose name no log may show.
pub(crate) fn key(id: &str) -> SessionKey {
    key_of("somebody", id)
}
