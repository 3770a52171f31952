use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use bytes::Bytes;
use tempfile::TempDir;
use tower_session_memory::{
    history::{About, Message, Parent, Role, Turn, TurnId, TurnParts, TurnState},
    session::{Principal, SessionKey},
    store::{Appended, HistoryStore, SqliteStore, sqlite::SqliteBuilder},
};

/// A place for a database of its own.
pub(crate) struct File {
    directory: TempDir,
}

impl File {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("sessions.db")
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn builder(&self) -> SqliteBuilder {
        SqliteStore::builder(self.path())
    }

    pub(crate) async fn open(&self) -> SqliteStore {
        self.builder().open().await.unwrap()
    }

    /// The same file, past the store.
    pub(crate) fn sqlite(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        connection
    }
}

pub(crate) fn key(id: &str) -> SessionKey {
    SessionKey::new("test", Principal::anonymous(), id.parse().unwrap())
}

pub(crate) fn turn(key: &SessionKey, text: &str) -> Turn {
    turn_from(key, text, Parent::Previous)
}

pub(crate) fn turn_from(key: &SessionKey, text: &str, parent: Parent) -> Turn {
    let message = |role, text: String| Message::new(Bytes::from(text), About::new(role));
    let parts = TurnParts {
        id: TurnId::new(),
        parent,
        at: SystemTime::now(),
        instructions: Vec::new(),
        sent: vec![message(Role::User, text.to_owned())],
        reply: message(Role::Assistant, r#"{"role":"assistant","content":"yes"}"#.to_owned()),
        state: TurnState::Complete,
        finish_reason: None,
        model: None,
        usage: None,
    };
    parts.into_turn(key)
}

/// Appends a turn at the end.
pub(crate) async fn say(store: &SqliteStore, key: &SessionKey, text: &str) -> TurnId {
    let at = store.load(key, None).await.unwrap().cursor;
    let turn = turn(key, text);
    let answer = store.append(key, &at, &turn).await.unwrap();
    assert!(matches!(answer, Appended::Appended(_)), "{answer:?}");
    turn.id()
}

/// What was said in a session.
pub(crate) async fn texts(store: &SqliteStore, id: &str) -> Vec<String> {
    let turns = store.load(&key(id), None).await.unwrap().turns;
    let first = |turn: &Turn| turn.messages().next().unwrap().raw().to_vec();
    turns.iter().map(|turn| String::from_utf8(first(turn)).unwrap()).collect()
}
