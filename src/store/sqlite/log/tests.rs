#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::SystemTime;

use bytes::Bytes;
use rusqlite::StatementStatus;

use super::{super::schema, *};
use crate::{
    history::{About, Message, Role, TurnParts, TurnState},
    session::Principal,
};

fn turn(key: &SessionKey) -> Turn {
    let message = |role| Message::new(Bytes::from_static(b"{}"), About::new(role));
    let parts = TurnParts {
        id: TurnId::new(),
        parent: Parent::Previous,
        at: SystemTime::UNIX_EPOCH,
        instructions: Vec::new(),
        sent: vec![message(Role::User)],
        reply: message(Role::Assistant),
        state: TurnState::Complete,
        finish_reason: None,
        model: None,
        usage: None,
    };
    parts.into_turn(key)
}

/// SQLite prepares a statement anew, without a word, when it guesses that another plan fits what was bound.
#[test]
fn what_an_append_executes_is_prepared_once() {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(schema::SCHEMA).unwrap();
    let keys: Vec<SessionKey> = (0..8)
        .map(|number| {
            SessionKey::new("test", Principal::anonymous(), format!("session-{number}").parse().unwrap())
        })
        .collect();
    let (at, retention) = (Cursor::start_of(Epoch::UNBORN), Retention::default());
    for now in 0..50 {
        for key in &keys {
            append(&connection, key, &at, &turn(key), now, &retention).unwrap();
        }
    }
    for statement in [FIND, INSERT, TOUCH] {
        let statement = connection.prepare_cached(statement).unwrap();
        assert!(statement.get_status(StatementStatus::Run) >= 350, "an append executes it");
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "and never prepares it anew");
    }
}

#[test]
fn a_sweep_comes_after_the_expiry_and_not_long_after() {
    let (now, hour, day) = (1_763_800_000_000, 60 * 60 * 1000, 24 * 60 * 60 * 1000);
    for ttl in [1, 7, 1000, hour, day, 30 * day] {
        for now in [0, now, now + 1, now + hour - 1] {
            let (expires, sweep) = (now + ttl, sweep_at(now + ttl, now));
            assert!(sweep > expires, "what lives is not swept: {ttl}");
            assert!(sweep - expires <= (ttl / 64).clamp(1, hour), "{ttl}: {}", sweep - expires);
        }
    }
    assert_eq!(sweep_at(i64::MAX, 0), i64::MAX);
}
