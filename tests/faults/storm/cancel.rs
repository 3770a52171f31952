//! Calls of a store that are dropped at random awaits, while others go on.

use std::{
    collections::HashSet,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};

use tokio::task::JoinSet;
use tower_session_memory::{
    history::{Record, RecordId},
    session::SessionKey,
    store::{Appended, HistoryStore, Page, Scope, StoreError},
};

use crate::storm::{cancellations, postgres, redis, shared_socket::SharedSocket};
use crate::{
    common::random::Random,
    servers::{Cluster, Postgres, Redis},
    turns::{key_of, turn},
};

/// Tasks that drop their calls, and tasks that do not.
const WILD: u64 = 16;
const STEADY: u64 = 8;
/// Sessions stay short, so that calls stay quick.
const CALLS_A_SESSION: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_given_what_is_not_theirs_by_redis() {
    let server = Redis::start();
    survives("Redis", redis(server.url()).open().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_given_what_is_not_theirs_by_redis_over_tls() {
    let server = Redis::tls(false);
    let url = format!("rediss://127.0.0.1:{}?tls_ca={}", server.port(), server.file("ca.pem"));
    survives("Redis over TLS", redis(url).open().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_given_what_is_not_theirs_by_a_cluster() {
    let cluster = Cluster::start();
    survives("Cluster", redis(cluster.url()).open().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_given_what_is_not_theirs_by_postgres() {
    let server = Postgres::start();
    survives("Postgres", postgres(server.url()).open().await.unwrap()).await;
}

/// The defect that this is about: a request reads its answer from the connection by itself, and leaves the
/// answer there when it is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_requests_read_by_themselves_is_caught() {
    let server = Redis::start();
    let report = Storm::over(SharedSocket::to(server.address()), 3_000).run().await;
    println!("a shared socket: {report}; the first: {:?}", report.wrong.first());
    assert!(!report.wrong.is_empty(), "{report}: the storm finds nothing");
}

async fn survives(name: &str, store: impl HistoryStore + 'static) {
    let report = Storm::over(store, cancellations()).run().await;
    println!("{name}: {report}");
    assert!(report.wrong.is_empty(), "{name}: {report}: {:?}", report.wrong);
    assert!(report.cancelled > report.completed / 50, "{report}: too few calls were dropped");
}

struct Storm<S> {
    store: S,
    wanted: u64,
    cancelled: AtomicU64,
    completed: AtomicU64,
    loads: AtomicU64,
    turns: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

struct Report {
    cancelled: u64,
    completed: u64,
    loads: u64,
    turns: u64,
    wrong: Vec<String>,
}

impl<S: HistoryStore + 'static> Storm<S> {
    fn over(store: S, wanted: u64) -> Arc<Self> {
        Arc::new(Self {
            store,
            wanted,
            cancelled: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            loads: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            wrong: Mutex::default(),
        })
    }

    async fn run(self: Arc<Self>) -> Report {
        let mut tasks = JoinSet::new();
        for number in 0..WILD + STEADY {
            tasks.spawn(Arc::clone(&self).work(number));
        }
        tasks.join_all().await;
        Report {
            cancelled: self.cancelled.load(Ordering::Relaxed),
            completed: self.completed.load(Ordering::Relaxed),
            loads: self.loads.load(Ordering::Relaxed),
            turns: self.turns.load(Ordering::Relaxed),
            wrong: std::mem::take(&mut self.wrong.lock().unwrap()),
        }
    }

    /// Fills sessions of its own, until enough calls were dropped or something is wrong.
    async fn work(self: Arc<Self>, number: u64) {
        let mut dice = Random::of(1, number);
        for round in 0_u64.. {
            if self.cancelled.load(Ordering::Relaxed) >= self.wanted || !self.wrong.lock().unwrap().is_empty()
            {
                return;
            }
            // Principals are shared, sessions are not.
            let principal = format!("p{}", number % 5);
            let key = key_of(&principal, &format!("{principal}-{number}-{round}"));
            let wild = number < WILD;
            if let Err(wrong) = self.session(&key, wild, &mut dice).await {
                self.wrong.lock().unwrap().push(format!("{}: {wrong}", key.id().as_str()));
            }
        }
    }

    async fn session(&self, key: &SessionKey, wild: bool, dice: &mut Random) -> Result<(), String> {
        let mut known = Known::default();
        let mut cursor = self.load(key, None, &mut known).await?;
        let scope = Scope { namespace: key.namespace().to_owned(), principal: key.principal().clone() };
        for call in 0..CALLS_A_SESSION {
            let point = if wild { Point::random(dice) } else { Point::Never };
            match dice.below(6) {
                0 => {
                    if let Some(loaded) = self.cut(point, self.store.load(key, Some(&cursor))).await? {
                        self.check(key, &loaded.records, &known)?;
                    }
                }
                1 => {
                    let page = Page::new(10);
                    if let Some(page) = self.cut(point, self.store.sessions(&scope, &page)).await? {
                        let own = format!("{}-", key.principal().as_str());
                        let foreign =
                            page.sessions.iter().find(|session| !session.id.as_str().starts_with(&own));
                        if let Some(foreign) = foreign {
                            return Err(format!("a listing of somebody else: {}", foreign.id.as_str()));
                        }
                    }
                }
                2 => cursor = self.load(key, None, &mut known).await?,
                _ => {
                    let turn = turn(key, &format!("{} {call}", key.id().as_str()));
                    known.sent.insert(turn.id());
                    match self.cut(point, self.store.append(key, &cursor, &turn)).await? {
                        None => {}
                        Some(Appended::Appended { cursor: at, .. }) if at.newest == Some(turn.id()) => {
                            known.acknowledged.insert(turn.id());
                            cursor = at;
                        }
                        Some(other) => return Err(format!("the answer to another append: {other:?}")),
                    }
                }
            }
        }
        self.load(key, None, &mut known).await?;
        if dice.one_in(3) {
            self.cut(Point::random(dice), self.store.delete(key)).await?;
        }
        Ok(())
    }

    /// A load that is not dropped: all that was acknowledged must be in it.
    async fn load(
        &self,
        key: &SessionKey,
        after: Option<&tower_session_memory::store::Cursor>,
        known: &mut Known,
    ) -> Result<tower_session_memory::store::Cursor, String> {
        let loaded = self.cut(Point::Never, self.store.load(key, after)).await?.unwrap();
        self.check(key, &loaded.records, known)?;
        let ids: Vec<RecordId> = loaded.records.iter().map(Record::id).collect();
        let all: HashSet<RecordId> = ids.iter().copied().collect();
        if all.len() != ids.len() || !all.is_superset(&known.acknowledged) || !ids.starts_with(&known.seen) {
            let (found, acknowledged) = (ids.len(), known.acknowledged.len());
            return Err(format!("{found} turns are there, not as the {acknowledged} acknowledged ones were"));
        }
        known.seen = ids;
        Ok(loaded.cursor)
    }

    /// Every turn is of this session, and one that was sent.
    fn check(&self, key: &SessionKey, turns: &[Record], known: &Known) -> Result<(), String> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        self.turns.fetch_add(turns.len() as u64, Ordering::Relaxed);
        let own = format!("{} ", key.id().as_str());
        for turn in turns {
            let text = turn
                .turn()
                .and_then(|turn| turn.items().next())
                .map(|item| item.raw().clone())
                .unwrap_or_default();
            let mine = turn.belongs_to(key.digest()) && text.starts_with(own.as_bytes());
            if !mine || !known.sent.contains(&turn.id()) {
                return Err(format!("a turn of somebody else: {}", String::from_utf8_lossy(&text)));
            }
        }
        Ok(())
    }

    /// The answer, unless the call is dropped before.
    async fn cut<T>(
        &self,
        point: Point,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<Option<T>, String> {
        let answer = point.reach(call).await;
        let counter = if answer.is_some() { &self.completed } else { &self.cancelled };
        counter.fetch_add(1, Ordering::Relaxed);
        answer.transpose().map_err(|error| format!("{error:?}"))
    }
}

/// What a task knows of its session.
#[derive(Debug, Default)]
struct Known {
    sent: HashSet<RecordId>,
    acknowledged: HashSet<RecordId>,
    /// The newest whole log that was loaded.
    seen: Vec<RecordId>,
}

/// Where a call is dropped.
#[derive(Debug, Clone, Copy)]
enum Point {
    Never,
    /// After this number of polls.
    Polls(usize),
    /// After the caller has let other tasks run this number of times.
    Records(usize),
    After(std::time::Duration),
}

impl Point {
    fn random(dice: &mut Random) -> Self {
        match dice.below(3) {
            0 => Self::Polls(dice.below(5)),
            1 => Self::Records(dice.below(60)),
            _ => Self::After(dice.millis(4)),
        }
    }

    async fn reach<F: Future>(self, call: F) -> Option<F::Output> {
        let turns = async |turns| {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        };
        match self {
            Self::Never => Some(call.await),
            Self::Polls(polls) => first_polls(polls, call).await,
            Self::Records(count) => tokio::select! {
                biased;
                answer = call => Some(answer),
                () = turns(count) => None,
            },
            Self::After(time) => tokio::time::timeout(time, call).await.ok(),
        }
    }
}

/// Polls a future at most `polls` times. Each poll but the last is followed by a wake-up.
async fn first_polls<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cancelled, completed, loads, turns, wrong } = self;
        write!(
            f,
            "{cancelled} calls dropped, {completed} completed; {turns} turns in {loads} loads looked at, {} wrong",
            wrong.len()
        )
    }
}
