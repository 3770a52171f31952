//! Sessions and turns for the tests of stores.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(unreachable_pub, missing_docs, reason = "a test binary exports nothing")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use bytes::Bytes;
use tower_session_memory::{
    history::{About, Author, Format, Item, Parent, Record, TurnParts},
    session::{Principal, SessionKey},
    store::{Appended, Cursor, HistoryStore},
};

/// A session of the anonymous principal.
pub fn key(id: &str) -> SessionKey {
    SessionKey::new("test", Principal::anonymous(), id.parse().unwrap())
}

pub fn key_of(principal: &str, id: &str) -> SessionKey {
    SessionKey::new("test", Principal::new(principal), id.parse().unwrap())
}

/// A turn whose client's message is this text, which stores do not look into: it need not be JSON.
pub fn turn(key: &SessionKey, text: &str) -> Record {
    turn_from(key, text, Parent::Previous)
}

pub fn turn_from(key: &SessionKey, text: &str, parent: Parent) -> Record {
    parts(text, parent).into_record(key)
}

/// Parts of such a turn, for tests that change some of them.
pub fn parts(text: &str, parent: Parent) -> TurnParts {
    let sent = vec![message(Author::User, text)];
    let reply = vec![message(Author::Model, r#"{"role":"assistant","content":"yes"}"#)];
    let mut parts = TurnParts::new(FORMAT, sent, reply);
    parts.parent = parent;
    parts
}

/// The format of turns that no test looks into.
pub const FORMAT: Format = Format::from_static("openai.chat");

/// The place after all of this turn's items.
pub fn after(turn: &Record) -> Parent {
    Parent::At(turn.turn().unwrap().place())
}

pub fn message(role: Author, text: &str) -> Item {
    Item::new(Bytes::from(text.to_owned()), About::new(role))
}

/// Appends this turn at the end, and answers the cursor after it.
pub async fn add(store: &impl HistoryStore, key: &SessionKey, turn: &Record) -> Cursor {
    let at = store.load(key, None).await.unwrap().cursor;
    add_at(store, key, &at, turn).await
}

/// Appends this turn to a log whose cursor is this, and answers the cursor after it.
pub async fn add_at(store: &impl HistoryStore, key: &SessionKey, at: &Cursor, turn: &Record) -> Cursor {
    match store.append(key, at, turn).await.unwrap() {
        Appended::Appended { cursor, .. } => cursor,
        // On a busy machine a store sends again what got no answer in time, and finds that it was done.
        Appended::AlreadyThere(cursor) if cursor.newest == Some(turn.id()) => cursor,
        other => panic!("{other:?}"),
    }
}

/// Appends a turn at the end, and answers the cursor after it.
pub async fn say(store: &impl HistoryStore, key: &SessionKey, text: &str) -> Cursor {
    add(store, key, &turn(key, text)).await
}

/// What was said in a session.
pub async fn texts(store: &impl HistoryStore, key: &SessionKey) -> Vec<String> {
    let turns = store.load(key, None).await.unwrap().records;
    let first = |turn: &Record| turn.turn().unwrap().items().next().unwrap().raw().to_vec();
    turns.iter().map(|turn| String::from_utf8(first(turn)).unwrap()).collect()
}

/// The records as they are stored.
pub fn records(turns: &[Record]) -> Vec<Bytes> {
    turns.iter().map(|turn| turn.bytes().clone()).collect()
}
