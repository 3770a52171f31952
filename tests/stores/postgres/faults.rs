//! Connections that are cut, too few, or used by callers that leave.

use std::{
    collections::HashSet,
    future::poll_fn,
    num::NonZeroUsize,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};
use tower_session_memory::{
    history::{Record, RecordId},
    store::{Appended, HistoryStore, Page, PostgresStore, Scope, StoreErrorKind},
};

use super::{
    load::faults,
    server::{PATIENCE, Schema},
    support::{key, key_of, say, texts, turn},
};

const ONE: NonZeroUsize = NonZeroUsize::MIN;

fn ids(turns: &[Record]) -> Vec<RecordId> {
    turns.iter().map(Record::id).collect()
}

/// Appends until it is acknowledged, as the layer does: the same turn again after each passing error.
async fn insist(
    store: &PostgresStore,
    key: &tower_session_memory::session::SessionKey,
    turn: &Record,
) -> u64 {
    let mut errors = 0;
    loop {
        let at = match store.load(key, None).await {
            Ok(loaded) => loaded.cursor,
            Err(error) => {
                assert!(error.is_transient(), "{error:?}");
                errors += 1;
                continue;
            }
        };
        match store.append(key, &at, turn).await {
            Ok(Appended::Gone) => panic!("nobody deleted it"),
            Ok(_) => return errors,
            Err(error) => {
                assert!(error.is_transient(), "{error:?}");
                errors += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_terminated_under_load_lose_and_double_nothing() {
    const TASKS: usize = 8;
    const TURNS: usize = 60;
    let schema = Schema::new();
    let store = schema.connect().await;
    let working = Arc::new(AtomicBool::new(true));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            let key = key(&format!("session-{}", task % 3));
            let mut sent = Vec::new();
            let mut errors = 0;
            for number in 0..TURNS {
                let turn = turn(&key, &format!("{task}/{number}"));
                errors += insist(&store, &key, &turn).await;
                sent.push(turn.id());
            }
            (key, sent, errors)
        });
    }
    let storm = {
        let working = working.clone();
        let superuser = schema.raw().await;
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE application_name = 'session-memory' AND query LIKE '%\"{}\".%'",
            schema.name
        );
        async move {
            let mut killed = 0;
            while working.load(Ordering::Relaxed) {
                killed += superuser.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            killed
        }
    };
    let work = async {
        let done = tasks.join_all().await;
        working.store(false, Ordering::Relaxed);
        done
    };
    let (killed, done) = tokio::join!(storm, work);
    let errors: u64 = done.iter().map(|(_, _, errors)| errors).sum();
    println!("{killed} connections terminated, {errors} calls failed, {} turns", TASKS * TURNS);
    assert!(killed > 20, "only {killed} connections were terminated: the test tests nothing");
    // That of the storm may still have connections that end.
    let store = schema.connect().await;
    for session in 0..3 {
        let key = key(&format!("session-{session}"));
        let stored = ids(&store.load(&key, None).await.unwrap().records);
        let sent: HashSet<RecordId> =
            done.iter().filter(|(of, ..)| *of == key).flat_map(|(_, sent, _)| sent.iter().copied()).collect();
        assert_eq!(stored.len(), sent.len(), "a turn is missing or doubled");
        assert_eq!(stored.into_iter().collect::<HashSet<_>>(), sent, "other turns than were sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_callers_share_one_connection() {
    let schema = Schema::new();
    let store = schema.builder().with_max_connections(ONE).open().await.unwrap();
    let mut callers = JoinSet::new();
    for caller in 0..100 {
        let store = store.clone();
        callers.spawn(async move {
            let key = key(&format!("session-{}", caller % 7));
            for number in 0..5 {
                insist(&store, &key, &turn(&key, &format!("{caller}/{number}"))).await;
            }
        });
    }
    callers.join_all().await;
    let mut all = 0;
    for session in 0..7 {
        all += texts(&store, &key(&format!("session-{session}"))).await.len();
    }
    assert_eq!(all, 500, "every caller had its turns");
}

#[tokio::test]
async fn a_caller_that_finds_every_connection_busy_waits_for_a_bounded_time() {
    let schema = Schema::new();
    let builder = schema.builder().with_max_connections(ONE).with_timeout(Duration::from_millis(500));
    let (store, patient) = (builder.open().await.unwrap(), schema.connect().await);
    let key = key("a");
    let at = say(&patient, &key, "one").await;
    let blocker = schema.raw().await;
    let lock = format!("BEGIN; SELECT FROM {}.sessions FOR UPDATE", schema.name);
    blocker.batch_execute(&lock).await.unwrap();

    let (late, until) = (turn(&key, "two"), Instant::now() + PATIENCE);
    let locked = loop {
        let (locked, load) = tokio::join!(store.append(&key, &at, &late), async {
            tokio::task::yield_now().await;
            store.load(&key, None).await
        });
        if let Err(error) = load {
            assert!(error.is_transient(), "{error:?}");
        }
        let locked = locked.unwrap_err();
        // The first sweep may have the one connection, or to make it may take too long: then nothing was sent.
        if locked.kind() != StoreErrorKind::Unavailable || Instant::now() > until {
            break locked;
        }
    };
    assert_eq!(locked.kind(), StoreErrorKind::Timeout, "whether the append was done is unknown: {locked:?}");
    blocker.batch_execute("COMMIT").await.unwrap();
    insist(&store, &key, &late).await;
    assert_eq!(texts(&patient, &key).await, ["one", "two"], "the turn that timed out is stored once");
}

/// Polls a future a few times and drops it; whether it was dropped.
async fn cut<F: Future>(polls: u32, future: F) -> bool {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(true);
        }
        left -= 1;
        future.as_mut().poll(context).map(|_| false)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_dropped_calls_leave_no_transaction_and_no_foreign_answer() {
    const TASKS: usize = 8;
    let calls = 8000.max(500 * faults() as usize);
    let schema = Schema::new();
    // The server ends a transaction that stands still for this timeout: not before the test looks for one.
    let builder = schema.builder().with_timeout(10 * PATIENCE).with_sweep_interval(60 * PATIENCE);
    let store = builder.with_max_connections(NonZeroUsize::new(4).unwrap()).open().await.unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            let key = key_of(&format!("principal-{task}"), "session");
            let mut at = store.load(&key, None).await.unwrap().cursor;
            let (mut dropped, mut sent) = (0, HashSet::new());
            for call in 0..calls / TASKS {
                let polls = call as u32 % 5;
                dropped += usize::from(match call % 4 {
                    0 => cut(polls, store.load(&key, Some(&at))).await,
                    1 if call % 64 == 1 => cut(polls, store.delete(&key)).await,
                    _ => {
                        let turn = turn(&key, &format!("{task}/{call}"));
                        sent.insert(turn.id());
                        cut(polls, store.append(&key, &at, &turn)).await
                    }
                });
                if call % 10 == 9 {
                    // A record of another session would be an error, and so would an answer of another shape.
                    let loaded = store.load(&key, None).await.unwrap();
                    let found = ids(&loaded.records);
                    let own: HashSet<RecordId> = found.iter().copied().collect();
                    assert!(own.is_subset(&sent), "a turn of somebody else");
                    assert_eq!(own.len(), found.len(), "a turn stands in the log twice");
                    at = loaded.cursor;
                }
            }
            dropped
        });
    }
    let dropped: usize = tasks.join_all().await.into_iter().sum();
    println!("{dropped} of {} calls dropped, 0 foreign answers", calls);
    assert!(dropped > calls / 4, "only {dropped} calls were dropped: the test tests nothing");
    let connections = "SELECT count(*) FROM pg_stat_activity
                       WHERE application_name = 'session-memory' AND query LIKE '%\"{}\".%'";
    let open = format!("{connections} AND state LIKE 'idle in transaction%'");
    schema.falls_to(0, "connections stand in a transaction", &open).await;
    schema.falls_to(4, "connections", connections).await;
}

#[tokio::test]
async fn a_record_of_another_session_is_an_error() {
    let schema = Schema::new();
    let store = schema.connect().await;
    say(&store, &key("mine"), "mine").await;
    say(&store, &key("theirs"), "theirs").await;
    schema
        .run(
            "UPDATE {}.turns SET record = (SELECT record FROM {}.turns t JOIN {}.sessions s USING (session)
                                           WHERE s.id = 'theirs')
             WHERE session = (SELECT session FROM {}.sessions WHERE id = 'mine')",
        )
        .await;
    let error = store.load(&key("mine"), None).await.unwrap_err();
    assert!(error.kind() == StoreErrorKind::Corrupt && error.is_foreign(), "{error:?}");
    assert_eq!(texts(&store, &key("theirs")).await, ["theirs"], "the others are not disturbed");
}

#[tokio::test]
async fn a_log_with_a_hole_is_an_error() {
    let schema = Schema::new();
    let store = schema.connect().await;
    for text in ["one", "two", "three"] {
        say(&store, &key("a"), text).await;
    }
    schema.run("DELETE FROM {}.turns WHERE seq = 2").await;
    assert_eq!(store.load(&key("a"), None).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
}

#[tokio::test]
async fn a_server_that_takes_no_writes_refuses_turns_for_now() {
    let schema = Schema::new();
    let store = schema.builder().with_max_connections(ONE).open().await.unwrap();
    say(&store, &key("a"), "one").await;
    let at = store.load(&key("a"), None).await.unwrap().cursor;
    // What a standby answers. (The test's own role, so that no other test sees it.)
    schema.run("CREATE FUNCTION {}.refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'cannot execute INSERT in a read-only transaction' USING ERRCODE = '25006'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON {}.turns FOR EACH ROW EXECUTE FUNCTION {}.refuse()").await;
    let error = store.append(&key("a"), &at, &turn(&key("a"), "two")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    schema.run("DROP TRIGGER refuse ON {}.turns").await;
    say(&store, &key("a"), "three").await;
    assert_eq!(texts(&store, &key("a")).await, ["one", "three"], "a turn that was refused left nothing");
}

#[tokio::test]
async fn no_error_repeats_what_it_was_about() {
    let schema = Schema::new();
    let store = schema.connect().await;
    schema.run("ALTER TABLE {}.turns ADD CHECK (length(record) < 100)").await;
    let key = key("a-session-id-that-no-log-may-show");
    let at = store.load(&key, None).await.unwrap().cursor;
    let error = store.append(&key, &at, &turn(&key, "canary-of-the-message")).await.unwrap_err();
    let mut told = format!("{error} {error:?}");
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        told.push_str(&format!("{cause} {cause:?}"));
        source = cause.source();
    }
    assert!(told.contains("23514"), "it says what is wrong: {told}");
    for secret in ["canary", "no-log-may-show", "somebody"] {
        assert!(!told.contains(secret), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_waited_for_another_ends_only_where_nothing_is_left() {
    let schema = Schema::new();
    let store = schema.connect().await;
    for number in 0..10 {
        say(&store, &key(&format!("session-{number}")), "one").await;
    }
    let scope = Scope::of(&key("session-0"));
    let other = schema.raw().await;
    let step = "BEGIN; SELECT {}.erase('test', 'somebody', 60, 0, 4, 512)";
    other.batch_execute(&step.replace("{}", &schema.name)).await.unwrap();
    let mut steps = JoinSet::new();
    steps.spawn({
        let (store, scope) = (store.clone(), scope.clone());
        async move {
            let mut page = Page::new(4);
            loop {
                page.after = store.delete_principal(&scope, &page).await.unwrap().next;
                if page.after.is_none() {
                    return;
                }
            }
        }
    });
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%\"{}\".%'";
    let until_it_waits = async {
        while schema.number(waiting).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, until_it_waits).await.expect("the step waits for the other's");
    other.batch_execute("COMMIT").await.unwrap();
    steps.join_all().await;
    let left = store.sessions(&scope, &Page::new(10)).await.unwrap().sessions.len();
    assert_eq!(left, 0, "of the six that the other's step left");
}
