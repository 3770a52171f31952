//! The SQLite store: the conformance suite, and what only a file can suffer.
//!
//! `SESSION_MEMORY_KILLS` sets how often the kill test kills (default 20).

mod damage;
mod model;
mod processes;
mod support;

use std::{sync::Mutex, time::Duration};

use tempfile::TempDir;
use tower_session_memory::{
    store::{
        Appended, Durability, HistoryStore, Retention, SqliteStore, StoreError, StoreErrorKind,
        sqlite::Synchronous,
    },
    testing::{
        ManualClock,
        conformance::{Harness, Options},
    },
};

use self::support::{File, PATIENCE, key, say, texts, turn};

#[derive(Default)]
struct Sqlite {
    clock: ManualClock,
    directories: Mutex<Vec<TempDir>>,
}

impl Harness for Sqlite {
    type Store = SqliteStore;

    async fn store(&self, options: &Options) -> SqliteStore {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions.db");
        self.directories.lock().unwrap().push(directory);
        let clock = self.clock.clone();
        let builder = SqliteStore::builder(path)
            .with_busy_timeout(PATIENCE)
            .with_clock(move || clock.now())
            .with_retention(options.retention);
        builder.open().await.unwrap()
    }

    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
}

mod conformance {
    tower_session_memory::conformance_tests!(super::Sqlite::default());
}

#[tokio::test]
async fn an_acknowledgement_is_worth_what_the_file_is_set_to() {
    let file = File::new();
    assert_eq!(file.open().await.durability().await.unwrap(), Durability::Fsync);
    let weaker = file.builder().with_synchronous(Synchronous::Normal).open().await.unwrap();
    assert_eq!(weaker.durability().await.unwrap(), Durability::Process);
}

#[tokio::test]
async fn a_conversation_goes_on_after_the_store_is_opened_again() {
    let file = File::new();
    for round in ["one", "two", "three"] {
        let store = file.open().await;
        say(&store, &key("a"), round).await;
        if round == "two" {
            store.close().await;
        }
    }
    assert_eq!(texts(&file.open().await, "a").await, ["one", "two", "three"]);
}

#[tokio::test]
async fn a_closed_store_has_moved_everything_into_the_file_and_refuses_the_rest() {
    let file = File::new();
    let store = file.open().await;
    say(&store, &key("a"), "one").await;
    let at = store.load(&key("a"), None).await.unwrap().cursor;
    let other_handle = store.clone();
    store.close().await;
    store.close().await;
    let wal = std::fs::metadata(file.path().with_extension("db-wal")).map_or(0, |metadata| metadata.len());
    assert_eq!(wal, 0, "the write-ahead log is empty or gone");
    let error = other_handle.append(&key("a"), &at, &turn(&key("a"), "two")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Other);
    assert!(!other_handle.load(&key("a"), None).await.unwrap_err().is_transient());
    assert_eq!(texts(&file.open().await, "a").await, ["one"]);
}

/// Its checkpoints run beside the writers, and wait for no other connection.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_stays_bounded_under_writers_that_never_pause() {
    const MIB: u64 = 1024 * 1024;
    // The log starts over at 64 MiB. A reader that stands still delays that; a log that never starts over has all that is
    // written.
    const MOST: u64 = 160 * MIB;
    const WRITTEN: u64 = 256 * MIB;
    let file = File::new();
    let store = file.open().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let store = store.clone();
        writers.spawn(async move {
            for turn in 0..128 {
                let key = key(&format!("session-{writer}-{turn}"));
                say(&store, &key, &"x".repeat(MIB as usize / 4)).await;
            }
        });
    }
    let log = || std::fs::metadata(file.path().with_extension("db-wal")).unwrap().len();
    // Looked at all the time: when the log starts over, its file is cut back.
    let (mut longest, mut often) = (0, tokio::time::interval(Duration::from_millis(1)));
    loop {
        tokio::select! {
            done = writers.join_next() => match done {
                Some(done) => done.unwrap(),
                None => break,
            },
            _ = often.tick() => longest = longest.max(log()),
        }
    }
    let moved = std::fs::metadata(file.path()).unwrap().len();
    assert!(longest <= MOST, "the log has grown to {longest} bytes");
    assert!(moved >= WRITTEN - MOST, "{moved} bytes are in the file");
}

#[tokio::test]
async fn what_was_handed_over_before_the_close_is_answered() {
    let file = File::new();
    let store = file.open().await;
    let at = store.load(&key("a"), None).await.unwrap().cursor;
    let mut appends = tokio::task::JoinSet::new();
    for number in 0..100 {
        let store = store.clone();
        let turn = turn(&key("a"), &number.to_string());
        appends.spawn(async move { store.append(&key("a"), &at, &turn).await.is_ok() });
    }
    tokio::task::yield_now().await;
    store.close().await;
    let acknowledged = appends.join_all().await.into_iter().filter(|done| *done).count();
    assert_eq!(texts(&file.open().await, "a").await.len(), acknowledged, "stored or refused, never neither");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_may_be_opened_by_many_at_once() {
    let file = File::new();
    let mut opening = tokio::task::JoinSet::new();
    for number in 0..8 {
        let builder = file.builder();
        opening.spawn(async move {
            let store = builder.open().await.unwrap();
            say(&store, &key("a"), &number.to_string()).await;
        });
    }
    opening.join_all().await;
    assert_eq!(texts(&file.open().await, "a").await.len(), 8);
}

#[tokio::test]
async fn two_handles_on_one_file_see_each_others_turns_at_once() {
    let file = File::new();
    let (one, two) = (file.open().await, file.open().await);
    for round in 0..20 {
        let (writes, reads) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        say(writes, &key("a"), &round.to_string()).await;
        assert_eq!(texts(reads, "a").await.len(), round + 1);
    }
}

#[tokio::test]
async fn a_store_that_another_program_locks_refuses_writes_in_time_and_still_reads() {
    let file = File::new();
    let store = file.builder().with_busy_timeout(Duration::from_secs(1)).open().await.unwrap();
    let patient = file.open().await;
    let key = key("a");
    let at = say(&patient, &key, "one").await;

    let other = file.sqlite();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.append(&key, &at, &turn(&key, "two")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "it may be tried again");
    assert_eq!(insist(|| store.load(&key, None)).await.records.len(), 1);
    other.execute_batch("COMMIT").unwrap();
    let two = turn(&key, "two");
    let stored = insist(|| store.append(&key, &at, &two)).await;
    assert!(matches!(stored, Appended::Appended { .. }), "{stored:?}");
    assert_eq!(texts(&patient, "a").await, ["one", "two"]);
}

/// What a call answers at last that may take longer than its store waits.
async fn insist<T, F: Future<Output = Result<T, StoreError>>>(call: impl Fn() -> F) -> T {
    let answer = async {
        loop {
            match call().await {
                Ok(answer) => return answer,
                Err(error) => assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, answer).await.expect("it is done at last")
}

#[tokio::test]
async fn expired_sessions_and_what_deletions_leave_are_removed_from_the_file() {
    let file = File::new();
    let clock = ManualClock::default();
    let now = clock.clone();
    let store = file
        .builder()
        .with_clock(move || now.now())
        .with_retention(
            Retention::new().with_ttl(Duration::from_secs(60)).with_tombstone_ttl(Duration::from_secs(60)),
        )
        .with_sweep_interval(Duration::from_millis(5))
        .open()
        .await
        .unwrap();
    for number in 0..100 {
        let key = key(&format!("session-{number}"));
        say(&store, &key, "one").await;
        if number % 10 == 0 {
            store.delete(&key).await.unwrap();
        }
    }
    clock.advance(Duration::from_secs(61));
    say(&store, &key("live"), "one").await;
    let sqlite = file.sqlite();
    let left = || {
        let count = |table| {
            sqlite
                .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        (count("sessions"), count("turns"))
    };
    for _ in 0..1000 {
        if left() == (1, 1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(left(), (1, 1), "only the live session and its turn are left");
}

#[tokio::test]
async fn nothing_of_a_deleted_conversation_is_left_in_the_file() {
    let file = File::new();
    let store = file.open().await;
    let secret = "0-secret-of-a-deleted-session-0".repeat(500);
    say(&store, &key("a"), &secret).await;
    say(&store, &key("b"), "kept").await;
    store.delete(&key("a")).await.unwrap();
    store.close().await;
    let bytes = std::fs::read(file.path()).unwrap();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("kept"), "the file is what is looked at");
    assert!(!holds("secret-of-a-deleted"), "a deleted conversation is overwritten");
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let file = File::new();
    let store = file.open().await;
    say(&store, &key("a"), "one").await;
    for entry in std::fs::read_dir(file.path().parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
    }
}

#[tokio::test]
async fn an_open_that_is_dropped_leaves_the_file_free() {
    let file = File::new();
    for _ in 0..20 {
        drop(file.open());
        let mut opening = Box::pin(file.builder().open());
        std::future::poll_fn(|context| {
            let _ = opening.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
    say(&file.open().await, &key("a"), "one").await;
}
