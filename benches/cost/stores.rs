//! The stores, called one at a time in this process: what a load and an append allocate, and their round trips.

use std::time::Duration;

use stats_alloc::{Region, Stats};
use tempfile::TempDir;
use tower_session_memory::{
    history::{Author, Parent, Record},
    session::SessionKey,
    store::{Appended, Cached, Cursor, HistoryStore, PostgresStore, RedisStore, SqliteStore, StoreError},
};

use crate::{
    allocator::ALLOCATOR,
    error::BoxError,
    figures::{Figures, Unit},
    library::add_allocations,
    options::Options,
    servers::{Postgres, Redis, Relay},
    turns,
};

/// Turns of the session that is asked.
const TURNS: usize = 20;
/// How often each call is counted, after those that prepare statements and load scripts.
const COUNTED: usize = 21;
const WARM: usize = 3;
/// After a call is answered, its store's threads and tasks may still be at it.
const SETTLED: Duration = Duration::from_millis(3);

/// What is called.
const CALLS: [&str; 3] = ["load, cached", "load, cached, one new turn", "append"];

/// # Errors
///
/// When a server does not start, or a call fails.
pub(crate) fn measure(options: &Options, figures: &mut Figures) -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if wanted(options, "SQLite") {
        let directory: TempDir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        runtime.block_on(async {
            let store = SqliteStore::open(directory.path().join("sessions.db")).await?;
            count("SQLite", store.clone(), store, None, figures).await
        })?;
    }
    if wanted(options, "Redis") {
        runtime.block_on(async {
            let redis = Redis::start_with(&["--appendonly", "yes"]);
            let relay = Relay::before(redis.address()).await;
            let url = format!("redis://127.0.0.1:{}", relay.port());
            let store = RedisStore::builder(url).open().await?;
            // What one store does, another one does not know.
            let other = RedisStore::builder(redis.url()).open().await?;
            count("Redis", store, other, Some(&relay), figures).await
        })?;
    }
    if wanted(options, "Postgres") {
        runtime.block_on(async {
            let postgres = Postgres::start();
            let relay = Relay::before(([127, 0, 0, 1], postgres.port()).into()).await;
            let (from, to) = (format!(":{}/", postgres.port()), format!(":{}/", relay.port()));
            let store = PostgresStore::builder(postgres.url().replace(&from, &to)).open().await?;
            count("Postgres", store.clone(), store, Some(&relay), figures).await
        })?;
    }
    Ok(())
}

fn wanted(options: &Options, store: &str) -> bool {
    CALLS.iter().any(|call| options.wants(&format!("{store}: {call}")))
}

/// Counts the calls on a session of one store: loads through the cache, also after a turn of another replica, and
/// appends.
async fn count<S: HistoryStore>(
    name: &str,
    store: S,
    other: S,
    relay: Option<&Relay>,
    figures: &mut Figures,
) -> Result<(), BoxError> {
    let key = turns::key("session");
    let cached = Cached::new(store);
    let mut at = other.load(&key, None).await?.cursor;
    for _ in 0..TURNS {
        at = appended(other.append(&key, &at, &turn(&key)).await?)?;
    }
    cached.load(&key, None).await?;
    let (mut unchanged, mut appends, mut one_new) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..WARM + COUNTED {
        cached.load(&key, None).await?;
        unchanged.push(counted(relay, cached.load(&key, None)).await?.1);
        at = appended(other.append(&key, &at, &turn(&key)).await?)?;
        one_new.push(counted(relay, cached.load(&key, None)).await?.1);
        let turn = turn(&key);
        let (end, sample) = counted(relay, cached.append(&key, &at, &turn)).await?;
        at = appended(end)?;
        appends.push(sample);
    }
    for (call, mut samples) in CALLS.into_iter().zip([unchanged, one_new, appends]) {
        let call = format!("{name}: {call}");
        samples.drain(..WARM);
        if let Some(most) = samples.iter().filter_map(|sample| sample.round_trips).max() {
            figures.add(Unit::RoundTrips, &call, most as f64);
        }
        add_allocations(figures, &call, samples.into_iter().map(|sample| sample.allocated).collect());
    }
    Ok(())
}

struct Sample {
    allocated: Stats,
    /// None where there is no server.
    round_trips: Option<u64>,
}

async fn counted<T>(
    relay: Option<&Relay>,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<(T, Sample), StoreError> {
    let before = relay.map(Relay::traffic);
    let region = Region::new(ALLOCATOR);
    let answer = call.await?;
    tokio::time::sleep(SETTLED).await;
    let allocated = region.change();
    let round_trips = before.zip(relay).map(|(before, relay)| (relay.traffic() - before).round_trips);
    Ok((answer, Sample { allocated, round_trips }))
}

fn appended(answer: Appended) -> Result<Cursor, BoxError> {
    match answer {
        Appended::Appended { cursor: end, .. } => Ok(end),
        other => Err(format!("a turn was not appended: {other:?}").into()),
    }
}

/// A turn of twice 200 bytes.
fn turn(key: &SessionKey) -> Record {
    let message = |role: &str| format!(r#"{{"role":"{role}","content":"{}"}}"#, "x".repeat(200));
    let mut parts = turns::parts(&message("user"), Parent::Previous);
    parts.reply = vec![turns::message(Author::Model, &message("assistant"))];
    parts.finish_reason = Some("stop".to_owned());
    parts.model = Some("a-model".to_owned());
    parts.into_record(key)
}
