//! A look into the proxy's store, through the library; as a rule it is a SQLite file.

use std::path::Path;

use serde_json::Value;
use tower_session_memory::{
    history::{Parent, TurnId, TurnState},
    session::{Principal, SessionId, SessionKey},
    store::{DynHistoryStore, HistoryStore, Page, Scope, SqliteStore},
};

/// The namespace that the proxy uses unless it is told another.
pub const NAMESPACE: &str = "default";

/// The principal of everybody when the proxy is told that there is only one.
pub const SHARED: &str = "shared";

/// One stored turn.
#[derive(Debug, Clone)]
pub struct Stored {
    pub id: TurnId,
    pub parent: Parent,
    pub state: TurnState,
    pub sent: usize,
    pub instructions: Vec<Value>,
    pub messages: Vec<Value>,
    /// The messages as they are spliced.
    pub raw: String,
}

impl Stored {
    /// The text of each message.
    pub fn texts(&self) -> Vec<String> {
        super::texts(&self.messages)
    }

    pub fn is_complete(&self) -> bool {
        self.state == TurnState::Complete
    }
}

/// Opens a store file as another process would.
pub async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path).await.expect("the store opens")
}

/// The turns of an anonymous session, in commit order. No file: none.
pub async fn stored(path: &Path, session: &str) -> Vec<Stored> {
    if !path.exists() {
        return Vec::new();
    }
    let store = open(path).await;
    let turns = load(&store, session).await;
    store.close().await;
    turns
}

/// The turns of an anonymous session, in commit order.
pub async fn load(store: &dyn DynHistoryStore, session: &str) -> Vec<Stored> {
    load_of(store, Principal::anonymous(), session).await
}

/// The turns of a session that all callers share (`principal = "none"`), in commit order.
pub async fn load_shared(store: &dyn DynHistoryStore, session: &str) -> Vec<Stored> {
    load_of(store, Principal::new(SHARED), session).await
}

async fn load_of(store: &dyn DynHistoryStore, principal: Principal, session: &str) -> Vec<Stored> {
    let key = SessionKey::new(NAMESPACE, principal, session.parse::<SessionId>().unwrap());
    let loaded = store.load_dyn(&key, None).await.expect("the session loads");
    let turns = loaded.turns.iter().map(|turn| Stored {
        id: turn.id(),
        parent: turn.parent(),
        state: turn.state(),
        sent: turn.sent(),
        instructions: turn.instructions().map(|m| serde_json::from_slice(m.raw()).unwrap()).collect(),
        messages: turn.messages().map(|m| serde_json::from_slice(m.raw()).unwrap()).collect(),
        raw: String::from_utf8(turn.message_bytes().to_vec()).unwrap(),
    });
    turns.collect()
}

/// The ids of all anonymous sessions. No file: none.
pub async fn sessions(path: &Path) -> Vec<String> {
    if !path.exists() {
        return Vec::new();
    }
    let scope = Scope { namespace: NAMESPACE.to_owned(), principal: Principal::anonymous() };
    let store = open(path).await;
    let page = store.sessions(&scope, &Page { limit: 1_000, after: None }).await;
    store.close().await;
    page.expect("the sessions are listed").sessions.iter().map(|s| s.id.as_str().to_owned()).collect()
}
