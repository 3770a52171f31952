//! Files that an earlier version of this program wrote.

use std::time::{Duration, SystemTime};

use tower_session_memory::store::{Appended, Cursor, Epoch, HistoryStore, Page, Scope};

use crate::support::{File, key, say, texts, turn};

/// The schema of version 1.
const FIRST: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE sessions (
        row INTEGER PRIMARY KEY, namespace TEXT NOT NULL, principal TEXT NOT NULL, id TEXT NOT NULL,
        epoch BLOB NOT NULL, fresh INTEGER NOT NULL, count INTEGER NOT NULL, trimmed INTEGER NOT NULL, newest BLOB,
        touched INTEGER NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX sessions_by_key ON sessions (namespace, principal, id);
    CREATE INDEX sessions_by_touch ON sessions (namespace, principal, touched) WHERE count > 0;
    CREATE INDEX sessions_by_expiry ON sessions (expires_at);
    CREATE TABLE turns (
        session INTEGER NOT NULL, seq INTEGER NOT NULL, id BLOB NOT NULL, record BLOB
    ) STRICT;
    CREATE UNIQUE INDEX turns_by_seq ON turns (session, seq);
    CREATE UNIQUE INDEX turns_by_id ON turns (session, id);
    PRAGMA application_id = 0x54534D31;
    PRAGMA user_version = 1;";

/// What version 1 begins its calls with: a load and an append, an expiry that is put off, a listing, the sweep.
const ITS_CALLS: [&str; 4] = [
    "SELECT row, epoch, fresh, count, trimmed, newest, expires_at FROM sessions
     WHERE namespace = ?1 AND principal = ?2 AND id = ?3",
    "UPDATE sessions SET expires_at = max(expires_at, ?4)
     WHERE namespace = ?1 AND principal = ?2 AND id = ?3 AND expires_at > ?5 AND count > 0",
    "SELECT id, count - trimmed, updated_at, touched FROM sessions
     WHERE namespace = ?1 AND principal = ?2 AND count > 0 AND touched < ?3 AND expires_at > ?4
     ORDER BY touched DESC LIMIT ?5",
    "SELECT row FROM sessions WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2",
];

#[tokio::test]
async fn a_program_of_the_first_version_that_has_the_file_open_fails_and_does_not_half_work() {
    let file = File::new();
    let old = file.sqlite();
    old.execute_batch(FIRST).unwrap();
    let mut its_calls = ITS_CALLS.map(|call| old.prepare(call).unwrap());
    for call in &mut its_calls {
        (1..=call.parameter_count()).for_each(|number| call.raw_bind_parameter(number, 1).unwrap());
    }
    let mut run = || its_calls.each_mut().map(|call| call.raw_query().next().is_ok());
    assert_eq!(run(), [true; 4]);
    let store = file.open().await;
    say(&store, &key("a"), "one").await;
    assert_eq!(run(), [false; 4], "it goes on with a file that it does not know");
    assert_eq!(texts(&store, "a").await, ["one"]);
}

#[tokio::test]
async fn a_program_that_comes_while_another_brings_the_file_up_to_date_waits_for_it() {
    let file = File::new();
    let other = file.sqlite();
    other.execute_batch(FIRST).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut opening = std::pin::pin!(file.builder().with_busy_timeout(Duration::from_millis(50)).open());
    let opened = tokio::time::timeout(Duration::from_secs(1), opening.as_mut()).await;
    assert!(opened.is_err(), "it waits no longer than for any other lock");
    other.execute_batch("COMMIT").unwrap();
    let store = opening.await.unwrap();
    say(&store, &key("a"), "one").await;
    assert_eq!(texts(&store, "a").await, ["one"]);
}

#[tokio::test]
async fn a_file_of_the_first_version_is_brought_up_to_date_with_all_that_it_holds() {
    let file = File::new();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64;
    let expires = now + 60 * 60 * 1000;
    let epoch = [7; 16];
    let sqlite = file.sqlite();
    sqlite.execute_batch(FIRST).unwrap();
    // Turn by turn, as two sessions took them; `b` spoke last. `gone` was deleted.
    let ids = ["a", "b", "gone"];
    let mut said = Vec::new();
    for (text, session) in [("one", 1), ("other", 2), ("two", 1), ("another", 2)] {
        let turn = turn(&key(ids[session as usize - 1]), text);
        let seq = 1 + said.iter().filter(|(_, other)| *other == session).count() as i64;
        sqlite
            .execute(
                "INSERT INTO turns VALUES (?1, ?2, ?3, ?4)",
                (session, seq, turn.id().as_bytes(), &turn.record()[..]),
            )
            .unwrap();
        said.push((turn, session));
    }
    for (row, id) in (1..).zip(ids) {
        let newest = said.iter().rev().find(|(_, session)| *session == row).map(|(turn, _)| turn.id());
        let count = if newest.is_some() { 2 } else { 0 };
        sqlite
            .execute(
                "INSERT INTO sessions VALUES (?1, 'test', ?2, ?3, ?4, ?5, ?6, 0, ?7, ?1, ?8, ?8, ?9)",
                (
                    row,
                    key(id).principal().as_str(),
                    id,
                    epoch,
                    count > 0,
                    count,
                    newest.map(|id| *id.as_bytes()),
                    now,
                    expires,
                ),
            )
            .unwrap();
    }
    drop(sqlite);

    let store = file.open().await;
    assert_eq!(texts(&store, "a").await, ["one", "two"]);
    assert_eq!(texts(&store, "b").await, ["other", "another"]);
    let at = store.load(&key("a"), None).await.unwrap().cursor;
    assert_eq!((at.epoch, at.count), (Epoch::from_bytes(epoch), 2), "cursors of before are still good");
    let again = store.append(&key("a"), &at, &said[0].0).await.unwrap();
    assert_eq!(again, Appended::AlreadyThere(at), "and so is what was sent before");
    let in_flight = store
        .append(&key("gone"), &Cursor::start_of(Epoch::UNBORN), &turn(&key("gone"), "late"))
        .await
        .unwrap();
    assert_eq!(in_flight, Appended::Gone, "deleted stays deleted");

    assert_eq!(listed(&store).await, ["b", "a"]);
    say(&store, &key("a"), "three").await;
    assert_eq!(texts(&store, "a").await, ["one", "two", "three"]);
    assert_eq!(listed(&store).await, ["a", "b"]);
    store.close().await;
    assert_eq!(texts(&file.open().await, "a").await.len(), 3, "and it opens again");
}

async fn listed(store: &impl HistoryStore) -> Vec<String> {
    let scope = Scope { namespace: "test".to_owned(), principal: key("a").principal().clone() };
    let page = store.sessions(&scope, &Page { limit: 10, after: None }).await.unwrap();
    page.sessions.iter().map(|session| session.id.as_str().to_owned()).collect()
}
