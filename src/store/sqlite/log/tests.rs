#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use rusqlite::StatementStatus;

use super::{
    super::{reader, schema},
    *,
};
use crate::{
    history::{About, Author, Format, Item, TurnParts},
    session::Principal,
    store::Epoch,
};

fn turn(key: &SessionKey) -> Record {
    turn_of(key, RecordId::new())
}

fn turn_of(key: &SessionKey, id: RecordId) -> Record {
    let item = |author| vec![Item::new(Bytes::from_static(b"{}"), About::new(author))];
    let format = Format::from_static("test.toy");
    TurnParts { id, ..TurnParts::new(format, item(Author::User), item(Author::Model)) }.into_record(key)
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
    for statement in [session_row::FIND, chain::INSERT, TOUCH] {
        let statement = connection.prepare_cached(statement).unwrap();
        assert!(statement.get_status(StatementStatus::Run) >= 350, "an append executes it");
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "and never prepares it anew");
    }
}

fn connection() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(schema::SCHEMA).unwrap();
    connection
}

fn keyed(id: &str) -> SessionKey {
    SessionKey::new("test", Principal::anonymous(), id.parse().unwrap())
}

/// Adds this number of turns at this time.
fn add(
    connection: &Connection,
    key: &SessionKey,
    turns: usize,
    now: i64,
    retention: &Retention,
) -> Vec<Record> {
    let at = Cursor::start_of(Epoch::UNBORN);
    let added = (0..turns).map(|_| turn(key));
    added
        .inspect(|turn| {
            let answer = append(connection, key, &at, turn, now, retention).unwrap();
            assert!(matches!(answer, Appended::Appended { .. }), "{answer:?}");
        })
        .collect()
}

fn numbers(connection: &Connection, what: &str) -> i64 {
    connection.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap()
}

/// How often the chain was followed by a step.
fn steps(connection: &Connection) -> i32 {
    connection.prepare_cached(chain::STEP).unwrap().get_status(StatementStatus::Run)
}

/// A page for each session that speaks, as the leaves of an index of all turns would be, is what an append cost most.
#[test]
fn turns_of_many_long_sessions_share_the_pages_that_they_are_written_to() {
    let directory = tempfile::tempdir().unwrap();
    let connection = Connection::open(directory.path().join("sessions.db")).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.execute_batch(schema::SCHEMA).unwrap();
    let retention = Retention::default();
    let keys: Vec<SessionKey> = (0..64).map(|number| keyed(&format!("session-{number}"))).collect();
    connection.execute_batch("BEGIN").unwrap();
    for _ in 0..20 {
        keys.iter().for_each(|key| drop(add(&connection, key, 10, 0, &retention)));
    }
    connection.execute_batch("COMMIT").unwrap();
    let pages = |mode: &str| {
        connection
            .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get::<_, i64>(1))
            .unwrap()
    };
    pages("TRUNCATE");
    connection.execute_batch("BEGIN").unwrap();
    keys.iter().for_each(|key| drop(add(&connection, key, 1, 0, &retention)));
    connection.execute_batch("COMMIT").unwrap();
    assert!(pages("NOOP") < 24, "64 turns were written to {} pages", pages("NOOP"));
}

#[test]
fn a_turn_that_comes_late_is_told_from_a_retry_by_a_look_at_the_newest() {
    let (connection, key, retention) = (connection(), keyed("a"), Retention::default());
    let said = add(&connection, &key, 500, 0, &retention);
    let late = turn(&key);
    let since = add(&connection, &key, 5, 0, &retention);
    let session = find(&connection, &key).unwrap().unwrap();
    let before = steps(&connection);
    assert_eq!(chain::number_of(&connection, &session, late.id()).unwrap(), None);
    assert_eq!(steps(&connection) - before, 6, "of 505");
    append(&connection, &key, &session.head.cursor(), &late, 0, &retention).unwrap();
    // Now ids do not grow along the chain.
    let session = find(&connection, &key).unwrap().unwrap();
    for (number, turn) in (1..).zip(said.iter().chain(&since)) {
        assert_eq!(chain::number_of(&connection, &session, turn.id()).unwrap(), Some(number));
    }
    assert_eq!(chain::number_of(&connection, &session, late.id()).unwrap(), Some(506));
}

/// How often the table was looked into for a turn's number.
fn looks(connection: &Connection) -> i32 {
    let probes = connection.prepare_cached(chain::PROBE).unwrap().get_status(StatementStatus::Run);
    steps(connection) + probes
}

#[test]
fn a_turn_is_found_by_its_id_in_a_few_steps_however_far_it_is() {
    let (connection, key, retention) = (connection(), keyed("a"), Retention::default());
    let mut said = add(&connection, &key, 1500, 0, &retention);
    let unknown = RecordId::new();
    said.extend(add(&connection, &key, 2500, 0, &retention));
    let session = find(&connection, &key).unwrap().unwrap();
    for (number, turn) in (1..).zip(&said) {
        let before = looks(&connection);
        assert_eq!(chain::number_of(&connection, &session, turn.id()).unwrap(), Some(number));
        let looks = looks(&connection) - before;
        assert!(looks <= 16 + 2 * 8, "{looks} looks for {number} of 4000");
    }
    let before = looks(&connection);
    assert_eq!(chain::number_of(&connection, &session, unknown).unwrap(), None);
    let looks = looks(&connection) - before;
    assert!(looks <= 17 + 2 * 8, "{looks} looks for what was never there");
}

#[test]
fn one_id_from_a_clock_that_was_ahead_makes_no_later_append_slow() {
    let (connection, key, retention) = (connection(), keyed("a"), Retention::default());
    let mut said = add(&connection, &key, 100, 0, &retention);
    let mut ahead = *RecordId::new().as_bytes();
    ahead[0] += 1;
    let ahead = turn_of(&key, RecordId::from_bytes(ahead));
    append(&connection, &key, &Cursor::start_of(Epoch::UNBORN), &ahead, 0, &retention).unwrap();
    said.push(ahead);
    for _ in 0..2000 {
        let before = looks(&connection);
        said.extend(add(&connection, &key, 1, 0, &retention));
        let looks = looks(&connection) - before;
        assert!(looks <= 17 + 2 * 7, "{looks} looks for an append to {}", said.len());
    }
    let session = find(&connection, &key).unwrap().unwrap();
    for (number, turn) in (1..).zip(&said) {
        assert_eq!(chain::number_of(&connection, &session, turn.id()).unwrap(), Some(number));
    }
}

#[test]
fn trimming_takes_a_few_steps_however_many_turns_are_kept() {
    let (connection, key) = (connection(), keyed("a"));
    let (kept, more) = (400, 2000);
    let retention = Retention { max_turns: std::num::NonZeroUsize::new(kept), ..Retention::default() };
    add(&connection, &key, kept, 0, &retention);
    let before = steps(&connection);
    add(&connection, &key, more, 0, &retention);
    let a_turn = f64::from(steps(&connection) - before) / more as f64;
    assert!(a_turn < 20.0, "{a_turn} steps a turn");
    let session = find(&connection, &key).unwrap().unwrap();
    assert_eq!(session.head.trimmed, more as u64);
    assert_eq!(numbers(&connection, "turns WHERE record IS NOT NULL"), kept as i64);
    assert_eq!(numbers(&connection, "turns"), (kept + Retention::REMEMBERED) as i64);
    let records = chain::records(&connection, &session, more as u64, usize::MAX).unwrap();
    assert_eq!(records.records.len(), kept);
    delete(&connection, &key, 0, &retention).unwrap();
    assert_eq!(numbers(&connection, "turns"), 0);
}

#[test]
fn a_deletion_removes_what_a_broken_chain_does_not_lead_to() {
    for damage in ["DELETE FROM turns WHERE seq = 10", "UPDATE turns SET previous = NULL WHERE seq = 20"] {
        let (connection, retention) = (connection(), Retention::default());
        let (damaged, other) = (keyed("a"), keyed("b"));
        add(&connection, &damaged, 30, 0, &retention);
        connection.execute(damage, []).unwrap();
        add(&connection, &other, 3, 0, &retention);
        delete(&connection, &damaged, 0, &retention).unwrap();
        assert_eq!(numbers(&connection, "turns"), 3, "{damage}");
    }
}

#[test]
fn sessions_whose_chains_are_broken_are_swept_with_one_look_through_the_table_a_round() {
    let retention = Retention { ttl: std::time::Duration::from_millis(10), ..Retention::default() };
    let connection = connection();
    let (broken, swept) = (10, SWEPT_TURNS as usize);
    add(&connection, &keyed("long"), swept + 100, 0, &retention);
    for number in 1..broken {
        add(&connection, &keyed(&format!("session-{number}")), 30, 0, &retention);
    }
    connection.execute("UPDATE turns SET previous = NULL WHERE seq = 30", []).unwrap();
    connection.execute("UPDATE turns SET previous = NULL WHERE seq > 2000 AND seq % 7 = 0", []).unwrap();
    add(&connection, &keyed("live"), 3, 1000, &retention);
    let looked = || connection.prepare_cached(chain::REMOVE_BROKEN).unwrap().get_status(StatementStatus::Run);
    let (mut before, mut rounds) = (numbers(&connection, "turns"), 0);
    loop {
        let more = sweep(&connection, 100).unwrap();
        rounds += 1;
        assert!(looked() <= rounds, "{} looks through the table in {rounds} rounds", looked());
        let left = numbers(&connection, "turns");
        assert!(before - left <= swept as i64, "{} turns are removed in one round", before - left);
        before = left;
        if !more {
            break;
        }
    }
    assert_eq!((rounds, looked()), (2, 2));
    assert_eq!((numbers(&connection, "turns"), numbers(&connection, "sessions")), (3, 1));
}

#[test]
fn a_long_session_is_swept_in_steps_and_may_begin_anew_between_them() {
    let retention = Retention { ttl: std::time::Duration::from_millis(10), ..Retention::default() };
    for begin_anew in [false, true] {
        let (connection, key, other) = (connection(), keyed("a"), keyed("b"));
        let swept = SWEPT_TURNS as usize;
        add(&connection, &key, 2 * swept + 2, 0, &retention);
        add(&connection, &other, 1, 1000, &retention);
        assert!(sweep(&connection, 100).unwrap(), "more is left");
        assert_eq!(numbers(&connection, "turns"), swept as i64 + 3);
        if begin_anew {
            add(&connection, &key, 2, 100, &retention);
            assert_eq!(numbers(&connection, "turns"), 3, "of the old ones none is left");
            continue;
        }
        assert!(sweep(&connection, 100).unwrap(), "more is left");
        assert!(!sweep(&connection, 100).unwrap());
        assert_eq!((numbers(&connection, "turns"), numbers(&connection, "sessions")), (1, 1));
    }
}

#[test]
fn listings_and_erasures_go_by_an_index_and_sort_one_slot_at_a_time() {
    let connection = connection();
    for (statement, index) in [
        (reader::LISTED, "sessions_by_slot (namespace=? AND principal=? AND slot<?)"),
        (reader::RECENT, "sessions_by_age (namespace=? AND slot>? AND slot<?)"),
        (reader::NEWEST_OF, "sessions_by_slot (namespace=? AND principal=? AND slot>?)"),
        (OF_PRINCIPAL, "sessions_by_slot (namespace=? AND principal=? AND slot>?)"),
        (BY_AGE, "sessions_by_age (namespace=? AND slot>?)"),
    ] {
        let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
        let steps: Vec<String> =
            explained.raw_query().mapped(|row| row.get(3)).collect::<Result<_, _>>().unwrap();
        assert_eq!(steps[0], format!("SEARCH sessions USING INDEX {index}"), "{statement}");
        let whole = steps.iter().any(|step| step.ends_with("FOR ORDER BY"));
        assert!(!whole, "all that is found is sorted: {steps:?} {statement}");
    }
}

/// Takes all steps of an expiry of what was appended to before this time; how many there were, and what they erased.
fn expire_all(connection: &Connection, before: i64) -> (u64, u64) {
    let (mut steps, mut sessions, mut page) = (0, 0, Page::new(64));
    loop {
        let after = ExpiryPlace::of(&page).unwrap();
        let step = expire(connection, "test", before, after, page.limit).unwrap();
        (steps, sessions) = (steps + 1, sessions + step.sessions);
        page.after = step.next;
        if page.after.is_none() {
            return (steps, sessions);
        }
    }
}

#[test]
fn old_sessions_are_erased_though_many_that_were_created_before_them_are_in_use() {
    let (connection, retention) = (connection(), Retention::default());
    let in_use: Vec<_> = (0..300).map(|number| keyed(&format!("in-use-{number}"))).collect();
    in_use.iter().for_each(|key| drop(add(&connection, key, 1, 0, &retention)));
    for number in 0..5 {
        add(&connection, &keyed(&format!("old-{number}")), 1, 0, &retention);
    }
    in_use.iter().for_each(|key| drop(add(&connection, key, 1, 1000, &retention)));
    assert_eq!(expire_all(&connection, 500).1, 5);
    assert_eq!(numbers(&connection, "sessions"), 300);
}

#[test]
fn an_expiry_ends_in_the_slot_that_follows_the_old_sessions() {
    let (connection, retention) = (connection(), Retention::default());
    for number in 0..2000 {
        add(&connection, &keyed(&format!("session-{number}")), 1, 1000, &retention);
    }
    connection.execute("UPDATE sessions SET slot = row / 500", []).unwrap();
    assert_eq!(expire_all(&connection, 500), (2, 0), "of 8 that would look at all sessions");
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
