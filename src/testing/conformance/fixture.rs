//! What the checks have in common: a store, and sessions and turns to fill it with.

use std::sync::Arc;

use bytes::Bytes;

use super::Harness;
use crate::{
    history::{About, Author, Format, Item, Parent, Place, Record, RecordId, TurnParts},
    session::{Principal, SessionId, SessionKey},
    store::{Appended, Cursor, HistoryStore, Loaded, Retention, Scope},
};

/// A store, and a namespace that no other check uses.
pub(super) struct Fixture<S> {
    pub(super) store: Arc<S>,
    pub(super) namespace: String,
}

impl<S: HistoryStore + 'static> Fixture<S> {
    pub(super) async fn new<H: Harness<Store = S>>(harness: &H) -> Self {
        Self::with(harness, Retention::new()).await
    }

    pub(super) async fn with<H: Harness<Store = S>>(harness: &H, retention: Retention) -> Self {
        let store = Arc::new(harness.store(&retention.into()).await);
        Self { store, namespace: format!("conformance-{}", RecordId::new()) }
    }

    pub(super) fn key(&self, id: &str) -> SessionKey {
        self.key_of("somebody", id)
    }

    pub(super) fn key_of(&self, principal: &str, id: &str) -> SessionKey {
        let id: SessionId = id.parse().expect("the checks use valid ids");
        SessionKey::new(self.namespace.as_str(), Principal::new(principal), id)
    }

    pub(super) fn scope(&self, principal: &str) -> Scope {
        Scope { namespace: self.namespace.clone(), principal: Principal::new(principal) }
    }

    pub(super) async fn load(&self, key: &SessionKey) -> Loaded {
        self.load_after(key, None).await
    }

    pub(super) async fn load_after(&self, key: &SessionKey, after: Option<&Cursor>) -> Loaded {
        self.store.load(key, after).await.expect("a load succeeds")
    }

    pub(super) async fn append(&self, key: &SessionKey, at: &Cursor, turn: &Record) -> Appended {
        let answer = self.store.append(key, at, turn).await.expect("an append succeeds");
        if let Appended::Appended { cursor, before } = answer
            && cursor.count == 1
        {
            assert_eq!(before, None, "nothing is before the first turn");
        }
        answer
    }

    pub(super) async fn delete(&self, key: &SessionKey) {
        self.store.delete(key).await.expect("a deletion succeeds");
    }

    /// Appends turns that say this, one after the other, and returns them and the cursor after the last.
    pub(super) async fn say(&self, key: &SessionKey, texts: &[&str]) -> (Vec<Record>, Cursor) {
        let mut cursor = self.load(key).await.cursor;
        let mut turns = Vec::new();
        for text in texts {
            let turn = turn(key, text);
            cursor = appended(self.append(key, &cursor, &turn).await);
            turns.push(turn);
        }
        (turns, cursor)
    }
}

/// The cursor after a turn that was added.
#[track_caller]
pub(super) fn appended(answer: Appended) -> Cursor {
    match answer {
        Appended::Appended { cursor, .. } => cursor,
        other => panic!("the turn was to be added, and the store answered {other:?}"),
    }
}

/// A turn that continues the newest.
pub(super) fn turn(key: &SessionKey, text: &str) -> Record {
    turn_from(key, text, Parent::Previous)
}

pub(super) fn turn_from(key: &SessionKey, text: &str, parent: Parent) -> Record {
    let sent = format!(r#"{{"role":"user","content":"{text}"}}"#);
    let reply = format!(r#"{{"role":"assistant","content":"re: {text}"}}"#);
    turn_of(key, Vec::new(), Bytes::from(sent), Bytes::from(reply), parent)
}

pub(super) fn turn_of(
    key: &SessionKey,
    instructions: Vec<Item>,
    sent: Bytes,
    reply: Bytes,
    parent: Parent,
) -> Record {
    let sent = vec![Item::new(sent, About::new(Author::User))];
    let reply = vec![Item::new(reply, About::new(Author::Model))];
    let mut parts = TurnParts::new(Format::from_static("openai.chat"), sent, reply);
    parts.parent = parent;
    parts.instructions = instructions;
    parts.finish_reason = Some("stop".to_owned());
    parts.model = Some("a-model".to_owned());
    parts.into_record(key)
}

/// A turn that begins with the result of a tool call, and so belongs to the turn before it.
pub(super) fn continuing(key: &SessionKey, text: &str) -> Record {
    let result = format!(r#"{{"role":"tool","tool_call_id":"c","content":"{text}"}}"#);
    turn_with(key, result, About::new(Author::Tool).with_answers(["c"]), Some("a-model"))
}

/// A turn whose reply names this model.
pub(super) fn turn_of_model(key: &SessionKey, model: Option<&str>) -> Record {
    let sent = r#"{"role":"user","content":"hi"}"#.to_owned();
    turn_with(key, sent, About::new(Author::User), model)
}

fn turn_with(key: &SessionKey, sent: String, about: About, model: Option<&str>) -> Record {
    let reply = Bytes::from_static(br#"{"role":"assistant","content":"well"}"#);
    let sent = vec![Item::new(Bytes::from(sent), about)];
    let reply = vec![Item::new(reply, About::new(Author::Model))];
    let mut parts = TurnParts::new(Format::from_static("openai.chat"), sent, reply);
    parts.model = model.map(str::to_owned);
    parts.into_record(key)
}

/// The place after all of this turn's items.
pub(super) fn after(turn: &Record) -> Parent {
    Parent::At(Place { turn: turn.id(), items: 2 })
}

/// The ids, in order.
pub(super) fn ids(turns: &[Record]) -> Vec<RecordId> {
    turns.iter().map(Record::id).collect()
}

/// Fails unless these are the same turns in the same order, byte for byte.
#[track_caller]
pub(super) fn assert_same(found: &[Record], expected: &[Record], why: &str) {
    assert_eq!(ids(found), ids(expected), "{why}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.bytes() == expected.bytes(), "a record came back with other bytes: {why}");
    }
}
