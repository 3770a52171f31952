//! What the erasure of a principal and an expiry by age cost the traffic beside them.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tower_session_memory::{
    history::Record,
    session::{Principal, SessionKey},
    store::{Appended, Cursor, Erased, Page, Scope},
};

use crate::{
    common::{
        machine::Machine,
        stats::{quantile, shown, sorted},
    },
    error::BoxError,
    fill::{ERASED, Filled, Store},
    options::Options,
    turns,
};

/// Sessions that speak beside the erasure, each by itself and as fast as it is answered, with pauses.
const SPEAKERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(2);
/// Turns after which a speaker begins another session.
const TURNS: usize = 20;
const ALONE: Duration = Duration::from_secs(10);
/// An erasure that takes longer is ended, and the table says how far it came.
const LONGEST: Duration = Duration::from_secs(300);
/// What was filled is older than this, and what speaks is younger.
pub(crate) const AGE: Duration = Duration::from_secs(5);

const COMMAND: &str = "cargo bench --features postgres,redis,sqlite --bench scale";

/// Erases half of the sessions as a principal's and half by their age, and prints the table.
///
/// # Errors
///
/// When a server does not start or a call fails.
pub(crate) fn run(options: &Options) -> Result<(), BoxError> {
    let machine = Machine::look();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut rows = String::new();
    for store in &options.stores {
        rows.push_str(&runtime.block_on(measure(store, directory.path(), options.many))?);
    }
    println!("{}\n{HEAD}\n{rows}", machine.describe(COMMAND, 1));
    Ok(())
}

const HEAD: &str = "| store | erasure | sessions erased | a second | slowest step ms | beside it | p50 µs alone | p50 µs | \
                    p99 µs alone | p99 µs | p99 × |\n|---|---|--:|--:|--:|---|--:|--:|--:|--:|--:|";

/// Latencies of one kind of call, in microseconds.
type Latencies = Arc<Mutex<Vec<f64>>>;

#[derive(Clone, Default)]
struct Traffic {
    loads: Latencies,
    appends: Latencies,
}

async fn measure(name: &str, directory: &std::path::Path, sessions: usize) -> Result<String, BoxError> {
    eprintln!("{name}: {sessions} sessions to be erased");
    let filled = Filled::start(name, directory, "erasure.db").await?;
    filled.add_erasable(sessions).await?;
    filled.settle().await?;
    tokio::time::sleep(AGE).await;
    let alone = beside(&filled.store, async {
        tokio::time::sleep(ALONE).await;
        Ok(())
    })
    .await?
    .1;
    let scope = Scope { namespace: "test".to_owned(), principal: Principal::new(ERASED) };
    let mut rows = String::new();
    for kind in ["of a principal", "by age"] {
        let mut slowest = Duration::ZERO;
        let store = &filled.store;
        let started = Instant::now();
        let erasure = async {
            let (mut all, mut after) = (Erased::default(), None);
            loop {
                let step = Instant::now();
                let page = Page::new(Erased::MAX_SESSIONS).with_after(after);
                let erased = match kind {
                    "by age" => store.expire_dyn("test", AGE, &page).await?,
                    _ => store.delete_principal_dyn(&scope, &page).await?,
                };
                slowest = slowest.max(step.elapsed());
                all.sessions += erased.sessions;
                after = erased.next;
                if after.is_none() || started.elapsed() > LONGEST {
                    return Ok((all.sessions, after.is_none()));
                }
            }
        };
        let ((erased, ended), traffic) = beside(store, erasure).await?;
        let seconds = started.elapsed().as_secs_f64();
        eprintln!("{name} {kind}: {erased} in {seconds:.0} s{}", if ended { "" } else { ", not all" });
        for (call, alone, beside) in
            [("loads", &alone.loads, &traffic.loads), ("appends", &alone.appends, &traffic.appends)]
        {
            let at = |latencies: &Latencies, part| {
                let latencies = latencies.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                quantile(&sorted(latencies.iter().copied()), part)
            };
            let ratio = at(beside, 0.99) / at(alone, 0.99);
            rows.push_str(&format!(
                "| {name} | {kind} | {erased}{} | {} | {} | {call} | {} | {} | {} | {} | {} |\n",
                if ended { "" } else { " (ended after 5 min)" },
                shown(Some(erased as f64 / seconds), 0),
                shown(Some(slowest.as_secs_f64() * 1e3), 0),
                shown(Some(at(alone, 0.5)), 0),
                shown(Some(at(beside, 0.5)), 0),
                shown(Some(at(alone, 0.99)), 0),
                shown(Some(at(beside, 0.99)), 0),
                shown(Some(ratio), 2),
            ));
        }
    }
    Ok(rows)
}

/// Does this while sessions speak; how long their calls took.
async fn beside<T>(
    store: &Store,
    work: impl Future<Output = Result<T, BoxError>>,
) -> Result<(T, Traffic), BoxError> {
    let (stop, traffic) = (Arc::new(AtomicBool::new(false)), Traffic::default());
    let mut speakers = JoinSet::new();
    for number in 0..SPEAKERS {
        speakers.spawn(speak(store.clone(), number, stop.clone(), traffic.clone()));
    }
    let done = work.await;
    stop.store(true, Ordering::Relaxed);
    for speaker in speakers.join_all().await {
        speaker?;
    }
    Ok((done?, traffic))
}

async fn speak(store: Store, number: usize, stop: Arc<AtomicBool>, traffic: Traffic) -> Result<(), BoxError> {
    let timed = |latencies: &Latencies, started: Instant| {
        let took = started.elapsed().as_secs_f64() * 1e6;
        latencies.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(took);
    };
    let text = "It was the best of times, it was the worst of times. ".repeat(4);
    while !stop.load(Ordering::Relaxed) {
        let key = speaker(number);
        let mut at: Cursor = store.load_dyn(&key, None.into()).await?.cursor;
        for _ in 0..TURNS {
            let started = Instant::now();
            store.load_dyn(&key, Some(&at).into()).await?;
            timed(&traffic.loads, started);
            let turn: Record = turns::turn(&key, &format!(r#"{{"role":"user","content":"{text}"}}"#));
            let started = Instant::now();
            let appended = store.append_dyn(&key, &at, &turn).await?;
            timed(&traffic.appends, started);
            let Appended::Appended { cursor, .. } = appended else {
                return Err(format!("a session that speaks lost its log: {appended:?}").into());
            };
            at = cursor;
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// A new session of one of the speakers, in the namespace of what is erased.
fn speaker(number: usize) -> SessionKey {
    let id = format!("speaker-{number}-{}", tower_session_memory::history::RecordId::new());
    let id = id.parse().unwrap_or_else(|_| unreachable!("letters, digits and dashes"));
    SessionKey::new("test", Principal::new(format!("speaker-{number}")), id)
}
