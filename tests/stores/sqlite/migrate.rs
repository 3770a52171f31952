//! Files that an earlier version of this program wrote.

use std::time::{Duration, SystemTime};

use tower_session_memory::store::{Appended, Cursor, Epoch, HistoryStore, Page, Scope};

use crate::sqlite::support::{File, key, say, texts, turn};

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

/// The first layout of version 2, and the last.
const SECOND: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE sessions (
        row INTEGER PRIMARY KEY, namespace TEXT NOT NULL, principal TEXT NOT NULL, id TEXT NOT NULL,
        epoch BLOB NOT NULL, fresh INTEGER NOT NULL, count INTEGER NOT NULL, trimmed INTEGER NOT NULL, newest BLOB,
        highest BLOB, touched INTEGER NOT NULL, slot INTEGER, created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL, expiry INTEGER NOT NULL, sweep_at INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX sessions_by_key ON sessions (namespace, principal, id);
    CREATE INDEX sessions_by_slot ON sessions (namespace, principal, slot) WHERE slot IS NOT NULL;
    CREATE INDEX sessions_by_sweep ON sessions (sweep_at);
    CREATE TABLE turns (
        place INTEGER PRIMARY KEY, session INTEGER NOT NULL, seq INTEGER NOT NULL, id BLOB NOT NULL, record BLOB
    ) STRICT;
    CREATE UNIQUE INDEX turns_by_seq ON turns (session, seq, id);
    PRAGMA application_id = 0x54534D31;
    PRAGMA user_version = 2;";
const CHAINED: &str = "
    DROP TABLE turns;
    CREATE TABLE turns (
        place INTEGER PRIMARY KEY, session INTEGER NOT NULL, seq INTEGER NOT NULL, previous INTEGER,
        id BLOB NOT NULL, highest BLOB, record BLOB
    ) STRICT;
    CREATE INDEX turns_by_sixteenth ON turns (session, seq) WHERE seq % 16 = 0;";

/// What a version begins its calls with: a load and an append, an expiry that is put off, a listing, the sweep.
const CALLS_OF_1: [&str; 4] = [
    "SELECT row, epoch, fresh, count, trimmed, newest, expires_at FROM sessions
     WHERE namespace = ?1 AND principal = ?2 AND id = ?3",
    "UPDATE sessions SET expires_at = max(expires_at, ?4)
     WHERE namespace = ?1 AND principal = ?2 AND id = ?3 AND expires_at > ?5 AND count > 0",
    "SELECT id, count - trimmed, updated_at, touched FROM sessions
     WHERE namespace = ?1 AND principal = ?2 AND count > 0 AND touched < ?3 AND expires_at > ?4
     ORDER BY touched DESC LIMIT ?5",
    "SELECT row FROM sessions WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2",
];
const CALLS_OF_2: [&str; 4] = [
    "SELECT row, epoch, fresh, count, trimmed, newest, highest, slot, touched, expiry, sweep_at FROM sessions
     WHERE namespace = ?1 AND principal = ?2 AND id = ?3",
    "UPDATE sessions SET expiry = max(expiry, ?4), sweep_at = max(sweep_at, ?5)
     WHERE namespace = ?1 AND principal = ?2 AND id = ?3 AND expiry > ?6 AND count > 0",
    "SELECT id, count - trimmed, updated_at, touched FROM sessions
     WHERE namespace = ?1 AND principal = ?2 AND slot <= ?3 AND touched < ?4 AND expiry > ?5
     ORDER BY slot DESC, touched DESC LIMIT ?6",
    "SELECT row FROM sessions WHERE sweep_at <= ?1 ORDER BY sweep_at LIMIT ?2",
];

/// A layout that an earlier version wrote.
struct Old {
    schema: &'static [&'static str],
    calls: [&'static str; 4],
    /// Session, number, id and record.
    turn: &'static str,
    /// Row, principal, id, epoch, whether it is no tombstone, count, the newest turn's id, and the times of its last
    /// change and its expiry.
    session: &'static str,
}

const OLD: [Old; 3] = [
    Old {
        schema: &[FIRST],
        calls: CALLS_OF_1,
        turn: "INSERT INTO turns VALUES (?1, ?2, ?3, ?4)",
        session: "INSERT INTO sessions VALUES (?1, 'test', ?2, ?3, ?4, ?5, ?6, 0, ?7, ?1, ?8, ?8, ?9)",
    },
    Old { schema: &[SECOND], calls: CALLS_OF_2, turn: TURN_OF_2, session: SESSION_OF_2 },
    Old { schema: &[SECOND, CHAINED], calls: CALLS_OF_2, turn: TURN_OF_2, session: SESSION_OF_2 },
];
const TURN_OF_2: &str = "INSERT INTO turns (session, seq, id, record) VALUES (?1, ?2, ?3, ?4)";
const SESSION_OF_2: &str = "
    INSERT INTO sessions
        SELECT ?1, 'test', ?2, ?3, ?4, ?5, ?6, 0, ?7, max(id), coalesce(max(place), 0), max(place) >> 14, ?8, ?8, ?9, ?9
        FROM turns WHERE session = ?1";

impl Old {
    fn file(&self) -> (File, rusqlite::Connection) {
        let file = File::new();
        let sqlite = file.sqlite();
        self.schema.iter().for_each(|part| sqlite.execute_batch(part).unwrap());
        (file, sqlite)
    }
}

#[tokio::test]
async fn a_program_of_an_older_version_that_has_the_file_open_fails_and_does_not_half_work() {
    for version in &OLD {
        let (file, old) = version.file();
        let mut its_calls = version.calls.map(|call| old.prepare(call).unwrap());
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
async fn a_file_of_an_older_version_is_brought_up_to_date_with_all_that_it_holds() {
    for version in &OLD {
        let (file, sqlite) = version.file();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64;
        let expires = now + 60 * 60 * 1000;
        let epoch = [7; 16];
        // Turn by turn, as two sessions took them; `b` spoke last. `gone` was deleted. One came late.
        let ids = ["a", "b", "gone"];
        let late = turn(&key("a"), "late");
        let mut said = Vec::new();
        for (text, session) in [("one", 1), ("other", 2), ("two", 1), ("late", 1), ("another", 2)] {
            let turn =
                if text == "late" { late.clone() } else { turn(&key(ids[session as usize - 1]), text) };
            let seq = 1 + said.iter().filter(|(_, other)| *other == session).count() as i64;
            let record = &turn.bytes()[..];
            sqlite.execute(version.turn, (session, seq, turn.id().as_bytes(), record)).unwrap();
            said.push((turn, session));
        }
        for (row, id) in (1..).zip(ids) {
            let newest = said.iter().rev().find(|(_, session)| *session == row).map(|(turn, _)| turn.id());
            let count = said.iter().filter(|(_, session)| *session == row).count() as i64;
            let newest = newest.map(|id| *id.as_bytes());
            let principal = key(id).principal().as_str().to_owned();
            sqlite
                .execute(version.session, (row, principal, id, epoch, count > 0, count, newest, now, expires))
                .unwrap();
        }

        let store = file.open().await;
        assert_eq!(texts(&store, "a").await, ["one", "two", "late"]);
        assert_eq!(texts(&store, "b").await, ["other", "another"]);
        let chained = "turns JOIN turns AS before ON before.place = turns.previous
                       WHERE before.session = turns.session AND before.seq = turns.seq - 1";
        let numbers = |what: &str| {
            let query = format!("SELECT count(*) FROM {what}");
            sqlite.query_row(&query, [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(numbers(chained), 3, "all but the first of each are chained");
        assert_eq!(numbers("turns WHERE highest IS NOT NULL"), 1, "one has not the highest id up to it");
        let at = store.load(&key("a"), None).await.unwrap().cursor;
        assert_eq!((at.epoch, at.count), (Epoch::from_bytes(epoch), 3), "cursors of before are still good");
        for (turn, _) in said.iter().filter(|(_, session)| *session == 1) {
            let again = store.append(&key("a"), &at, turn).await.unwrap();
            assert_eq!(again, Appended::AlreadyThere(at), "and so is what was sent before");
        }
        let in_flight = store
            .append(&key("gone"), &Cursor::start_of(Epoch::UNBORN), &turn(&key("gone"), "late"))
            .await
            .unwrap();
        assert_eq!(in_flight, Appended::Gone, "deleted stays deleted");

        assert_eq!(listed(&store).await, ["b", "a"]);
        say(&store, &key("a"), "three").await;
        assert_eq!(texts(&store, "a").await, ["one", "two", "late", "three"]);
        assert_eq!(listed(&store).await, ["a", "b"]);
        store.delete(&key("b")).await.unwrap();
        assert_eq!(numbers("turns"), 4, "what was chained is found and removed");
        store.close().await;
        assert_eq!(texts(&file.open().await, "a").await.len(), 4, "and it opens again");
    }
}

async fn listed(store: &impl HistoryStore) -> Vec<String> {
    let scope = Scope { namespace: "test".to_owned(), principal: key("a").principal().clone() };
    let page = store.sessions(&scope, &Page { limit: 10, after: None }).await.unwrap();
    page.sessions.iter().map(|session| session.id.as_str().to_owned()).collect()
}
