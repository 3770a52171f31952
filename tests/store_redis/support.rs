use std::time::SystemTime;

use bytes::Bytes;
use tower_session_memory::{
    history::{About, Message, Parent, Role, Turn, TurnId, TurnParts, TurnState},
    session::{Principal, SessionKey},
    store::{Appended, Cursor, HistoryStore, RedisStore},
};

use crate::servers::Redis;

pub(crate) fn key(id: &str) -> SessionKey {
    SessionKey::new("test", Principal::anonymous(), id.parse().unwrap())
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

/// Appends a turn at the end, and answers the cursor after it.
pub(crate) async fn say(store: &RedisStore, key: &SessionKey, text: &str) -> Cursor {
    let at = store.load(key, None).await.unwrap().cursor;
    match store.append(key, &at, &turn(key, text)).await.unwrap() {
        Appended::Appended(cursor) => cursor,
        other => panic!("{other:?}"),
    }
}

/// What was said in a session.
pub(crate) async fn texts(store: &RedisStore, id: &str) -> Vec<String> {
    let turns = store.load(&key(id), None).await.unwrap().turns;
    let first = |turn: &Turn| turn.messages().next().unwrap().raw().to_vec();
    turns.iter().map(|turn| String::from_utf8(first(turn)).unwrap()).collect()
}

/// The user that the documentation names.
const RIGHTS: &str = "~session-memory:* +eval +evalsha +get +getrange +strlen +append +setrange +set +pexpire \
    +pttl +time +zadd +zrem +zscore +zcount +zremrangebyscore +zremrangebyrank +zrevrangebyscore +hello \
    +select +ping";

/// Makes the user `memory` with the password `pass@word` and these rights besides.
pub(crate) fn allow(server: &Redis, more: &str) {
    let mut args = vec!["acl", "setuser", "memory", "on", ">pass@word"];
    args.extend(RIGHTS.split_whitespace().chain(more.split_whitespace()));
    assert_eq!(server.cli(&args), "OK");
}
