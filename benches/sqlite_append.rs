//! What a durable append costs on SQLite: through the store's group commit, by one caller and by 64 at once,
//! and, for comparison, with a commit for each turn.
//!
//! `cargo bench --features sqlite --bench sqlite_append`; the figures are those of the disk under the
//! temporary directory.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::{runtime::Runtime, task::JoinSet};
use tower_session_memory::{
    history::{About, Message, Parent, Role, Turn, TurnId, TurnParts, TurnState},
    session::{Principal, SessionKey},
    store::{Cursor, Epoch, HistoryStore, SqliteStore},
};

fn append(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("sqlite_append");
    group.throughput(Throughput::Elements(1)).sample_size(20).measurement_time(Duration::from_secs(4));
    for writers in [1_u64, 64] {
        group.bench_function(format!("group commit, {writers} at once"), |bencher| {
            let directory = tempfile::tempdir().unwrap();
            let store = runtime.block_on(SqliteStore::open(directory.path().join("sessions.db"))).unwrap();
            bencher.iter_custom(|turns| runtime.block_on(append_at_once(&store, turns, writers)));
            runtime.block_on(store.close());
        });
    }
    group.bench_function("a commit for each turn", |bencher| {
        let directory = tempfile::tempdir().unwrap();
        let connection = bare_connection(&directory.path().join("turns.db"));
        let turn = turn(&key(0));
        bencher.iter(|| {
            connection
                .prepare_cached("INSERT INTO turns (record) VALUES (?1)")
                .unwrap()
                .execute([&turn.record()[..]])
                .unwrap();
        });
    });
    group.finish();
}

/// How long it takes until so many turns are stored by so many writers, each with a session of its own.
async fn append_at_once(store: &SqliteStore, turns: u64, writers: u64) -> Duration {
    let at = Cursor::start_of(Epoch::UNBORN);
    let keys: Vec<Arc<SessionKey>> = (0..writers).map(|writer| Arc::new(key(writer))).collect();
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (writer, key) in (0_u64..).zip(keys) {
        let store = store.clone();
        let share = turns / writers + u64::from(writer < turns % writers);
        tasks.spawn(async move {
            for _ in 0..share {
                store.append(&key, &at, &turn(&key)).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    start.elapsed()
}

/// The least that a durable insert takes, with the settings of the store.
fn bare_connection(path: &std::path::Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
             CREATE TABLE turns (row INTEGER PRIMARY KEY, record BLOB NOT NULL) STRICT;",
        )
        .unwrap();
    connection
}

fn key(number: u64) -> SessionKey {
    SessionKey::new("bench", Principal::anonymous(), format!("session-{number}").parse().unwrap())
}

/// A turn of about 2 KiB.
fn turn(key: &SessionKey) -> Turn {
    let text = "x".repeat(900);
    let message = |role, name| {
        let raw = format!(r#"{{"role":"{name}","content":"{text}"}}"#);
        Message::new(Bytes::from(raw), About::new(role))
    };
    let parts = TurnParts {
        id: TurnId::new(),
        parent: Parent::Previous,
        at: SystemTime::now(),
        instructions: Vec::new(),
        sent: vec![message(Role::User, "user")],
        reply: message(Role::Assistant, "assistant"),
        state: TurnState::Complete,
        finish_reason: None,
        model: None,
        usage: None,
    };
    parts.into_turn(key)
}

criterion_group!(benches, append);
criterion_main!(benches);
