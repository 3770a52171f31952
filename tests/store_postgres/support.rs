use std::time::SystemTime;

use bytes::Bytes;
use tower_session_memory::{
    history::{About, Message, Parent, Role, Turn, TurnId, TurnParts, TurnState},
    session::{Principal, SessionKey},
    store::{Appended, HistoryStore, PostgresStore},
};

pub(crate) fn key(id: &str) -> SessionKey {
    key_of("somebody", id)
}

pub(crate) fn key_of(principal: &str, id: &str) -> SessionKey {
    SessionKey::new("test", Principal::new(principal), id.parse().unwrap())
}

pub(crate) fn turn(key: &SessionKey, text: &str) -> Turn {
    let message = |role, text: String| Message::new(Bytes::from(text), About::new(role));
    let parts = TurnParts {
        id: TurnId::new(),
        parent: Parent::Previous,
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
pub(crate) async fn say(store: &PostgresStore, key: &SessionKey, text: &str) -> TurnId {
    let at = store.load(key, None).await.unwrap().cursor;
    let turn = turn(key, text);
    let answer = store.append(key, &at, &turn).await.unwrap();
    assert!(matches!(answer, Appended::Appended(_)), "{answer:?}");
    turn.id()
}

/// What was said in a session.
pub(crate) async fn texts(store: &PostgresStore, key: &SessionKey) -> Vec<String> {
    let turns = store.load(key, None).await.unwrap().turns;
    let first = |turn: &Turn| turn.messages().next().unwrap().raw().to_vec();
    turns.iter().map(|turn| String::from_utf8(first(turn)).unwrap()).collect()
}
