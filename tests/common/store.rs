//! A look into the proxy's store, through the library.

use std::{path::Path, sync::Arc};

use serde_json::Value;
use tower_session_memory::{
    history::{Parent, Place, Record, RecordId, TurnState},
    session::{Principal, SessionId, SessionKey},
    store::{
        Compressed, DynHistoryStore, Encrypted, HistoryStore, Page, PostgresStore, RedisStore, Scope,
        SqliteStore, encrypted::KeyRing,
    },
};

use super::{messages::texts, wait::LIMIT};

/// A store of any kind.
pub type AnyStore = Arc<dyn DynHistoryStore>;

/// The namespace that the proxy uses by default.
pub const NAMESPACE: &str = "default";

/// The principal of all callers under `principal = "none"`.
pub const SHARED: &str = "shared";

/// One stored turn.
#[derive(Debug, Clone)]
pub struct Stored {
    pub id: RecordId,
    pub parent: Parent,
    pub state: TurnState,
    pub sent: usize,
    pub instructions: Vec<Value>,
    pub messages: Vec<Value>,
    /// The messages as they are spliced.
    pub raw: String,
}

impl Stored {
    /// The place after all of its messages.
    pub fn end(&self) -> Parent {
        let items = u32::try_from(self.messages.len()).unwrap();
        Parent::At(Place { turn: self.id, items })
    }

    /// The text of each message.
    pub fn texts(&self) -> Vec<String> {
        texts(&self.messages)
    }

    pub fn is_complete(&self) -> bool {
        self.state == TurnState::Complete
    }
}

/// Opens a store file as another process would.
pub async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path).await.expect("the store opens")
}

/// Opens what `--store` names, as another process would; with keys, through the wrappers that encrypt and
/// compress.
pub async fn open_url(url: &str, keys: Option<&str>) -> AnyStore {
    match url.split_once(':').expect("a store has a scheme") {
        ("sqlite", path) => wrapped(open(path.as_ref()).await, keys),
        ("postgres", _) => {
            let store = PostgresStore::builder(url).with_timeout(LIMIT).with_connect_timeout(LIMIT);
            wrapped(store.open().await.unwrap(), keys)
        }
        ("memory", _) => panic!("no other process can look into memory"),
        _ => {
            let store = RedisStore::builder(url).with_timeouts(LIMIT, LIMIT).with_connect_timeout(LIMIT);
            wrapped(store.open().await.unwrap(), keys)
        }
    }
}

/// The store, with the wrappers around it if there are keys.
pub fn wrapped(store: impl HistoryStore + 'static, keys: Option<&str>) -> AnyStore {
    match keys {
        None => Arc::new(store),
        Some(keys) => Arc::new(Compressed::new(Encrypted::new(store, KeyRing::parse(keys).unwrap()))),
    }
}

/// The turns of an anonymous session, in commit order.
pub async fn load(store: &dyn DynHistoryStore, session: &str) -> Vec<Stored> {
    load_of(store, &everybody(NAMESPACE), session).await
}

/// The sessions of callers without a credential.
pub fn everybody(namespace: &str) -> Scope {
    Scope { namespace: namespace.to_owned(), principal: Principal::anonymous() }
}

/// The sessions that all callers share (`principal = "none"`).
pub fn shared(namespace: &str) -> Scope {
    Scope { namespace: namespace.to_owned(), principal: Principal::new(SHARED) }
}

/// The turns of a session, in commit order.
pub async fn load_of(store: &dyn DynHistoryStore, scope: &Scope, session: &str) -> Vec<Stored> {
    let id = session.parse::<SessionId>().unwrap();
    let key = SessionKey::new(scope.namespace.as_str(), scope.principal.clone(), id);
    let loaded = store.load_dyn(&key, None.into()).await.expect("the session loads");
    let turns = loaded.records.iter().filter_map(Record::turn).map(|turn| Stored {
        id: turn.id(),
        parent: turn.record().parent(),
        state: turn.state(),
        sent: turn.sent(),
        instructions: turn.instructions().map(|m| serde_json::from_slice(m.raw()).unwrap()).collect(),
        messages: turn.items().map(|m| serde_json::from_slice(m.raw()).unwrap()).collect(),
        raw: String::from_utf8(turn.item_bytes().to_vec()).unwrap(),
    });
    turns.collect()
}

/// The ids of all sessions, the newest first.
pub async fn sessions_of(store: &dyn DynHistoryStore, scope: &Scope) -> Vec<String> {
    let page = store.sessions_dyn(scope, &Page::new(1_000)).await;
    page.expect("the sessions are listed").sessions.iter().map(|s| s.id.as_str().to_owned()).collect()
}
